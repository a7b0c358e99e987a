"""Writing a LeRobot v3.0 dataset, episode by episode.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from worldfoundry.core.errors import DataError, did_you_mean
from worldfoundry.data.lerobot.columns import check_column
from worldfoundry.data.lerobot.layout import (
    INDEX_FEATURES,
    NUMBER_DTYPES,
    Feature,
    camera_feature,
    camera_key,
)
from worldfoundry.data.lerobot.pack import committed, pack
from worldfoundry.data.lerobot.staging import Schema, begin, stage_episode, stored_schema, waiting_episodes, waiting_place


class LeRobotWriter:
    """Collects whole episodes in `folder/unfinished/`; `finalize` packs them into the published layout.

    A process that dies loses at most the episode it was writing. Until `finalize` the folder is *resumable*, not readable:
    the same call with `resume=True`, or `LeRobotWriter.resume(folder)`, goes on with it, and also adds to a finalised dataset
    (new episodes then lie in new files). Several processes may add to one folder if each gives its own `episode_index`.
    As a context manager it finalises on a clean exit only. Packing needs the room of the waiting episodes a second time.
    """

    def __init__(
        self,
        folder: str | Path,
        fps: float,
        robot_type: str | None = None,
        *,
        features: Mapping[str, Feature],
        cameras: Mapping[str, tuple[int, int]] | None = None,
        resume: bool = False,
        crf: int = 18,
        gop: int = 12,
        chunks_size: int = 1000,
        data_files_size_in_mb: int = 100,
        video_files_size_in_mb: int = 200,
    ) -> None:
        """`features` are the columns (index columns are made here), `cameras` maps a name to (height, width) in pixels.

        A camera `front` gets the key `observation.images.front`. `crf` and `gop` are x264's quality and keyframe distance.
        Raises DataError for an existing folder (unless `resume` and the schema is the same) and for a feature that cannot be.
        """
        if not (np.isfinite(fps) and fps > 0):
            raise DataError(f"A dataset needs a positive frame rate, not {fps!r}.")
        camera_features = {camera_key(name): _camera(name, size, fps) for name, size in (cameras or {}).items()}
        _check_features(features, camera_features)
        self.folder = Path(folder)
        self.schema = Schema(
            fps=float(fps),
            robot_type=robot_type,
            features={**features, **camera_features},
            chunks_size=chunks_size,
            data_files_size_in_mb=data_files_size_in_mb,
            video_files_size_in_mb=video_files_size_in_mb,
        )
        self.crf, self.gop = crf, gop
        begin(self.folder, self.schema, resume)
        self._packed, self._next = committed(self.folder).num_episodes, 0

    @classmethod
    def resume(cls, folder: str | Path, *, crf: int = 18, gop: int = 12) -> Self:
        """Go on with a dataset, finalised or not, by the schema stored in it. Raises DataError where there is none."""
        schema = stored_schema(Path(folder))
        if schema is None:
            raise DataError(f"{str(folder)!r} holds no dataset to go on with.", "Make one with LeRobotWriter(folder, fps, …).")
        writer = cls.__new__(cls)
        writer.folder, writer.schema, writer.crf, writer.gop = Path(folder), schema, crf, gop
        writer._packed, writer._next = committed(writer.folder).num_episodes, 0
        return writer

    @property
    def done(self) -> frozenset[int]:
        """The indices of the episodes that are safely on disk, packed or waiting."""
        return frozenset(range(self._packed)) | {episode.index for episode in waiting_episodes(self.folder, self._packed)}

    def _has(self, index: int) -> bool:
        return index < self._packed or waiting_place(self.folder, index).exists()

    def _lowest_free(self) -> int:
        self._next = max(self._next, self._packed)
        while self._has(self._next):
            self._next += 1
        return self._next

    def add_episode(
        self,
        columns: Mapping[str, np.ndarray],
        videos: Mapping[str, np.ndarray] | None = None,
        task: str = "",
        *,
        episode_index: int | None = None,
    ) -> int:
        """Write one whole episode and return its index: `episode_index`, or the lowest that is free.

        `columns`: every feature, [T, *shape] in exactly its dtype (scalars [T]); `videos`: every camera by name or key, uint8
        [T, H, W, 3]; `task`: what the robot is told, in words. Raises DataError for anything missing, unknown, of another
        dtype, shape or length, not finite, or an index that is taken; ResourceError when the disk is full.
        """
        if not isinstance(task, str) or not task.strip():
            raise DataError(f"An episode needs a task in words, not {task!r}.")
        videos = {camera_key(name): np.asarray(video) for name, video in (videos or {}).items()}
        _check_names("column", list(columns), list(self.schema.columns))
        _check_names("camera", list(videos), list(self.schema.cameras))
        length = _length(columns, videos)
        checked = {key: check_column(key, feature, columns[key], length) for key, feature in self.schema.columns.items()}
        for key, feature in self.schema.cameras.items():
            if videos[key].dtype != np.uint8 or videos[key].shape != (length, *feature.shape):
                raise DataError(
                    f"The video {key!r} is {videos[key].dtype} {list(videos[key].shape)!r}, not uint8 {[length, *feature.shape]!r}."
                )
        index = self._lowest_free() if episode_index is None else episode_index
        if index < 0 or self._has(index):
            raise DataError(f"Episode {index} cannot be added to {str(self.folder)!r}: it is there already or negative.")
        stage_episode(self.folder, index, self.schema, checked, videos, task, crf=self.crf, gop=self.gop)
        return index

    def finalize(self) -> None:
        """Pack all waiting episodes and write the metadata. Raises DataError without episodes or with indices left out."""
        pack(self.folder, self.schema)
        self._packed = committed(self.folder).num_episodes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finalize()


def _camera(name: str, size: tuple[int, int], fps: float) -> Feature:
    height, width = size
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise DataError(f"The camera {name!r} is {height}x{width}; H.264 needs even sizes.", "Crop or pad a pixel.")
    return camera_feature(height, width, fps)


def _check_features(features: Mapping[str, Feature], cameras: Mapping[str, Feature]) -> None:
    for key, feature in features.items():
        if key in INDEX_FEATURES or key in cameras or not key or "/" in key:
            raise DataError(f"A feature cannot be called {key!r}.", f"Reserved: {', '.join(INDEX_FEATURES)}; no '/'.")
        if feature.dtype not in (*NUMBER_DTYPES, "string"):
            raise DataError(f"The feature {key!r} has dtype {feature.dtype!r}.", "Give cameras as `cameras=`, not as features.")
        if not feature.shape or min(feature.shape) < 1 or (feature.dtype == "string" and feature.shape != (1,)):
            raise DataError(f"The feature {key!r} cannot have shape {feature.shape!r}.", "Scalars and strings have shape (1,).")
    for key in cameras:
        if "/" in key:
            raise DataError(f"A camera cannot be called {key!r}: it becomes a folder name.", "Leave out the '/'.")
    if not features and not cameras:
        raise DataError("A dataset needs at least one feature or camera.")


def _check_names(what: str, given: list[str], wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in given]
    if missing:
        raise DataError(f"The episode lacks the {what}(s) {', '.join(missing)}.")
    for name in given:
        if name not in wanted:
            raise DataError(f"The dataset has no {what} {name!r}.", did_you_mean(name, wanted))


def _length(columns: Mapping[str, np.ndarray], videos: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(values) for name, values in {**columns, **videos}.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"The parts of the episode differ in length: {listed}.", "Give one value per frame everywhere.")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError("The episode has no frames.")
    return length
