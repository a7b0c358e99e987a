"""`worldfoundry curate INPUT --out DIR`: raw videos to a clip dataset."""

from tyro.conf import Positional

from worldfoundry.core.progress import clock
from worldfoundry.curation.config import CurateConfig


class CliConfig(CurateConfig):
    """Turn raw videos into a clip dataset: shots, clips, shards, tables and a report. The same command again resumes."""

    input: Positional[str]
    """A folder, a file, a glob in quotes, a .txt list of files, or the same as an fsspec URL (s3://, gs://, https://)."""


CONFIG = CliConfig


def run(config: CurateConfig) -> int:
    """Curate, print what came of it, return 0 even if files were quarantined."""
    from worldfoundry.curation.pipeline import curate

    summary = curate(config)
    partial = f" ({summary.partial} partly damaged)" if summary.partial else ""
    images = f", {_count(summary.images, 'image')} among them" if summary.images else ""
    print(f"files        {summary.files}: {summary.sources} with clips{partial}, {_count(summary.duplicates, 'duplicate')}")
    print(f"clips kept   {summary.clips}{images}, {clock(summary.video_s)} of video")
    print(f"rejected     {_counts(summary.rejected, 'clip')}")
    print(f"quarantined  {_counts(summary.quarantined, 'file')}")
    print(f"report       {summary.report}")
    return 0


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _counts(counts: dict[str, int], unit: str) -> str:
    """`3 files: 2 NOT_MEDIA, 1 TOO_SHORT`."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in counts.items())
    return _count(sum(counts.values()), unit) + (f": {reasons}" if reasons else "")
