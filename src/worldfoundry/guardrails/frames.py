"""What the guards for video share: whether an item can be read, and which frames of it a slow network looks at.

Axis legend: T frames, H height, W width, B pictures, C = 3 (RGB).
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from worldfoundry.core.contracts import VideoItem

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, POOL = 96, 4  # pixels taken along each side, and averaged, before two pictures are compared


def unreadable(item: Any) -> str:
    """Why an item is not uint8 THWC frames with a known rate; empty if it is."""
    frames = getattr(item, "frames", None)
    if not isinstance(item, VideoItem) or not isinstance(frames, np.ndarray):
        return f"expected a VideoItem with an array of frames, got {type(item).__name__}"
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        return f"expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}"
    if len(frames) > 1 and not (math.isfinite(item.fps) and item.fps > 0):
        return f"the frame rate is {item.fps!r}, so nothing per second can be counted"
    return ""


def spread(frames: np.ndarray, fps: float, interval_s: float, change: float) -> list[int]:
    """Frames to look at: the first, the last, one every `interval_s`, and every one that differs from the last one taken.

    `change` is the mean absolute difference (of 1) that counts as another picture. 0 for `interval_s` means every frame.
    """
    count, step = len(frames), max(1, round(interval_s * fps)) if interval_s else 1
    small = _small(frames)
    taken = [0]
    for t in range(1, count):
        if t - taken[-1] >= step or t == count - 1 or np.abs(small[t] - small[taken[-1]]).mean() > 255 * change:
            taken.append(t)
    return taken


def _small(frames: np.ndarray) -> np.ndarray:
    """Pictures of about 24 x 24 averages, in which small things that move make little difference: float32 (T, h, w, C)."""
    down, right = (max(1, side // SAMPLES) for side in frames.shape[1:3])
    some = frames[:, ::down, ::right]
    high, wide = (min(POOL, side) for side in some.shape[1:3])
    some = some[:, : some.shape[1] // high * high, : some.shape[2] // wide * wide]
    cells = some.reshape(len(some), some.shape[1] // high, high, some.shape[2] // wide, wide, 3)
    return cells.mean((2, 4), dtype=np.float32)


def pictures(frames: np.ndarray, indices: list[int], size: int) -> "Tensor":
    """The named frames, whole, squeezed to `size` x `size`: float32 [B, 3, size, size] in [0, 255]."""
    import torch
    import torch.nn.functional as F

    step = max(1, min(frames.shape[1:3]) // (3 * size))  # of a large frame every few pixels will do before it is averaged
    x_BCHW = torch.from_numpy(frames[indices, ::step, ::step].astype(np.float32)).permute(0, 3, 1, 2)
    if x_BCHW.shape[2:] == (size, size):
        return x_BCHW
    return F.interpolate(x_BCHW, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
