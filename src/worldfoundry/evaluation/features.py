"""Feature networks as the distances want them: clips of the future in, a few vectors per clip out, and what to call the result.

Axis legend: N clips, F future frames, K feature vectors of a clip, D features, H height, W width, C = 3 (RGB). Clips are uint8.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as Fn
from torch import Tensor, nn

from worldfoundry.core.contracts import Tier
from worldfoundry.perception.hashing import weights_hash

FRAMES_PER_CLIP = 4
CLIP_FRAMES = 16
BATCH = 16


class FeatureExtractor(Protocol):
    """`name` is what stands in the brackets of `FD[name]`; `parameters` is everything that changes the numbers."""

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> Tier: ...
    def parameters(self) -> Mapping[str, Any]: ...
    def __call__(self, futures_NFHWC: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class FrameFeatures:
    """Vectors of some frames of each clip, evenly spread and always with the last: float64 [N, K, D].

    `network` takes pictures [B, 3, size, size] in [-1, 1] and gives [B, D].
    """

    name: str
    network: nn.Module
    describe: Callable[[Tensor], Tensor]
    size: int
    tier: Tier = "packaged"
    frames_per_clip: int = FRAMES_PER_CLIP

    def parameters(self) -> Mapping[str, Any]:
        return {
            "network": self.name,
            "weights": weights_hash(self.network),
            "size": self.size,
            "resize": "bilinear, antialiased, aspect not kept",
            "frames_per_clip": self.frames_per_clip,
        }

    def __call__(self, futures_NFHWC: np.ndarray) -> np.ndarray:
        return np.stack([self._clip(clip[spread(len(clip), self.frames_per_clip)]) for clip in futures_NFHWC])

    def _clip(self, frames_KHWC: np.ndarray) -> np.ndarray:
        # A frozen clip shows one picture many times; the network looks at it once.
        different: dict[bytes, int] = {}
        where = [different.setdefault(frame.tobytes(), i) for i, frame in enumerate(frames_KHWC)]
        pictures = as_pictures(frames_KHWC[list(different.values())])
        with torch.inference_mode():
            small = resize(pictures, self.size, self.size)
            vectors = torch.cat([self.describe(part) for part in small.split(BATCH)])
        return vectors.double().numpy()[np.searchsorted(list(different.values()), where)]


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """One vector of the last frames of each clip together, at most `clip_frames`: float64 [N, 1, D].

    `network` takes uint8 [B, F, height, width, 3] and gives [B, D].
    """

    name: str
    network: nn.Module
    describe: Callable[[Tensor], Tensor]
    height: int
    width: int
    tier: Tier = "packaged"
    clip_frames: int = CLIP_FRAMES

    def parameters(self) -> Mapping[str, Any]:
        return {
            "network": self.name,
            "weights": weights_hash(self.network),
            "size": [self.height, self.width],
            "resize": "bilinear, antialiased, aspect not kept",
            "clip_frames": f"the last {self.clip_frames} or all",
        }

    def __call__(self, futures_NFHWC: np.ndarray) -> np.ndarray:
        vectors = []
        for clip in futures_NFHWC:
            with torch.inference_mode():
                small = resize(as_pictures(clip[-self.clip_frames :]), self.height, self.width)
                bytes_FHWC = ((small + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
                vectors.append(self.describe(bytes_FHWC[None]).double().numpy())
        return np.stack(vectors)


def spread(frames: int, count: int) -> np.ndarray:
    """`count` frame indices evenly spread over `frames`, first and last included (one: the last); all if there are fewer."""
    if count == 1:
        return np.array([frames - 1])
    return np.unique(np.linspace(0, frames - 1, min(count, frames)).round().astype(int))


def as_pictures(frames_FHWC: np.ndarray) -> Tensor:
    """uint8 [F, H, W, 3] → float32 [F, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames_FHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def resize(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, antialiased when shrinking; the picture is stretched to the size."""
    if x_BCHW.shape[2:] == (height, width):
        return x_BCHW
    return Fn.interpolate(x_BCHW, (height, width), mode="bilinear", antialias=True, align_corners=False)
