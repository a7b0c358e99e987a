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
    images = f", {summary.images} of them images" if summary.images else ""
    print(f"files        {summary.files}: {summary.sources} with clips{partial}, {summary.duplicates} duplicates")
    print(f"clips kept   {summary.clips}{images}, {clock(summary.video_s)} of video")
    print(f"rejected     {_counts(summary.rejected, 'clip')}")
    print(f"quarantined  {_counts(summary.quarantined, 'file')}")
    print(f"report       {summary.report}")
    return 0


def _counts(counts: dict[str, int], unit: str) -> str:
    """`3 files: 2 NOT_MEDIA, 1 TOO_SHORT`."""
    total = sum(counts.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f"{total} {unit}{'' if total == 1 else 's'}" + (f": {reasons}" if reasons else "")
