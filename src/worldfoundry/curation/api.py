"""Curation from Python in three lines: `wf.curate("videos", "clips", min_motion=2.0)`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import CurateSummary
from worldfoundry.curation.pipeline import curate as run
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.curation.store import Store


def curate(input: str | Path, out: str | Path, *, stages: Sequence[FunctionStage | str] = (), **options: Any) -> CurateSummary:
    """Turn raw videos into a clip dataset at `out`; the same call again resumes.

    `stages` are stages of your own, as objects or by name (`file.py:name`); `options` are the fields of `CurateConfig`, the
    flags of `worldfoundry curate`. Raises ConfigError for an unknown option, else as `pipeline.curate`.
    """
    named = tuple(stage for stage in stages if isinstance(stage, str))
    values = {"input": str(input), "out": Path(out), "stages": named, **options}
    return run(CurateConfig.from_dict(values, where="curate"), stages=[s for s in stages if not isinstance(s, str)])


def saved_config(out: Path) -> CurateConfig:
    """The parameters of the last run on a dataset. Raises UsageError if there was none, or by another version."""
    Store(out).load_sources()
    return CurateConfig.from_yaml(out / "config.yaml").replace(out=out, overwrite=False)
