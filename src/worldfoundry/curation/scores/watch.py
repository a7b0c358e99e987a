"""What watches the decoding pass for the scores: each keeps a few numbers per frame looked at, never the frames.

Axis legend: T, S frames in time, H height, W width, h x w cells, C = 3 (RGB), D features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from worldfoundry.core.video_io import VideoInfo
from worldfoundry.curation.rows import Row
from worldfoundry.curation.scores.borders import border_sides, frame_sides
from worldfoundry.curation.scores.motion import STEP_COLUMNS, motion_steps
from worldfoundry.curation.scores.quality import QUALITY_COLUMNS, quality_scores
from worldfoundry.curation.shots import to_luma

PATH_PICTURE = (72, 128)
PATH_EVERY_S = 1 / 8
CHUNK = 64  # pictures whose flow is computed together
BORDER_FRAMES = 16  # of a file that are compared
BORDERS_EVERY_S = 2.0  # what clips are cropped by must not depend on how often quality is looked at


def upright(picture_HWC: np.ndarray, info: VideoInfo) -> np.ndarray:
    """The picture as a viewer sees it."""
    return np.rot90(picture_HWC, info.rotation // 90 % 4)


class PathWatcher:
    """The camera's movement and what else moves, from picture to picture."""

    def __init__(self, info: VideoInfo) -> None:
        self.info, self.pictures, self.times_s, self.done = info, [], [], []

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        self.pictures.append(upright(picture_HWC, self.info))
        self.times_s.append(time_s)
        if len(self.pictures) > CHUNK:
            self._work()

    def _work(self) -> None:
        height, width = self.pictures[0].shape[:2]
        stretch = (self.info.width / self.info.height) / (width / height)
        self.done.append(motion_steps(np.stack(self.pictures), np.array(self.times_s), stretch))
        del self.pictures[:-1], self.times_s[:-1]

    def result(self) -> Row:
        if len(self.pictures) > 1:
            self._work()
        return {"steps_TN": np.concatenate([np.zeros((0, len(STEP_COLUMNS))), *self.done])}


class QualityWatcher:
    """Technical quality of frames at full size, one row each."""

    def __init__(self, info: VideoInfo, niqe: Any, aesthetic: Callable[[list[np.ndarray]], float] | None) -> None:
        self.info, self.niqe, self.aesthetic = info, niqe, aesthetic
        self.rows: list[list[float]] = []

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        picture_HWC = upright(picture_HWC, self.info)
        scores = quality_scores([picture_HWC], self.niqe)
        values = [scores[name] for name in QUALITY_COLUMNS] + ([self.aesthetic([picture_HWC])] if self.aesthetic else [])
        self.rows.append([time_s, *(np.nan if v is None else v for v in values)])

    def result(self) -> Row:
        return {"quality_SN": np.array(self.rows).reshape(len(self.rows), -1)}


class BorderWatcher:
    """The plain borders of each frame looked at, and the borders that many of them have in common."""

    def __init__(self, info: VideoInfo) -> None:
        self.info, self.times_s, self.sides = info, [], []
        self.kept: list[np.ndarray] = []
        self.count, self.stride = 0, 1

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        luma_HW = to_luma(upright(picture_HWC, self.info)[None])[0]
        self.times_s.append(time_s)
        self.sides.append(frame_sides(luma_HW))
        if self.count % self.stride == 0:
            self.kept.append(luma_HW.round().clip(0, 255).astype(np.uint8))
            if len(self.kept) > BORDER_FRAMES:  # every second one goes, so that the rest stays spread over the file
                self.kept, self.stride = self.kept[::2], 2 * self.stride
        self.count += 1

    def result(self) -> Row:
        height, width = self.kept[-1].shape
        same = [luma_HW for luma_HW in self.kept if luma_HW.shape == (height, width)]
        sides, luma = border_sides(np.stack(same).astype(np.float32))
        whole = {"height": height, "width": width, "sides": list(sides), "luma": luma}
        return {"borders_S6": np.column_stack([self.times_s, np.array(self.sides)]), "borders": whole}


class TextWatcher:
    """How surely each cell is text, in 1 / 255."""

    def __init__(self, detect: Callable[[np.ndarray], np.ndarray], info: VideoInfo) -> None:
        self.detect, self.info, self.times_s, self.surely = detect, info, [], []

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        self.times_s.append(time_s)
        frame = np.ascontiguousarray(upright(picture_HWC, self.info))
        self.surely.append((255 * self.detect(frame)).clip(0, 255).astype(np.uint8))

    def result(self) -> Row:
        return {"text_times_s": np.array(self.times_s), "text_Shw": np.stack(self.surely)}


class EmbeddingWatcher:
    """A vector per frame looked at; a video network is shown the frames up to it."""

    def __init__(self, embed: Any, info: VideoInfo) -> None:
        self.embed, self.info, self.times_s, self.vectors = embed, info, [], []
        self.last: list[np.ndarray] = []
        self.reach = embed.frames if getattr(embed, "video", False) else 1

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        self.last = [*self.last, np.ascontiguousarray(upright(picture_HWC, self.info))][-self.reach :]
        self.times_s.append(time_s)
        self.vectors.append(self.embed(self.last))

    def result(self) -> Row:
        return {"embedded_times_s": np.array(self.times_s), "embedded_SD": np.stack(self.vectors)}
