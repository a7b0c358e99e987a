"""Where the picture lies in what a world samples: a shape that it was trained on, the rest of it reflection, cropped afterwards.

Axis legend: B batch, F pixel frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldfoundry.data.buckets import nearest_aspect
from worldfoundry.data.resize import fit, picture_place, scaled

Shapes = Mapping[Any, tuple[int, int]]
"""Aspect → (height, width) of the frames that clips of about this aspect were padded to in training."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Frames of `height` x `width` pixels whose picture, `rows` x `columns`, begins at (`top`, `left`)."""

    height: int
    width: int
    rows: int
    columns: int
    top: int = 0
    left: int = 0

    @property
    def padded(self) -> bool:
        return (self.rows, self.columns) != (self.height, self.width)

    def pad(self, frames_BFHWC: np.ndarray) -> np.ndarray:
        """Pictures → whole frames; what is around a picture is its reflection, as in training (`data.resize.pad_to`)."""
        below, right = self.height - self.top - self.rows, self.width - self.left - self.columns
        return np.pad(frames_BFHWC, ((0, 0), (0, 0), (self.top, below), (self.left, right), (0, 0)), mode="reflect")

    def mask(self) -> np.ndarray:
        """float32 [height, width]: 1 where there is no picture."""
        mask = np.ones((self.height, self.width), np.float32)
        mask[self.top : self.top + self.rows, self.left : self.left + self.columns] = 0
        return mask

    def crop(self, video_BFHWC: np.ndarray) -> np.ndarray:
        """Frames, which may be filled up to whole patches below and to the right → the pictures."""
        return video_BFHWC[:, :, self.top : self.top + self.rows, self.left : self.left + self.columns]


def canvas(shapes: Shapes, height: int, width: int, multiple: int) -> Canvas:
    """For a picture of a size: the nearest trained shape if the picture fills it, else one like it, as large as is needed.

    Without shapes it is the picture itself. `multiple` divides the sides of a shape that was not trained.
    """
    if not shapes:
        return Canvas(height=height, width=width, rows=height, columns=width)
    down, across = shapes[nearest_aspect(width, height, shapes)]
    if picture_place(height, width, down, across)[2:] != (height, width):
        ratio = across / down
        sides = max(height, round(width / ratio)), max(width, round(height * ratio))
        down, across = (-(-side // multiple) * multiple for side in sides)
    top, left = (down - height) // 2, (across - width) // 2
    return Canvas(height=down, width=across, rows=height, columns=width, top=top, left=left)


def natural_size(shapes: Shapes, height: int, width: int) -> tuple[int, int]:
    """Height and width that given frames of a size have in the nearest trained shape. Raises KeyError without shapes."""
    return picture_place(height, width, *shapes[nearest_aspect(width, height, shapes)])[2:]


def fit_picture(frames: np.ndarray, shapes: Shapes, height: int, width: int) -> np.ndarray:
    """uint8 THWC at the output's size: only scaled where that keeps its shape, as in training, else cropped at the centre."""
    if shapes and natural_size(shapes, *frames.shape[1:3]) == (height, width):
        return scaled(frames, height, width)
    return fit(frames, height, width)
