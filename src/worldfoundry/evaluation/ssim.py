"""Structural similarity (Wang et al. 2004) with scikit-image's defaults, in exact integers until the last step.

7x7 uniform window, sample covariance, K = (0.01, 0.03), windows inside the picture only, RGB channels averaged.
Axis legend: T frames, H height, W width, C = 3 (RGB). Values are uint8.
"""

from dataclasses import dataclass

import numpy as np

from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.bootstrap import PEAK

SSIM_WINDOW = 7


@dataclass(frozen=True, kw_only=True)
class WindowSums:
    """Frames as int32 with Σx and Σx² of every window: what one side of a comparison needs."""

    frames_THWC: np.ndarray
    total: np.ndarray
    squares: np.ndarray


def ssim(reference_THWC: np.ndarray, generated_THWC: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame pair, float64 (T,). Raises DataError for frames smaller than the 7x7 window."""
    check_ssim_size(reference_THWC)
    return ssim_of(window_sums(reference_THWC), generated_THWC)


def check_ssim_size(frames: np.ndarray) -> None:
    """Raise DataError for frames (..., H, W, C) smaller than the window."""
    if min(frames.shape[-3:-1]) < SSIM_WINDOW:
        raise DataError(
            f"SSIM needs frames of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, got {frames.shape[-3:-1]}.",
            "Leave SSIM out, or score larger frames.",
        )


def window_sums(frames_THWC: np.ndarray) -> WindowSums:
    """The half of `ssim` that knows one video only, so that several candidates share it."""
    x = frames_THWC.astype(np.int32)
    return WindowSums(frames_THWC=x, total=_window_sum(x), squares=_window_sum(x * x))


def ssim_of(true: WindowSums, generated_THWC: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame pair, float64 (T,)."""
    frozen = bool((generated_THWC == generated_THWC[:1]).all())  # one picture for all frames: sum its windows once
    made = window_sums(generated_THWC[:1] if frozen else generated_THWC)
    sum_xy = _window_sum(true.frames_THWC * made.frames_THWC)
    # Integers until here: n Σxy - Σx Σy = n (n - 1) covariance is exact, where float32 would cancel.
    n = SSIM_WINDOW**2
    product, squares = true.total * made.total, true.total * true.total + made.total * made.total
    var_sum = (n * (true.squares + made.squares) - squares) / (n * (n - 1))
    cov = (n * sum_xy - product) / (n * (n - 1))
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    value = (2 / n**2 * product + c1) * (2 * cov + c2) / ((squares / n**2 + c1) * (var_sum + c2))
    return value.mean((1, 2, 3))


def _window_sum(x_THWC: np.ndarray) -> np.ndarray:
    """int32 sums over the 7x7 windows inside the picture, one axis at a time (at most 49 * 255² < 2**31)."""
    rows, columns = x_THWC.shape[1] - SSIM_WINDOW + 1, x_THWC.shape[2] - SSIM_WINDOW + 1
    x_THWC = sum(x_THWC[:, i : i + rows] for i in range(1, SSIM_WINDOW)) + x_THWC[:, :rows]
    return sum(x_THWC[:, :, i : i + columns] for i in range(1, SSIM_WINDOW)) + x_THWC[:, :, :columns]
