"""The published layout as values: what `meta/info.json` holds, what a feature is, what the files are called.

A v3.0 folder holds

    meta/info.json                               features, frame rate, totals, path templates
    meta/stats.json                              per feature: min, max, mean, std, count, quantiles
    meta/tasks.parquet                           task (the pandas index) → task_index
    meta/episodes/chunk-000/file-000.parquet     one row per episode: length, tasks, where its data and videos lie, its stats
    data/chunk-000/file-000.parquet              one row per frame, several episodes per file
    videos/CAMERA/chunk-000/file-000.mp4         several episodes per file, found by from_timestamp and to_timestamp

Checked against lerobot 0.4.4 (Apache-2.0), `lerobot/datasets/{utils,lerobot_dataset,compute_stats,video_utils}.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.core.files import read_json

VERSION = "v3.0"
READABLE_VERSIONS = ("v2.0", "v2.1", "v3.0")

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
UNFINISHED = "unfinished"  # ours: whole episodes that wait for finalize()

NUMBER_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
)
CAMERA_DTYPES = ("video", "image")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column or camera, as in `features` of info.json.

    `dtype` is a NumPy name, "string", "video" or "image" (images inside the data files: read, not written). `shape` is that
    of one frame; a feature of shape (1,) is stored and handed out as scalars. `names` labels the dimensions: a list, a
    mapping of lists, or None. `info` describes the video stream of a camera.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_camera(self) -> bool:
        return self.dtype in CAMERA_DTYPES

    @property
    def is_column(self) -> bool:
        """Whether it is read as a column; false for cameras and for dtypes of later formats, which are left alone."""
        return self.is_number or self.dtype == "string"

    @property
    def is_number(self) -> bool:
        return self.dtype in NUMBER_DTYPES

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one frame in memory: () for scalars."""
        return () if self.shape == (1,) else self.shape

    def dimension_names(self, key: str) -> tuple[str, ...]:
        """A readable name per number of a frame: `action.gripper`, or `action[6]` where the feature has no names."""
        size = 1
        for length in self.shape:
            size *= length
        names = self.names
        if isinstance(names, Mapping):
            names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
        if isinstance(names, list | tuple) and len(names) == size and len(self.shape) == 1:
            return tuple(f"{key}.{name}" for name in names) if size > 1 else (key,)
        return tuple(f"{key}[{i}]" for i in range(size)) if size > 1 else (key,)

    def to_json(self) -> dict[str, Any]:
        names = list(self.names) if isinstance(self.names, tuple) else self.names
        entry = {"dtype": self.dtype, "shape": list(self.shape), "names": names}
        return {**entry, "info": dict(self.info)} if self.info else entry

    @classmethod
    def from_json(cls, key: str, entry: Any, where: Path) -> "Feature":
        """Read an entry of `features`; v2 files may say `video_info` for `info`. Raises DataError."""
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"The feature {key!r} in {str(where)!r} lacks a dtype or a shape: {entry!r}.") from error
        info = entry.get("info") or entry.get("video_info") or {}
        return cls(dtype=dtype, shape=shape, names=entry.get("names"), info=info)


# Written by every recorder of the format, last in `features`; they are made from the episode, never given by the user.
INDEX_FEATURES = {
    "timestamp": Feature(dtype="float32", shape=(1,)),
    "frame_index": Feature(dtype="int64", shape=(1,)),
    "episode_index": Feature(dtype="int64", shape=(1,)),
    "index": Feature(dtype="int64", shape=(1,)),
    "task_index": Feature(dtype="int64", shape=(1,)),
}


def camera_key(name: str) -> str:
    """`front` → `observation.images.front`; a name that already begins with `observation.` stays."""
    return name if name.startswith("observation.") else f"observation.images.{name}"


def camera_feature(height: int, width: int, fps: float) -> Feature:
    """The entry of a camera that this package writes (H.264, yuv420p, no audio)."""
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": whole(fps),
        "video.channels": 3,
        "has_audio": False,
    }
    return Feature(dtype="video", shape=(height, width, 3), names=["height", "width", "channels"], info=info)


def whole(fps: float) -> int | float:
    """The frame rate as the format writes it: an integer where it is one."""
    return int(fps) if float(fps).is_integer() else float(fps)


@dataclass(frozen=True, kw_only=True)
class Info:
    """`meta/info.json`, checked. `raw` is the whole file."""

    version: str
    fps: float
    robot_type: str | None
    features: Mapping[str, Feature]
    num_episodes: int
    num_frames: int
    chunks_size: int
    data_path: str
    video_path: str
    raw: Mapping[str, Any]


def read_info(folder: Path) -> Info:
    """Raises DataError when `folder` is no LeRobot dataset, is unfinished, or is of a version that this does not read."""
    path = folder / INFO
    if not path.is_file():
        raise _no_dataset(folder)
    try:
        raw = read_json(path)
    except UsageError as error:
        raise DataError(error.message, "Copy or download the dataset again.") from error
    version = raw.get("codebase_version") if isinstance(raw, dict) else None
    if version not in READABLE_VERSIONS:
        raise DataError(
            f"{str(path)!r} has codebase_version {version!r}; this reads {', '.join(READABLE_VERSIONS)}.",
            "Convert the dataset with the `lerobot` library first.",
        )
    try:
        return Info(
            version=version,
            fps=float(raw["fps"]),
            robot_type=raw.get("robot_type"),
            features={key: Feature.from_json(key, entry, path) for key, entry in raw["features"].items()},
            num_episodes=int(raw["total_episodes"]),
            num_frames=int(raw["total_frames"]),
            chunks_size=int(raw.get("chunks_size") or 1000),
            data_path=str(raw["data_path"]),
            video_path=str(raw.get("video_path") or ""),
            raw=raw,
        )
    except KeyError as error:
        raise DataError(f"{str(path)!r} lacks {error.args[0]!r}.", "Copy or download the dataset again.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{str(path)!r} is malformed: {error}.", "Copy or download the dataset again.") from error


def _no_dataset(folder: Path) -> DataError:
    if not folder.is_dir():
        return DataError(f"The dataset folder {str(folder)!r} does not exist.")
    waiting = len(list((folder / UNFINISHED).glob("episode_*")))
    if waiting:
        return DataError(
            f"{str(folder)!r} holds {waiting} whole episodes but was never finalised.",
            f"Run LeRobotWriter.resume({str(folder)!r}).finalize(), or the command that wrote it once more.",
        )
    return DataError(f"{str(folder)!r} is not a LeRobot dataset: it has no {INFO}.", "Give the folder that holds `meta/`.")
