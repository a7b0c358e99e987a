"""The stages of curation: pure functions of one source row. Each declares what it reads, what it adds, and its parameters.

    probe → episode → watch → plan → encode

A row begins with `source_id`, `uri`, `path` (a local file), `staging` (an empty folder for the samples), `episode_path`
and `caption` (both may be empty). Rows carry small values, never frames. A stage raises MediaError or SourceError to
send its source to quarantine; `executor.run_stages` makes that a value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.config import stable_hash
from worldfoundry.core.contracts import Stage
from worldfoundry.core.errors import DataError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.discover import is_image
from worldfoundry.curation.lowres import decode_lowres
from worldfoundry.curation.plan import plan_clips
from worldfoundry.curation.probe import probe_source
from worldfoundry.curation.rows import Row
from worldfoundry.curation.samples import write_image_sample, write_samples
from worldfoundry.curation.shots import find_transitions, luma_change
from worldfoundry.curation.sidecars import check_episode, read_episode


@dataclass(frozen=True, kw_only=True)
class FunctionStage:
    """A `Stage` made of a function from a row to the columns that it adds."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[[Mapping[str, Any]], Row]
    parameters: Mapping[str, Any]
    version: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def params_hash(self) -> str:
        return stable_hash([self.name, self.version, dict(self.parameters)])

    def __call__(self, row: Mapping[str, Any]) -> list[Row]:
        missing = [name for name in self.inputs if name not in row]
        if missing:
            raise DataError(f"The stage {self.name!r} needs the columns {missing!r}, which the row lacks.")
        return [{**row, **self.function(row)}]


def check_stage(stage: Stage, row: Mapping[str, Any]) -> list[Row]:
    """Contract check for any stage: run it on `row` and return its rows. Raises DataError for a broken promise.

    It must add exactly its declared outputs, leave the given row as it was, and hash its parameters stably.
    """
    before = dict(row)
    results = stage(row)
    if row.keys() != before.keys() or any(row[name] is not before[name] for name in before):
        raise DataError(f"The stage {stage.name!r} changed the row that it was given.")
    for result in results:
        added = set(result) - set(before)
        if not set(stage.outputs) <= set(result) or not added <= set(stage.outputs):
            raise DataError(f"The stage {stage.name!r} declares {sorted(stage.outputs)} and added {sorted(added)}.")
    if stage.params_hash() != stage.params_hash() or not stage.params_hash():
        raise DataError(f"The stage {stage.name!r} has no stable parameter hash.")
    return results


def default_stages(config: CurateConfig) -> tuple[FunctionStage, ...]:
    """The chain that `worldfoundry curate` runs on every source."""
    shots = config.shots.to_dict()
    spans = {name: getattr(config, name) for name in ("min_s", "max_s", "trim_frames", "min_motion")}
    coding = {name: getattr(config, name) for name in ("crf", "gop", "copy_gop")}

    def stage(name: str, inputs: str, outputs: str, function: Any, parameters: Mapping[str, Any]) -> FunctionStage:
        columns = tuple(inputs.split()), tuple(outputs.split())
        return FunctionStage(name=name, inputs=columns[0], outputs=columns[1], function=function, parameters=parameters)

    return (
        stage("probe", "path uri", "info", _probe, {}),
        stage("episode", "episode_path", "episode", _episode, {}),
        stage("watch", "path info episode", "frames transitions motion_T", lambda row: _watch(row, config), {"shots": shots}),
        stage("plan", "source_id frames transitions motion_T", "plans", lambda row: _plan(row, config), spans),
        stage(
            "encode",
            "path info frames plans episode caption staging",
            "clips rejected",
            lambda row: _encode(row, config),
            coding,
        ),
    )


def _probe(row: Mapping[str, Any]) -> Row:
    return {"info": probe_source(Path(row["path"]), row["uri"])}


def _episode(row: Mapping[str, Any]) -> Row:
    return {"episode": read_episode(Path(row["episode_path"])) if row["episode_path"] else None}


def _watch(row: Mapping[str, Any], config: CurateConfig) -> Row:
    """The low-resolution pass and everything that looks at it. An image has no frames to watch."""
    if is_image(row["uri"]):
        return {"frames": None, "transitions": [], "motion_T": np.zeros(1, np.float32)}
    frames, rgb_THWC = decode_lowres(row["path"])
    if row["episode"] is not None:
        times_s_T = np.array([frames.seconds(int(pts) - int(frames.pts_T[0]) + frames.zero_pts) for pts in frames.pts_T])
        check_episode(row["episode"], times_s_T, frames.fps)
    return {
        "frames": frames,
        "transitions": find_transitions(rgb_THWC, frames.fps, config.shots),
        "motion_T": luma_change(rgb_THWC),
    }


def _plan(row: Mapping[str, Any], config: CurateConfig) -> Row:
    if row["frames"] is None:
        return {"plans": []}
    return {"plans": plan_clips(row["source_id"], row["frames"], row["transitions"], row["motion_T"], config)}


def _encode(row: Mapping[str, Any], config: CurateConfig) -> Row:
    if row["frames"] is None:
        return {"clips": [write_image_sample(row, config)], "rejected": []}
    clips, rejected = write_samples(row, config)
    return {"clips": clips, "rejected": rejected}
