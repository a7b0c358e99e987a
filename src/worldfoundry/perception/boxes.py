"""Boxes around things in pictures: overlap, and the choice among boxes that overlap.

Legend: N boxes, each (left, top, right, bottom) in pixels.
"""

import numpy as np


def overlaps(one_N4: np.ndarray, other_M4: np.ndarray, *, of_smaller: bool = False) -> np.ndarray:
    """Intersection over union of every box with every other, float (N, M); `of_smaller` divides by the smaller box instead."""
    one, other = one_N4[:, None], other_M4[None]
    sides = np.minimum(one[..., 2:4], other[..., 2:4]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    areas = [np.maximum(box[..., 2:4] - box[..., :2], 0).prod(-1) for box in (one, other)]
    whole = np.minimum(*areas) if of_smaller else areas[0] + areas[1] - shared
    return shared / np.maximum(whole, 1e-9)


def best_boxes(boxes_N4: np.ndarray, scores_N: np.ndarray, limit: float, *, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: indices of boxes, best first, none of which overlaps a better one by more than `limit`."""
    left = np.argsort(-scores_N, kind="stable")
    kept = []
    while len(left):
        kept.append(left[0])
        overlap_M = overlaps(boxes_N4[left[:1]], boxes_N4[left[1:]], of_smaller=of_smaller)[0]
        left = left[1:][overlap_M <= limit]
    return np.array(kept, dtype=int)
