"""Where coloured objects are: centroids of saturated colours, for scenes whose objects are told apart by colour.

A far clearer measure of control than PSNR: a rod in the wrong place costs few pixels but many pixels of distance.
Axis legend: H height, W width, C = 3 (RGB). Positions are in pixels, x right, y down, pixel centres at whole numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

VISIBLE = 6 / 64**2  # of the picture's area: less soft mass than this is noise, not an object
GONE = 1 / 64**2


@dataclass(frozen=True, kw_only=True)
class ColourObject:
    """An object known by its colour. `excess(r, g, b)` of values in [0, 1] is positive on it and not elsewhere."""

    name: str
    excess: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def magenta(r: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(r, b) - g - 0.25


def green_or_blue(r: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(g, b) - r - 0.2


PUSHER = ColourObject(name="pusher", excess=magenta)
BLOCK = ColourObject(name="block", excess=green_or_blue)


def soft_mask(frames_HWC: np.ndarray, thing: ColourObject) -> np.ndarray:
    """float32 (..., H, W) of uint8 (..., H, W, 3): how far each pixel exceeds the object's colour threshold, 0 elsewhere."""
    r, g, b = np.moveaxis(frames_HWC.astype(np.float32) / 255, -1, 0)
    return np.maximum(thing.excess(r, g, b), 0)


def centroids(frames_HWC: np.ndarray, thing: ColourObject) -> tuple[np.ndarray, np.ndarray]:
    """(xy, mass): centroid (..., 2) in pixels and soft mass (...) as a share of the picture.

    Where the object is gone (mass below 1/4096 of the picture) the centroid is the picture's centre.
    """
    mask = soft_mask(frames_HWC, thing)
    height, width = mask.shape[-2:]
    total = mask.sum((-2, -1))
    x = (mask.sum(-2) * np.arange(width)).sum(-1) / np.maximum(total, 1e-9)
    y = (mask.sum(-1) * np.arange(height)).sum(-1) / np.maximum(total, 1e-9)
    mass = total / (height * width)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.where((mass >= GONE)[..., None], np.stack([x, y], -1), centre), mass
