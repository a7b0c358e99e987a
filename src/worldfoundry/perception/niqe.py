"""NIQE, how unnatural a picture's fine structure is: lower is better (Mittal, Soundararajan, Bovik 2013).

A picture is divided by its local contrast; of blocks of 96 pixels, at full and half size, 18 numbers each say how the result and
the products of neighbours are distributed. NIQE is the distance of their mean and covariance from those of undistorted photographs.
The packaged statistics were made with the left width in place of the right one for diagonal neighbours; so is this. They
place good photographs at 8 to 10 and compressed footage at 10 to 17 (measured), higher than those of the paper's authors would.

Axis legend: H height, W width, N blocks, F = 36 features.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from worldfoundry.core.errors import CheckpointError

BLOCK = 96  # pixels
MOST_ROWS, MOST_COLUMNS = 4, 7  # blocks that are looked at, from the middle: enough, and the cost stays bounded
FEWEST_BLOCKS = 4


@dataclass(frozen=True, kw_only=True)
class NiqeModel:
    """Mean (36,) and covariance (36, 36) of the features of undistorted photographs."""

    mean_F: np.ndarray
    covariance_FF: np.ndarray

    def score(self, luma_HW: np.ndarray) -> float | None:
        """NIQE of a picture in luma levels (0 to 255); None if it has fewer than four blocks of 96 x 96."""
        features_NF = niqe_features(luma_HW)
        if len(features_NF) < FEWEST_BLOCKS:
            return None
        difference_F = features_NF.mean(0) - self.mean_F
        covariance_FF = (self.covariance_FF + np.cov(features_NF.T)) / 2
        return float(np.sqrt(max(0.0, difference_F @ np.linalg.pinv(covariance_FF) @ difference_F)))


def load_niqe(folder: Path) -> NiqeModel:
    """Read the fetched `niqe`. Raises CheckpointError if it is something else."""
    from safetensors.numpy import load_file

    try:
        tensors = load_file(folder / "model.safetensors")
        model = NiqeModel(mean_F=tensors["mean"], covariance_FF=tensors["covariance"])
    except (OSError, KeyError) as error:
        raise CheckpointError(f"{str(folder)!r} does not hold NIQE's statistics.", "worldfoundry models get niqe") from error
    return model


def niqe_features(luma_HW: np.ndarray) -> np.ndarray:
    """(N, 36) features of whole blocks around the middle; (0, 36) if the picture is smaller than a block."""
    rows, columns = min(luma_HW.shape[0] // BLOCK, MOST_ROWS), min(luma_HW.shape[1] // BLOCK, MOST_COLUMNS)
    if not rows or not columns:
        return np.zeros((0, 36))
    top, left = (luma_HW.shape[0] - rows * BLOCK) // 2, (luma_HW.shape[1] - columns * BLOCK) // 2
    whole = np.ascontiguousarray(luma_HW[top : top + rows * BLOCK, left : left + columns * BLOCK], dtype=np.float32)
    half = np.asarray(Image.fromarray(whole).resize((whole.shape[1] // 2, whole.shape[0] // 2), Image.Resampling.BICUBIC))
    sizes = ((whole, BLOCK), (half, BLOCK // 2))
    return np.concatenate([_block_features(normalised(picture), size) for picture, size in sizes], 1)


def normalised(luma_HW: np.ndarray) -> np.ndarray:
    """(luma - local mean) / (local deviation + 1), by a 7 x 7 Gaussian window of deviation 7/6."""
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    mean = _blurred(luma_HW, kernel)
    deviation = np.sqrt(np.abs(_blurred(luma_HW * luma_HW, kernel) - mean * mean))
    return (luma_HW - mean) / (deviation + 1)


def _blurred(x_HW: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    padded = np.pad(x_HW, 3, mode="edge")
    H, W = x_HW.shape
    wide = sum(weight * padded[:, i : i + W] for i, weight in enumerate(kernel))
    return np.asarray(sum(weight * np.asarray(wide)[i : i + H] for i, weight in enumerate(kernel)))


def _block_features(x_HW: np.ndarray, size: int) -> np.ndarray:
    """(N, 18): of the pixels shape and mean width; of each neighbour's products shape, mean, left and right width."""
    blocks = x_HW.reshape(x_HW.shape[0] // size, size, x_HW.shape[1] // size, size).swapaxes(1, 2).reshape(-1, size, size)
    shape, _, left, right = asymmetric_fit(blocks.reshape(len(blocks), -1))
    columns = [shape, (left + right) / 2]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        products = blocks * np.roll(blocks, (dy, dx), axis=(1, 2))
        shape, mean, left, right = asymmetric_fit(products.reshape(len(blocks), -1))
        columns += [shape, mean, left, left if dy and dx else right]
    return np.stack(columns, 1)


def asymmetric_fit(values_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Moment estimates of an asymmetric generalised Gaussian per row: (shape, mean, left width, right width), each (N,)."""
    shapes, ratios, means, widths = _gamma_tables()
    squares, negative = values_NK.astype(np.float64) ** 2, values_NK < 0
    left = np.sqrt((squares * negative).sum(1) / np.maximum(negative.sum(1), 1))
    right = np.sqrt((squares * ~negative).sum(1) / np.maximum((~negative).sum(1), 1))
    skew = left / np.maximum(right, 1e-12)
    ratio = np.abs(values_NK).mean(1) ** 2 / np.maximum(squares.mean(1), 1e-12)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    at = np.searchsorted(ratios, ratio).clip(1, len(ratios) - 1)
    at -= ratio - ratios[at - 1] < ratios[at] - ratio
    left, right = left * widths[at], right * widths[at]
    return shapes[at], (right - left) * means[at], left, right


@cache
def _gamma_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For shapes from 0.2 to 10: the ratio (E|x|)² / E x², the factor of the mean, and of the widths."""
    shapes = np.arange(0.2, 10, 0.001)
    one, two, three = (np.array([math.gamma(k / shape) for shape in shapes]) for k in (1, 2, 3))
    return shapes, two**2 / (one * three), two / one, np.sqrt(one / three)
