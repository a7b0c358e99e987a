"""Where objects are when the simulator's masks say where they should be: centroid error of objects of any colour.

The true position is that of the true mask. In another video an object is found by its colours: how often each colour (4 bits per
channel) lies on it, among all pixels of the given frames, weighs each pixel of a later frame. Objects that cannot be told apart so
(another has the same colours) are found wrong in the TRUE video too; they are left out, and what remains of that error is the floor.

Axis legend: N clips, T frames, P prefix frames, H height, W width, C = 3 (RGB), F future frames, K colours.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from worldfoundry.evaluation.metrics import Better, FrameSums, FutureMetric

COLOURS = 16**3
VISIBLE = 6 / 64**2  # of the picture: a smaller true mask is not scored
SURE = 0.5  # a pixel counts where more than half of its colour's pixels lie on the object
TRACKED = 0.03  # of the picture's diagonal: how far off the true video may be found for an object to count


class MaskCentroidError(FutureMetric):
    """Mean distance in pixels between objects' true positions (masks) and where their colours are in the generated frame.

    An object without a trace counts as if it were at the picture's centre. masks_NTHW: uint8, 0 = surroundings, n = object n.
    """

    name, label, unit, perfect = "centroid_error_masks", "Object position error", "px", 0.0
    better: Better = "lower"

    def __init__(self, masks_NTHW: np.ndarray) -> None:
        self.masks_NTHW = masks_NTHW

    def parameters(self) -> Mapping[str, Any]:
        masks = hashlib.sha256(np.ascontiguousarray(self.masks_NTHW).data).hexdigest()[:16]
        return {"masks": masks, "colours": COLOURS, "visible": VISIBLE, "sure": SURE, "tracked": TRACKED, "gone": "centre"}

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        return self.all_sums(reference, {"": generated}, prefix_frames)[""]

    def floor_sums(self, reference: np.ndarray, prefix_frames: int) -> FrameSums:
        """How far from the masks the colours are in the true clips: a candidate at this error may be right."""
        return self.sums(reference, reference, prefix_frames)

    def all_sums(self, reference: np.ndarray, candidates: Mapping[str, np.ndarray], prefix_frames: int) -> dict[str, FrameSums]:
        """Colours are learned, and objects checked, once for all candidates."""
        shape = (len(reference), reference.shape[1] - prefix_frames)
        totals, count_NF = {name: np.zeros(shape) for name in candidates}, np.zeros(shape)
        for i, (clip, masks) in enumerate(zip(reference, self.masks_NTHW, strict=True)):
            for weight_K, xy_F2, seen_F in trackable(clip, masks, prefix_frames):
                count_NF[i] += seen_F
                for name, clips in candidates.items():
                    found_F2 = find(colours(clips[i, prefix_frames:]), weight_K)
                    totals[name][i] += np.linalg.norm(found_F2 - xy_F2, axis=-1) * seen_F
        return {name: FrameSums(total_NF=total, count_NF=count_NF, decibel=False) for name, total in totals.items()}


def trackable(
    clip_THWC: np.ndarray, masks_THW: np.ndarray, prefix_frames: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(weight of each colour, true positions, frames in which it is visible) of each object that its colours find in the truth."""
    bins_THW, size = colours(clip_THWC), masks_THW[0].size
    given = slice(0, prefix_frames)
    everything_K = np.bincount(bins_THW[given].ravel(), minlength=COLOURS)
    for thing in range(1, int(masks_THW[given].max(initial=0)) + 1):
        on_THW = masks_THW == thing
        area_T = on_THW.sum((1, 2)) / size
        if area_T[prefix_frames - 1] < VISIBLE:
            continue
        own_K = np.bincount(bins_THW[given][on_THW[given]], minlength=COLOURS)
        weight_K = own_K / np.maximum(everything_K, 1)
        weight_K[weight_K <= SURE] = 0
        xy_F2, seen_F = positions(on_THW[prefix_frames:].astype(float)), area_T[prefix_frames:] >= VISIBLE
        off_F = np.linalg.norm(find(bins_THW[prefix_frames:], weight_K) - xy_F2, axis=-1)
        if seen_F.any() and off_F[seen_F].mean() <= TRACKED * np.hypot(*masks_THW.shape[1:]):
            yield weight_K, xy_F2, seen_F


def colours(frames_THWC: np.ndarray) -> np.ndarray:
    """(T, H, W): which of the 4096 colours each pixel has."""
    r, g, b = np.moveaxis(frames_THWC.astype(np.int16) >> 4, -1, 0)
    return (r << 8) + (g << 4) + b


def find(bins_THW: np.ndarray, weight_K: np.ndarray) -> np.ndarray:
    """(T, 2): where the colours of an object are."""
    return positions(weight_K[bins_THW])


def positions(weight_THW: np.ndarray) -> np.ndarray:
    """(T, 2): centroids x, y in pixels; the picture's centre where there is no weight."""
    height, width = weight_THW.shape[1:]
    total = weight_THW.sum((1, 2))
    x = (weight_THW.sum(1) * np.arange(width)).sum(-1) / np.maximum(total, 1e-9)
    y = (weight_THW.sum(2) * np.arange(height)).sum(-1) / np.maximum(total, 1e-9)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.where((total > 0)[:, None], np.stack([x, y], -1), centre)
