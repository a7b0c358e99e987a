"""The models that come with the package: `worldfoundry/weights/NAME/`, each a checkpoint or world folder.

Nothing here opens weights, so a listing is quick.
"""

from dataclasses import dataclass
from pathlib import Path

from worldfoundry.core.errors import CheckpointError, did_you_mean
from worldfoundry.core.files import read_fields

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
MAKE_ONE = "Train one (`worldfoundry quickstart`, `worldfoundry train`), or convert a published one (`worldfoundry convert`)."


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A model of the package: what it is (`tokenizer`, `dit`, `world`, `adapter`, `token_decoder`) and the megabytes of its files."""

    name: str
    folder: Path
    kind: str
    size_mb: float


def shipped_models(root: Path | None = None) -> dict[str, Shipped]:
    """Every shipped model by name; `root` is another folder to look in. Raises UsageError for a damaged config."""
    found = {}
    for folder in sorted(root.iterdir() if (root := root or WEIGHTS).is_dir() else ()):
        if (folder / "model_index.json").is_file():
            kind = "world"
        elif (folder / "adapter_config.json").is_file():
            kind = "adapter"
        elif (folder / "config.json").is_file():
            kind = str(read_fields(folder / "config.json").get("kind", "component"))
        else:
            continue
        size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        found[folder.name] = Shipped(name=folder.name, folder=folder, kind=kind, size_mb=round(size_mb, 1))
    return found


def model_place(name_or_folder: str | Path, root: Path | None = None) -> Path:
    """The folder of a shipped name, or the folder itself. An existing folder wins over a name.

    Raises CheckpointError with the closest shipped names, or how to come by a checkpoint.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    known = shipped_models(root)
    if str(name_or_folder) in known:
        return known[str(name_or_folder)].folder
    if folder.is_file():
        raise CheckpointError(f"{str(folder)!r} is a file, not a checkpoint folder.", MAKE_ONE)
    if len(folder.parts) > 1 or not known:
        raise CheckpointError(f"There is no checkpoint folder {str(name_or_folder)!r}.", MAKE_ONE)
    hint = f"{did_you_mean(str(name_or_folder), list(known))} Shipped: {', '.join(known)}."
    raise CheckpointError(
        f"There is no checkpoint folder and no shipped model {str(name_or_folder)!r}.",
        hint if hint.startswith("Did") else f"Shipped: {', '.join(known)}.",
    )
