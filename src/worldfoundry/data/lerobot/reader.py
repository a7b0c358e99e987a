"""Reading a LeRobot dataset: episodes and windows of frames, by index.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from worldfoundry.core.errors import DataError, did_you_mean
from worldfoundry.core.files import read_json
from worldfoundry.data.lerobot.columns import to_numpy
from worldfoundry.data.lerobot.frames import TOLERANCE, check_span, decode_images, read_span
from worldfoundry.data.lerobot.index import EpisodeEntry, read_entries, read_tasks
from worldfoundry.data.lerobot.layout import INDEX_FEATURES, STATS, VERSION, Feature, read_info
from worldfoundry.data.lerobot.rows import RowCache
from worldfoundry.data.lerobot.stats import FeatureStats, stats_of_files
from worldfoundry.data.lerobot.v21 import EPISODES_STATS, read_entries_v21, read_episodes_stats, read_tasks_v21


@dataclass(frozen=True, kw_only=True)
class Episode:
    """An episode or a stretch of one.

    `columns`: every number and string feature, [T, *shape], scalars [T], in the dtype of the dataset. `videos`: uint8
    [T, H, W, 3] by camera key. `timestamps`: float64 seconds since the episode's first frame, k / fps exactly. `start`: the
    first frame within the episode. `task`: what the robot was told at that frame.
    """

    episode_index: int
    start: int
    columns: Mapping[str, np.ndarray]
    videos: Mapping[str, np.ndarray]
    task: str
    timestamps: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamps)


class LeRobotDataset:
    """A folder in the LeRobot format, v3.0, v2.1 or v2.0, all read alike.

    Opening reads the metadata; rows and frames are read when asked for. Rows that were read stay in memory up to
    `cache_bytes`. Instances can be sent to other processes.
    """

    def __init__(self, folder: str | Path, *, cache_bytes: int = 1 << 30) -> None:
        """Raises DataError when `folder` is no LeRobot dataset, is unfinished, of an unknown version or incomplete."""
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        v3 = self.info.version == VERSION
        self.entries: list[EpisodeEntry] = (read_entries if v3 else read_entries_v21)(self.folder, self.info)
        self.tasks: dict[int, str] = (read_tasks if v3 else read_tasks_v21)(self.folder)
        self.lengths = np.array([entry.length for entry in self.entries], np.int64)
        self.starts = np.array([entry.start for entry in self.entries], np.int64)
        if self.lengths.sum() != self.info.num_frames:
            raise DataError(
                f"info.json of {str(folder)!r} promises {self.info.num_frames} frames, its episodes have {self.lengths.sum()}.",
                "Copy or download the whole dataset again.",
            )
        self._rows = RowCache(cache_bytes)

    @property
    def version(self) -> str:
        return self.info.version

    @property
    def fps(self) -> float:
        return self.info.fps

    @property
    def robot_type(self) -> str | None:
        return self.info.robot_type

    @property
    def features(self) -> Mapping[str, Feature]:
        """Columns and cameras, the index columns among them."""
        return self.info.features

    @property
    def camera_keys(self) -> tuple[str, ...]:
        return tuple(key for key, feature in self.features.items() if feature.is_camera)

    @property
    def num_episodes(self) -> int:
        return self.info.num_episodes

    @property
    def num_frames(self) -> int:
        return self.info.num_frames

    @cached_property
    def stats(self) -> dict[str, FeatureStats]:
        """As the dataset's metadata gives them. Raises DataError where it gives none: `compute_stats` then does."""
        names = {key: feature.dimension_names(key) for key, feature in self.features.items() if feature.is_number}
        path = self.folder / STATS
        if path.is_file():
            return {key: FeatureStats.from_json(key, entry, names.get(key, ()), path) for key, entry in read_json(path).items()}
        if (self.folder / EPISODES_STATS).is_file():
            return read_episodes_stats(self.folder, names)
        raise DataError(f"{str(self.folder)!r} holds no statistics.", "Compute them from the data: compute_stats().")

    def compute_stats(self) -> dict[str, FeatureStats]:
        """Exact statistics of all number columns, from the data files (every episode's rows are read once)."""
        files = list(dict.fromkeys(entry.data for entry in self.entries))
        return stats_of_files(files, self.features)

    def episode(self, index: int, cameras: Iterable[str] | None = None) -> Episode:
        """A whole episode. `cameras` as in `window`. Raises DataError."""
        entry = self._entry(index)
        return self._read(entry, 0, entry.length, cameras)

    def window(self, index: int | tuple[int, int], num_frames: int, cameras: Iterable[str] | None = None) -> Episode:
        """`num_frames` frames of one episode, from a frame counted over the dataset or an (episode, frame) pair.

        `cameras`: keys or short names (`front` for `observation.images.front`); None for all, () for none. Raises DataError
        for an index out of range, an episode that ends too early, and whatever the files lack.
        """
        episode, start = index if isinstance(index, tuple) else self.locate(index)
        entry = self._entry(episode)
        if num_frames < 1 or start < 0 or start + num_frames > entry.length:
            raise DataError(
                f"Episode {episode} has {entry.length} frames: no window of {num_frames} begins at its frame {start}.",
                f"Take an index from window_starts({num_frames}).",
            )
        return self._read(entry, start, num_frames, cameras)

    def window_starts(self, num_frames: int, stride: int = 1) -> np.ndarray:
        """int64 indices, counted over the dataset, of all windows that stay within their episode, every `stride` frames.

        Raises DataError when no episode is that long.
        """
        if num_frames < 1 or stride < 1:
            raise DataError(f"A window needs at least one frame and a stride of one, not {num_frames} and {stride}.")
        self.require(num_frames=num_frames)
        spans = zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        parts = [np.arange(start, start + length - num_frames + 1, stride) for start, length in spans if length >= num_frames]
        return np.concatenate(parts)

    def locate(self, index: int) -> tuple[int, int]:
        """(episode, frame within it) of a frame counted over the dataset. Raises DataError when out of range."""
        if not 0 <= index < self.num_frames:
            raise DataError(f"Frame {index} is out of range: {str(self.folder)!r} has {self.num_frames} frames.")
        episode = int(np.searchsorted(self.starts, index, side="right")) - 1
        return episode, int(index - self.starts[episode])

    def require(
        self,
        *,
        columns: Iterable[str] = (),
        cameras: Iterable[str] = (),
        fps: float | None = None,
        num_frames: int | None = None,
    ) -> None:
        """Raise DataError unless the dataset has these columns and cameras, this rate, and an episode of `num_frames`."""
        for key in columns:
            if key not in self.features or not self.features[key].is_column:
                known = [name for name, feature in self.features.items() if feature.is_column]
                what = f" (it is of dtype {self.features[key].dtype!r})" if key in self.features else ""
                raise DataError(f"{str(self.folder)!r} has no column {key!r}{what}.", did_you_mean(key, known))
        self.resolve_cameras(cameras)
        if fps is not None and abs(fps - self.fps) > 1e-3:
            raise DataError(f"{str(self.folder)!r} has {self.fps:g} frames per second, not {fps:g}.", f"Use fps={self.fps:g}.")
        longest = int(self.lengths.max(initial=0))
        if num_frames is not None and longest < num_frames:
            raise DataError(
                f"No episode of {str(self.folder)!r} has {num_frames} frames; the longest has {longest}.",
                f"Use windows of at most {longest} frames.",
            )

    def _entry(self, index: int) -> EpisodeEntry:
        if not 0 <= index < self.num_episodes:
            raise DataError(f"Episode {index} is out of range: {str(self.folder)!r} has {self.num_episodes} episodes.")
        return self.entries[index]

    def resolve_cameras(self, cameras: Iterable[str] | None) -> list[str]:
        """Keys of the cameras asked for, by key or short name."""
        if isinstance(cameras, str):
            cameras = (cameras,)
        keys = []
        for name in self.camera_keys if cameras is None else cameras:
            matches = [key for key in self.camera_keys if key == name or key.rpartition(".")[2] == name]
            if not matches:
                known = [key.rpartition(".")[2] if "." not in name else key for key in self.camera_keys]
                hint = did_you_mean(name, known) if known else "It has no cameras at all."
                raise DataError(f"{str(self.folder)!r} has no camera {name!r}.", hint)
            keys.append(name if name in matches else matches[0])
        return keys

    def _read(self, entry: EpisodeEntry, start: int, count: int, cameras: Iterable[str] | None) -> Episode:
        keys = self.resolve_cameras(cameras)
        who = f"episode {entry.index} of {str(self.folder)!r}"
        rows = self._rows.read(entry.data, entry.row + start, count, who)
        columns = {
            key: to_numpy(_column(rows, key, entry), key, feature, who)
            for key, feature in self.features.items()
            if feature.is_column
        }
        self._check_rows(entry, start, columns, who)
        videos = {key: self._frames(entry, key, start, count) for key in keys}
        task = self.tasks.get(int(columns["task_index"][0])) if "task_index" in columns else None
        return Episode(
            episode_index=entry.index,
            start=start,
            columns=columns,
            videos=videos,
            task=task if task is not None else next(iter(entry.tasks), ""),
            timestamps=(start + np.arange(count)) / self.fps,
        )

    def _check_rows(self, entry: EpisodeEntry, start: int, columns: Mapping[str, np.ndarray], who: str) -> None:
        """The rows must be those of this stretch, and evenly spaced at the rate that info.json gives."""
        lacking = [key for key in ("episode_index", "frame_index", "timestamp") if key not in columns]
        if lacking:
            raise DataError(f"info.json of {str(self.folder)!r} lists no feature {lacking[0]!r}.", "Convert the dataset again.")
        frames = start + np.arange(len(columns["frame_index"]))
        if (columns["episode_index"] != entry.index).any() or (columns["frame_index"] != frames).any():
            raise DataError(f"The rows of {who} are not where the index says.", "Copy or download the whole dataset again.")
        late = np.abs(columns["timestamp"] - frames / self.fps)
        if late.max() * self.fps > TOLERANCE:
            step = float(np.median(np.diff(columns["timestamp"]))) if len(frames) > 1 else 0.0
            measured = f" (they look like {1 / step:.4g} fps)" if step > 0 else ""
            raise DataError(
                f"The timestamps of {who} do not fit its {self.fps:g} frames per second{measured}.",
                "Correct `fps` in meta/info.json, or record the episode again.",
            )

    def _frames(self, entry: EpisodeEntry, key: str, start: int, count: int) -> np.ndarray:
        who = f"camera {key!r}, episode {entry.index} of {str(self.folder)!r}"
        feature = self.features[key]
        if feature.info.get("video.is_depth_map") or feature.info.get("is_depth_map"):
            raise DataError(f"{key!r} is a depth map, which this does not read.", "Leave this camera out.")
        if feature.dtype == "image":
            rows = self._rows.read(entry.data, entry.row + start, count, who, only=key)
            return decode_images(_column(rows, key, entry), who)
        span = entry.videos.get(key)
        if span is None:
            raise DataError(f"meta/episodes does not say where the video of {who} lies.", "Leave this camera out.")
        check_span(span, entry.length, self.fps, who)
        return read_span(span, start, count, self.fps, who)


def _column(rows: pa.Table, key: str, entry: EpisodeEntry) -> pa.ChunkedArray:
    if key not in rows.column_names:
        kind = "index column" if key in INDEX_FEATURES else "column"
        raise DataError(
            f"{str(entry.data)!r} lacks the {kind} {key!r} that info.json lists; it has {', '.join(rows.column_names)}.",
            "Remove the feature from info.json, or convert the dataset again.",
        )
    return rows[key]
