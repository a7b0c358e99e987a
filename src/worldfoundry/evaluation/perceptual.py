"""Perceptual distance to the true frame, `LPIPS-like[hed-vgg16]`; `LPIPS` by name only on the ImageNet trunk that a user gives.

Axis legend: N clips, T frames, F future frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from worldfoundry.core.contracts import Tier
from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.features import FRAMES_PER_CLIP, as_pictures, spread
from worldfoundry.evaluation.metrics import Better, FrameSums, FutureMetric
from worldfoundry.perception.hashing import weights_hash
from worldfoundry.perception.lpips import PerceptualDistance

SMALLEST = 16  # pixels: the trunk halves the picture four times


class Perceptual(FutureMetric):
    """Mean distance of frames in feature space, at `frames_per_clip` future frames of each clip (evenly spread, last included)."""

    unit = ""
    better: Better = "lower"
    perfect = 0.0

    def __init__(self, net: PerceptualDistance, *, name: str, tier: Tier, frames_per_clip: int = FRAMES_PER_CLIP) -> None:
        self.net, self.name, self.label = net, name, name
        self.tier: Tier = tier
        self.frames_per_clip = frames_per_clip

    def parameters(self) -> Mapping[str, Any]:
        return {"weights": weights_hash(self.net), "frames_per_clip": self.frames_per_clip}

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        return self.all_sums(reference, {"": generated}, prefix_frames)[""]

    def all_sums(self, reference: np.ndarray, candidates: Mapping[str, np.ndarray], prefix_frames: int) -> dict[str, FrameSums]:
        """The true frames go through the trunk once for all candidates."""
        _check_size(reference, self.name)
        future = reference.shape[1] - prefix_frames
        chosen = spread(future, self.frames_per_clip)
        totals = {name: np.zeros((len(reference), future)) for name in candidates}
        for i, clip in enumerate(reference):
            values = self._clip(clip[prefix_frames + chosen], {k: v[i, prefix_frames + chosen] for k, v in candidates.items()})
            for name, distances in values.items():
                totals[name][i, chosen] = distances
        count_NF = np.zeros((len(reference), future))
        count_NF[:, chosen] = 1.0
        return {name: FrameSums(total_NF=total, count_NF=count_NF, decibel=False) for name, total in totals.items()}

    def _clip(self, true_FHWC: np.ndarray, candidates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # A frozen clip shows one picture for all frames: look at it once, at those of all candidates together.
        frozen = [name for name, frames in candidates.items() if (frames == frames[:1]).all()]
        found = {}
        with torch.inference_mode():
            true = self.net.maps(as_pictures(true_FHWC))
            stills = np.concatenate([true_FHWC[:0], *(candidates[name][:1] for name in frozen)])
            together = self.net.maps(as_pictures(stills)) if frozen else []
            made = {name: [m[i : i + 1] for m in together] for i, name in enumerate(frozen)}
            for name, frames in candidates.items():
                maps = made.get(name) or self.net.maps(as_pictures(frames))
                found[name] = self.net.between(maps, true).double().numpy()
        return found


def _check_size(reference: np.ndarray, name: str) -> None:
    if min(reference.shape[2:4]) < SMALLEST:
        raise DataError(
            f"{name} needs frames of at least {SMALLEST}x{SMALLEST} pixels, got {reference.shape[2:4]}.",
            "Leave it out, or score larger frames.",
        )
