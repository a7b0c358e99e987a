"""Uncertainty by resampling with replacement: percentile intervals, and paired differences on the same resamples.

What is drawn must be independent. Frames of one clip are alike, and so are clips cut from one video or cameras on one episode: whole
sources are drawn (the cluster bootstrap), each clip being a source of its own where nothing else is known.

Axis legend: N clips, G sources (independent draws; G = N where each clip is its own), R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldfoundry.core.errors import DataError

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

    def by_source(self, source_N: np.ndarray) -> "ClipSums":
        """The same statistic in parts that are independent draws: the clips of each source summed up."""
        count = int(source_N.max()) + 1
        total_G, count_G = (np.bincount(source_N, weights=values, minlength=count) for values in (self.total_N, self.count_N))
        return ClipSums(total_N=total_G, count_N=count_G, decibel=self.decibel)

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


def source_indices(groups: Sequence[object] | None, n: int) -> np.ndarray:
    """(N,): 0 … G - 1, the source of each of n clips, in order of appearance; each its own where `groups` is None.

    Raises DataError unless there is one label per clip.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise DataError(f"There are {len(groups)} groups for {n} clips.", "Give one label per clip: what it was cut from.")
    known = {label: i for i, label in enumerate(dict.fromkeys(groups))}
    return np.array([known[label] for label in groups])


def few_draws(source_N: np.ndarray) -> str:
    """What has to be said about an interval from these clips' sources; empty from 8 sources on."""
    count = len(np.unique(source_N))
    what = "clip" if count == len(source_N) else "source"
    if count == 1:
        return f"one {what}: no interval"
    return f"fewer than 8 {what}s: the interval is too narrow" if count < 8 else ""


def resampling_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """(R, n): how often each of n sources is drawn in each resample of size n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)


def interval(sums: ClipSums, weights_RN: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the statistic; (nan, nan) with fewer than two contributing draws."""
    return _percentiles(sums.resampled(weights_RN), level) if sums.n >= 2 else (float("nan"), float("nan"))


def paired_difference(
    sums: ClipSums, baseline: ClipSums, weights_RN: np.ndarray, level: float = 0.95
) -> tuple[float, float, float]:
    """(difference, low, high) of `sums` minus `baseline`, both measured on the same resamples."""
    difference = sums.value() - baseline.value()
    if min(sums.n, baseline.n) < 2:
        return difference, float("nan"), float("nan")
    return difference, *_percentiles(sums.resampled(weights_RN) - baseline.resampled(weights_RN), level)


def _percentiles(values_R: np.ndarray, level: float) -> tuple[float, float]:
    # A resample that drew only clips with nothing to say has no value; it is left out.
    values_R = values_R[np.isfinite(values_R)]
    low, high = np.percentile(values_R, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
