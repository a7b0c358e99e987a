"""Uncertainty by resampling clips with replacement: percentile intervals, and paired differences on the same resamples.

Axis legend: N clips, R resamples. Clips, not frames or pixels, are the independent draws: frames of one clip are alike.
"""

from dataclasses import dataclass

import numpy as np

PEAK = 255.0
MAX_DB = 100.0  # what identical videos score, so that every result is a finite number


@dataclass(frozen=True, kw_only=True)
class ClipSums:
    """A pooled statistic in parts: value = scale(Σ total / Σ count); the scale is decibels of a mean squared error, or none.

    total_N, count_N: float64. A clip with count 0 has nothing to say (no moving pixel, no visible object).
    """

    total_N: np.ndarray
    count_N: np.ndarray
    decibel: bool

    @property
    def n(self) -> int:
        """Clips that contribute."""
        return int((self.count_N > 0).sum())

    def value(self) -> float:
        """The statistic over all clips; nan if no clip contributes."""
        return float(self._scale(self.total_N.sum(), self.count_N.sum()))

    def resampled(self, weights_RN: np.ndarray) -> np.ndarray:
        """The statistic (R,) of each resample, given how often it drew each clip."""
        return self._scale(weights_RN @ self.total_N, weights_RN @ self.count_N)

    def _scale(self, total: np.ndarray, count: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray(total, dtype=float) / np.asarray(count, dtype=float)
        return decibels(mean) if self.decibel else mean


def decibels(mse: np.ndarray | float) -> np.ndarray:
    """Peak signal-to-noise ratio of a mean squared error of 8-bit values, 10 log10(255² / mse), at most 100 dB."""
    floor = PEAK**2 * 10 ** (-MAX_DB / 10)
    return 10 * np.log10(PEAK**2 / np.maximum(mse, floor))


def resampling_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """(R, N): how often each of n clips is drawn in each resample of size n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)


def interval(sums: ClipSums, weights_RN: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the statistic; (nan, nan) with fewer than two contributing clips."""
    return _percentiles(sums.resampled(weights_RN), level) if sums.n >= 2 else (float("nan"), float("nan"))


def paired_difference(
    sums: ClipSums, baseline: ClipSums, weights_RN: np.ndarray, level: float = 0.95
) -> tuple[float, float, float]:
    """(difference, low, high) of `sums` minus `baseline`, both measured on the same resampled clips."""
    difference = sums.value() - baseline.value()
    if min(sums.n, baseline.n) < 2:
        return difference, float("nan"), float("nan")
    return difference, *_percentiles(sums.resampled(weights_RN) - baseline.resampled(weights_RN), level)


def _percentiles(values_R: np.ndarray, level: float) -> tuple[float, float]:
    # A resample that drew only clips with nothing to say has no value; it is left out.
    values_R = values_R[np.isfinite(values_R)]
    low, high = np.percentile(values_R, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
