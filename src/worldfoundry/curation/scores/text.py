"""Text in the picture, and how much of it stays where it is: captions, logos, time stamps.

Axis legend: T frames, h x w cells of the detector's answer.

Text that belongs to the scene moves with it; what was printed over the video stays. Before a camera that stands still the two
cannot be told apart, so `text_persistent` is to be read beside `camera_motion`.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

SURE = 0.5  # probability from which a cell is text
STAYS = 0.75  # share of the frames in which a cell must be text to stay
THICKEST = 0.15  # of the picture's height: what is thicker is no line of text
FEWEST_CELLS = 6

TEXT_COLUMNS = ("text_share", "text_persistent", "text_lines")


def text_scores(frames_HWC: Sequence[np.ndarray], detect: Callable[[np.ndarray], np.ndarray]) -> dict[str, float | None]:
    """Text in a few frames of one span, spread over it. `detect` maps a uint8 frame to the probability of text in each cell.

    text_share       mean share of the picture that is text, 0 to 1
    text_persistent  share of the picture that is text in three of four frames or more, 0 to 1
    text_lines       mean number of separate lines
    """
    if len(frames_HWC) == 0:
        return dict.fromkeys(TEXT_COLUMNS)
    found = [text_lines(detect(frame)) for frame in frames_HWC]
    masks_Thw = np.stack([mask for mask, _ in found])
    return {
        "text_share": round(float(masks_Thw.mean()), 5),
        "text_persistent": round(float((masks_Thw.mean(0) >= STAYS).mean()), 5),
        "text_lines": round(float(np.mean([count for _, count in found])), 2),
    }


def finds_text() -> bool:
    """Whether the detector can run here."""
    return find_spec("onnxruntime") is not None


def text_lines(surely_hw: np.ndarray) -> tuple[np.ndarray, int]:
    """The cells of what has the shape of a line of text, and how many lines there are."""
    labels_hw = connected(surely_hw > SURE)
    kept, count = np.zeros(labels_hw.shape, bool), 0
    for label in range(1, int(labels_hw.max()) + 1):
        line = labels_hw == label
        rows, columns = np.flatnonzero(line.any(1)), np.flatnonzero(line.any(0))
        length = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        if line.sum() >= FEWEST_CELLS and line.sum() / length <= THICKEST * len(line):
            kept |= line
            count += 1
    return kept, count


def connected(mask_hw: np.ndarray) -> np.ndarray:
    """Labels 1, 2, … of the connected regions of a mask (neighbours share a side), 0 elsewhere: the least number spreads."""
    numbers = np.where(mask_hw, np.arange(1, mask_hw.size + 1).reshape(mask_hw.shape), 0)
    far = mask_hw.size + 1
    while True:
        spread = np.pad(np.where(mask_hw, numbers, far), 1, constant_values=far)
        least = np.minimum.reduce(
            [spread[1:-1, 1:-1], spread[:-2, 1:-1], spread[2:, 1:-1], spread[1:-1, :-2], spread[1:-1, 2:]]
        )
        new = np.where(mask_hw, least, 0)
        new = np.where(mask_hw, new.ravel()[np.maximum(new - 1, 0)], 0)  # what its own number points at: twice as far each time
        if (new == numbers).all():
            return np.unique(new, return_inverse=True)[1].reshape(mask_hw.shape) + (0 if (new == 0).any() else 1)
        numbers = new
