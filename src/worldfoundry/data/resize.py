"""Frames to a size: scaled and cropped at the centre, or scaled and padded with their own reflection.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import numpy as np
from PIL import Image


def fit(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 THWC scaled so that the picture covers height x width (antialiased bicubic), then cropped at the centre."""
    if frames.shape[1:3] == (height, width):
        return frames
    scale = max(height / frames.shape[1], width / frames.shape[2])
    size = max(height, round(frames.shape[1] * scale)), max(width, round(frames.shape[2] * scale))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled(frames, *size)[:, top : top + height, left : left + width]


def pad_to(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 THWC scaled so that the whole picture is inside height x width, the rest filled with its reflection.

    The picture is in the middle (arXiv 2501.03575, section 5.1.3); `padding_mask` says where it is not.
    """
    top, left, down, across = picture_place(frames.shape[1], frames.shape[2], height, width)
    rest = (0, 0), (top, height - top - down), (left, width - left - across), (0, 0)
    return np.pad(scaled(frames, down, across), rest, mode="reflect")


def padding_mask(picture_height: int, picture_width: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: 1 where `pad_to` puts no picture of that size."""
    top, left, down, across = picture_place(picture_height, picture_width, height, width)
    mask = np.ones((height, width), np.uint8)
    mask[top : top + down, left : left + across] = 0
    return mask


def picture_place(picture_height: int, picture_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Where `pad_to` puts a picture: first row, first column, rows, columns."""
    scale = min(height / picture_height, width / picture_width)
    down, across = (max(1, min(round(side * scale), most)) for side, most in ((picture_height, height), (picture_width, width)))
    return (height - down) // 2, (width - across) // 2, down, across


def scaled(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 THWC at another size (antialiased bicubic), whatever that does to its shape."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames])
