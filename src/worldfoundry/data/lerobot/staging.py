"""Whole episodes that wait in DATASET/unfinished/ until `finalize` packs them: what a killed writer leaves behind.

    unfinished/schema.json                       what every episode must look like
    unfinished/episode_000012/data.parquet       the user's columns, one row per frame
    unfinished/episode_000012/episode.json       length, task, statistics
    unfinished/episode_000012/CAMERA.mp4

An episode folder appears at once (renamed into place) or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_folder, read_json, write_json
from worldfoundry.core.video_io import write_video
from worldfoundry.data.lerobot.columns import to_arrow
from worldfoundry.data.lerobot.layout import INDEX_FEATURES, INFO, UNFINISHED, VERSION, Feature, read_info, whole
from worldfoundry.data.lerobot.stats import FeatureStats, column_stats, frames_stats


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What all episodes of a dataset share. Sizes are megabytes (2^20 bytes) of one file, `chunks_size` files per folder."""

    fps: float
    robot_type: str | None
    features: Mapping[str, Feature]
    chunks_size: int
    data_files_size_in_mb: int
    video_files_size_in_mb: int

    @property
    def columns(self) -> dict[str, Feature]:
        return {key: feature for key, feature in self.features.items() if feature.is_column}

    @property
    def cameras(self) -> dict[str, Feature]:
        return {key: feature for key, feature in self.features.items() if feature.is_camera}

    def to_json(self) -> dict[str, Any]:
        """In the words of info.json; `features` with the index features at the end."""
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot_type,
            "chunks_size": self.chunks_size,
            "data_files_size_in_mb": self.data_files_size_in_mb,
            "video_files_size_in_mb": self.video_files_size_in_mb,
            "fps": whole(self.fps),
            "features": {key: feature.to_json() for key, feature in {**self.features, **INDEX_FEATURES}.items()},
        }


def stored_schema(folder: Path) -> Schema | None:
    """The schema of an unfinished or finished dataset; None where there is neither. Raises DataError for one of v2."""
    waiting = folder / UNFINISHED / "schema.json"
    if waiting.is_file():
        raw, where = read_json(waiting), waiting
    elif (folder / INFO).is_file():
        raw, where = dict(read_info(folder).raw), folder / INFO
    else:
        return None
    if raw["codebase_version"] != VERSION:
        raise DataError(f"{str(folder)!r} is a {raw['codebase_version']} dataset; only {VERSION} can be added to.")
    return Schema(
        fps=float(raw["fps"]),
        robot_type=raw.get("robot_type"),
        features={k: Feature.from_json(k, entry, where) for k, entry in raw["features"].items() if k not in INDEX_FEATURES},
        chunks_size=raw["chunks_size"],
        data_files_size_in_mb=raw["data_files_size_in_mb"],
        video_files_size_in_mb=raw["video_files_size_in_mb"],
    )


def begin(folder: Path, schema: Schema, resume: bool) -> None:
    """Make the folder, or accept one of the same schema if `resume`. Raises DataError for anything else that is there."""
    stored = stored_schema(folder)
    if stored is None:
        if folder.exists() and (not folder.is_dir() or any(path.name != UNFINISHED for path in folder.iterdir())):
            raise DataError(f"{str(folder)!r} exists and is no LeRobot dataset to add to.", "Choose another folder.")
        write_json(folder / UNFINISHED / "schema.json", schema.to_json())
        return
    if not resume:
        raise DataError(f"{str(folder)!r} already holds a dataset.", "Pass resume=True to add to it, or choose another folder.")
    before, now = stored.to_json(), schema.to_json()
    differing = [key for key in before if before[key] != now[key]]
    if differing:
        changes = "; ".join(_difference(key, before[key], now[key]) for key in differing)
        raise DataError(f"{str(folder)!r} holds a dataset of another schema: {changes}.", "Choose another folder.")


def _difference(key: str, before: Any, now: Any) -> str:
    if key != "features":
        return f"{key} is {before!r}, not {now!r}"
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    return "features differ in " + ", ".join(repr(name) for name in names)


@dataclass(frozen=True, kw_only=True)
class StagedEpisode:
    """One whole episode in the waiting folder."""

    folder: Path
    index: int

    @property
    def record(self) -> dict[str, Any]:
        return read_json(self.folder / "episode.json")

    @property
    def data(self) -> Path:
        return self.folder / "data.parquet"

    def video(self, camera: str) -> Path:
        return self.folder / f"{camera}.mp4"


def waiting_place(folder: Path, index: int) -> Path:
    """Where episode `index` waits; the folder exists if and only if the episode is whole."""
    return folder / UNFINISHED / f"episode_{index:06d}"


def waiting_episodes(folder: Path, first: int = 0) -> list[StagedEpisode]:
    """The whole episodes from index `first` on that wait to be packed, in order."""
    found = [
        StagedEpisode(folder=path, index=int(path.name.removeprefix("episode_")))
        for path in (folder / UNFINISHED).glob("episode_*")
    ]
    return sorted((episode for episode in found if episode.index >= first), key=lambda episode: episode.index)


def stage_episode(
    folder: Path,
    index: int,
    schema: Schema,
    columns: Mapping[str, np.ndarray],
    videos: Mapping[str, np.ndarray],
    task: str,
    *,
    crf: int,
    gop: int,
) -> None:
    """Write one checked episode, all or nothing. Raises ResourceError when the disk is full."""
    length = len(next(iter((*columns.values(), *videos.values()))))
    stats: dict[str, FeatureStats] = {key: frames_stats(video) for key, video in videos.items()}
    stats |= {key: column_stats(columns[key]) for key, feature in schema.columns.items() if feature.is_number}
    with atomic_folder(waiting_place(folder, index)) as temporary:
        arrays = {key: to_arrow(columns[key], feature) for key, feature in schema.columns.items()}
        pq.write_table(pa.table(arrays), temporary / "data.parquet")
        for key, frames in videos.items():
            write_video(temporary / f"{key}.mp4", frames, schema.fps, crf=crf, gop=gop)
        record = {"length": length, "task": task, "stats": {key: value.to_json() for key, value in stats.items()}}
        write_json(temporary / "episode.json", record)
