"""The sample footage that ships inside the package: pusher episodes with actions, and one real clip (see its LICENSE.md)."""

from pathlib import Path

from worldfoundry.core.errors import DataError


def sample_footage() -> Path:
    """The folder of `episode_*.mp4`, `*.episode.parquet`, `city.mp4` and `dataset.json`. Raises DataError if absent."""
    folder = Path(__file__).resolve().parent / "sample_footage"
    if not (folder / "dataset.json").is_file():
        raise DataError(f"The sample footage is missing from {str(folder)!r}.", "Install the package again.")
    return folder
