"""`worldfoundry curate INPUT --out DIR`: raw videos to a clip dataset; `curate select|retry|diff|export` on what it made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field
from tyro.conf import Positional

from worldfoundry.core.config import Config
from worldfoundry.core.progress import clock
from worldfoundry.curation.config import CurateConfig

if TYPE_CHECKING:
    from worldfoundry.curation.pipeline import CurateSummary


class CliConfig(CurateConfig):
    """Turn raw videos into a clip dataset: shots, clips, shards, tables and a report. The same command again resumes.

    On what it made: `curate select DIR` (other thresholds), `curate retry DIR` (files in quarantine), `curate diff A B`,
    `curate export DIR --to FOLDER`. A folder of one of these names is given as ./select.
    """

    input: Positional[str]
    """A folder, a file, a glob in quotes, a .txt list of files, or the same as an fsspec URL (s3://, gs://, https://)."""


class SelectConfig(Config):
    """Apply other thresholds to the stored scores: nothing is decoded or encoded. What is not given stays as it was."""

    dir: Annotated[Path, Positional, tyro.conf.arg(metavar="DIR")]
    """The clip dataset."""
    min_s: float | None = Field(default=None, gt=0)
    """Shortest clip in seconds."""
    min_motion: float | None = Field(default=None, ge=0)
    """Reject clips whose luma changes by less than this many levels (of 255) per second."""
    where: tuple[str, ...] | None = None
    """Conditions on any score, tag or size: 'blur<=0.3' 'camera!=shake'; without one after it, --where clears them."""


class RetryConfig(Config):
    """Try files in quarantine (and clips that failed) again, with the parameters of the last run."""

    dir: Annotated[Path, Positional, tyro.conf.arg(metavar="DIR")]
    """The clip dataset."""
    code: tuple[str, ...]
    """Reason codes to try again, such as DECODER_TIMEOUT OUT_OF_MEMORY."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that a stage may take on one source or clip, before the allowance for its length."""
    memory_mb: float | None = Field(default=None, gt=0)
    """Memory that a decoding process may take, in megabytes."""
    executor: Literal["process", "pool", "ray"] | None = None
    """Where stages run; by default where they ran before."""


class DiffConfig(Config):
    """Show which clips a dataset gained, lost and changed against another, and why."""

    a: Annotated[Path, Positional, tyro.conf.arg(metavar="A")]
    """The clip dataset before."""
    b: Annotated[Path, Positional, tyro.conf.arg(metavar="B")]
    """The clip dataset after."""


class ExportConfig(Config):
    """Write the clips as plain files (mp4, json, txt, npy) into folders by bucket, with one list of all."""

    dir: Annotated[Path, Positional, tyro.conf.arg(metavar="DIR")]
    """The clip dataset."""
    to: Path
    """A new or empty folder."""


CONFIG = CliConfig


def run(config: CurateConfig) -> int:
    """Curate, print what came of it, return 0 even if files were quarantined."""
    from worldfoundry.curation.pipeline import curate

    return _print(curate(config))


def run_select(config: SelectConfig) -> int:
    from worldfoundry.curation.api import saved_config
    from worldfoundry.curation.collect import NOT_ENCODED
    from worldfoundry.curation.pipeline import reselect

    changes = {name: value for name in ("min_s", "min_motion", "where") if (value := getattr(config, name)) is not None}
    asked = saved_config(config.dir).replace(**changes)
    summary = reselect(asked)
    _print(summary)
    if missing := summary.rejected.get(NOT_ENCODED):
        print(f"\n{_count(missing, 'clip')} would be kept but {'was' if missing == 1 else 'were'} never encoded. To go on:")
        print(f"  worldfoundry curate --config {config.dir / 'config.yaml'}")
    return 0


def run_retry(config: RetryConfig) -> int:
    from worldfoundry.curation.api import saved_config
    from worldfoundry.curation.pipeline import curate

    changes = {n: value for n in ("timeout_s", "memory_mb", "executor") if (value := getattr(config, n)) is not None}
    return _print(curate(saved_config(config.dir).replace(**changes), retry=frozenset(config.code)))


def run_diff(config: DiffConfig) -> int:
    from worldfoundry.curation.compare import compare, lines

    print("\n".join(lines(compare(config.a, config.b))))
    return 0


def run_export(config: ExportConfig) -> int:
    from worldfoundry.curation.export import export

    print(f"{_count(export(config.dir, config.to), 'clip')} in {config.to}")
    return 0


# Words after `curate` that are no INPUT.
SUBCOMMANDS = {
    "select": (SelectConfig, run_select, "apply other thresholds to the stored scores"),
    "retry": (RetryConfig, run_retry, "try files in quarantine again"),
    "diff": (DiffConfig, run_diff, "clips gained, lost and changed between two datasets"),
    "export": (ExportConfig, run_export, "write the clips into plain folders"),
}


def _print(summary: "CurateSummary") -> int:
    partial = f" ({summary.partial} partly damaged)" if summary.partial else ""
    images = f", {_count(summary.images, 'image')} among them" if summary.images else ""
    print(f"files        {summary.files}: {summary.sources} with clips{partial}, {_count(summary.duplicates, 'duplicate')}")
    print(f"clips kept   {summary.clips}{images}, {clock(summary.video_s)} of video")
    print(f"rejected     {_counts(summary.rejected, 'clip')}")
    print(f"quarantined  {_counts(summary.quarantined, 'file')}")
    print(f"content      {summary.content_hash}")
    print(f"report       {summary.report}")
    return 0


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _counts(counts: dict[str, int], unit: str) -> str:
    """`3 files: 2 NOT_MEDIA, 1 TOO_SHORT`."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in counts.items())
    return _count(sum(counts.values()), unit) + (f": {reasons}" if reasons else "")
