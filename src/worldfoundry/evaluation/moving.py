"""Which pixels move: judged from the true clip alone, so that no candidate chooses where it is scored.

Axis legend: N clips, T frames, H height, W width.
"""

import numpy as np

THRESHOLD = 15  # of 255 levels: above compression noise, below any object's contrast
DILATION = 5  # pixels: a square that also takes in the edge of what moves


def moving_mask(
    reference_NTHWC: np.ndarray, prefix_frames: int, *, threshold: int = THRESHOLD, dilation: int = DILATION
) -> np.ndarray:
    """bool (N, H, W): pixels that, in any channel of any future frame, differ from the last prefix frame by over `threshold`.

    Grown by a `dilation` x `dilation` square. One mask per clip: where something comes or goes counts at every future frame.
    """
    masks = []
    for clip_THWC in reference_NTHWC:
        # max - last and last - min in uint8 are exact, unlike a difference of uint8 values.
        last_HWC, future = clip_THWC[prefix_frames - 1], clip_THWC[prefix_frames:]
        change_HWC = np.maximum(np.maximum(future.max(0), last_HWC) - last_HWC, last_HWC - np.minimum(future.min(0), last_HWC))
        masks.append(dilate(change_HWC.max(-1) > threshold, dilation))
    return np.stack(masks)


def dilate(mask_HW: np.ndarray, size: int) -> np.ndarray:
    """Binary dilation by a size x size square (size odd)."""
    reach = size // 2
    height, width = mask_HW.shape
    padded = np.pad(mask_HW, reach)
    rows = np.logical_or.reduce([padded[i : i + height] for i in range(size)])
    return np.logical_or.reduce([rows[:, i : i + width] for i in range(size)])
