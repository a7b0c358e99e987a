"""Simulated episodes as a LeRobot v3.0 dataset: `--out` itself is the dataset, with our dataset.json beside its `meta`.

Whole episodes wait in OUT/unfinished and are packed when all are there, so any number of processes may write, and an
interrupted run goes on. Until then the folder is not readable as a dataset, and says so.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot.layout import INFO, UNFINISHED, Feature, read_info
from worldfoundry.data.lerobot.staging import stored_schema, waiting_place
from worldfoundry.data.lerobot.writer import LeRobotWriter

GOP = 12


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One episode: columns [T, *shape] by feature, uint8 [T, H, W, 3] by camera, what the robot was told, who drew it."""

    columns: Mapping[str, np.ndarray]
    videos: Mapping[str, np.ndarray]
    task: str
    renderer: str


@dataclass(frozen=True, kw_only=True)
class RecordingSchema:
    """What every recording of a dataset has. `cameras`: (height, width) by name."""

    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    cameras: Mapping[str, tuple[int, int]]


def vector(names: tuple[str, ...]) -> Feature:
    """A float32 feature with a name for each of its numbers."""
    return Feature(dtype="float32", shape=(len(names),), names=list(names))


FLAG = Feature(dtype="bool", shape=(1,))


@contextmanager
def open_dataset(out: Path, schema: RecordingSchema, crf: int) -> Iterator[LeRobotWriter]:
    """A writer for `out`, which may already hold episodes of the same options. Not finalised on leaving: see `finish`."""
    if stored_schema(out) is None:
        _begin(out, schema, crf)
    yield LeRobotWriter.resume(out, crf=crf, gop=GOP)


def _begin(out: Path, schema: RecordingSchema, crf: int) -> None:
    """Begin the dataset elsewhere and move it in, because `out` holds our dataset.json; of several processes, one wins."""
    with tempfile.TemporaryDirectory(prefix=".begin-", dir=out) as temporary:
        begun = Path(temporary) / "dataset"
        LeRobotWriter(begun, schema.fps, schema.robot_type, features=schema.features, cameras=schema.cameras, crf=crf, gop=GOP)
        try:
            os.rename(begun / UNFINISHED, out / UNFINISHED)
        except OSError:
            if stored_schema(out) is None:  # it was not another process that came first
                raise


def is_whole(out: Path, index: int) -> bool:
    """Whether episode `index` is safely on disk, waiting or packed."""
    if waiting_place(out, index).exists():
        return True
    return (out / INFO).is_file() and index < read_info(out).num_episodes


def finish(out: Path, crf: int) -> None:
    """Pack all waiting episodes: `out` is then a LeRobot dataset. Raises DataError if one is missing."""
    LeRobotWriter.resume(out, crf=crf, gop=GOP).finalize()


def writing(writer: LeRobotWriter, record: Callable[[int], Recording]) -> Callable[[int], str]:
    """`write(index)` as a kind of world offers it: record an episode, add it, say who drew it."""

    def write(index: int) -> str:
        recording = record(index)
        writer.add_episode(recording.columns, recording.videos, recording.task, episode_index=index)
        return recording.renderer

    return write


def count_frames(out: Path) -> int:
    """Frames in the finished dataset, times cameras. Raises DataError before `finish`."""
    info = read_info(out)
    cameras = sum(feature.is_camera for feature in info.features.values())
    if not cameras:
        raise DataError(f"{str(out)!r} has no cameras.")
    return info.num_frames * cameras
