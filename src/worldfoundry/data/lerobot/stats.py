"""Statistics for normalisation: min, max, mean, standard deviation, count and quantiles of every feature.

Axis legend: T frames, H height, W width, C = 3 (RGB).
Numbers per dimension over all frames (population standard deviation, quantiles by linear interpolation). Cameras per colour
channel in [0, 1], shape (3, 1, 1), over at most `SAMPLED_FRAMES` frames per episode; `count` is then that of the frames looked
at. Of several episodes, everything but quantiles follows from the episodes' own statistics; quantiles do not (a mean of
quantiles is no quantile), so those of a dataset are computed from its data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot.columns import to_numpy
from worldfoundry.data.lerobot.index import read_parquet
from worldfoundry.data.lerobot.layout import Feature

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED_FRAMES = 100


@dataclass(frozen=True, kw_only=True)
class FeatureStats:
    """Arrays in the shape of one frame, (1,) for scalars, (3, 1, 1) for cameras. `names` labels their numbers."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: int
    quantiles: Mapping[str, np.ndarray] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def constant(self) -> tuple[str, ...]:
        """The names of the dimensions that never change, for which normalising by `std` would divide by zero."""
        still = np.flatnonzero(np.ravel(self.min == self.max))
        return tuple(self.names[i] if i < len(self.names) else f"[{i}]" for i in still)

    @property
    def scale(self) -> np.ndarray:
        """`std`, with 1 for constant dimensions."""
        return np.where((self.min == self.max) | (self.std == 0), 1.0, self.std)

    def normalize(self, values: np.ndarray) -> np.ndarray:
        """(values − mean) / scale, float32, of the shape of `values`; constant dimensions become 0."""
        return ((values - self._fit(self.mean, values)) / self._fit(self.scale, values)).astype(np.float32)

    def denormalize(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `normalize`, float32."""
        return (values * self._fit(self.scale, values) + self._fit(self.mean, values)).astype(np.float32)

    def _fit(self, statistic: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Scalars come as (T,) while their statistics have shape (1,)."""
        return statistic.reshape(()) if statistic.size == 1 and np.ndim(values) < 2 else statistic

    def to_json(self) -> dict[str, Any]:
        values = {"min": self.min, "max": self.max, "mean": self.mean, "std": self.std, **self.quantiles}
        lists: dict[str, Any] = {name: value.tolist() for name, value in values.items()}
        return {**lists, "count": [self.count]}

    @classmethod
    def from_json(cls, key: str, entry: Any, names: tuple[str, ...], where: Path) -> "FeatureStats":
        """Raises DataError for an entry that lacks one of min, max, mean, std, count."""
        try:
            read = {name: np.atleast_1d(np.asarray(entry[name], np.float64)) for name in ("min", "max", "mean", "std")}
            count = int(np.ravel(entry["count"])[0]) if "count" in entry else 0  # v2.0 wrote none
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"The statistics of {key!r} in {str(where)!r} are incomplete.", "Use compute_stats() instead."
            ) from error
        quantiles = {q: np.atleast_1d(np.asarray(entry[q], np.float64)) for q in QUANTILES if q in entry}
        return cls(**read, count=count, quantiles=quantiles, names=names)


def column_stats(values: np.ndarray, names: tuple[str, ...] = ()) -> FeatureStats:
    """Of a column (T, *shape) or (T,); whole numbers and booleans keep whole minima and maxima."""
    values = values.reshape(len(values), 1) if values.ndim == 1 else values
    whole = values.dtype.kind in "biu"
    numbers = values.astype(np.float64)
    levels = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return FeatureStats(
        min=numbers.min(axis=0).astype(np.int64 if whole else np.float64),
        max=numbers.max(axis=0).astype(np.int64 if whole else np.float64),
        mean=numbers.mean(axis=0),
        std=numbers.std(axis=0),
        count=len(numbers),
        quantiles=dict(zip(QUANTILES, levels, strict=True)),
        names=names,
    )


def frames_stats(frames: np.ndarray) -> FeatureStats:
    """Of a video (uint8 THWC), exactly, by counting levels in at most SAMPLED_FRAMES frames spread over it."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, SAMPLED_FRAMES).round().astype(int))
    counts = np.zeros((3, 256))
    for i in chosen:
        counts += [np.bincount(frames[i, :, :, channel].ravel(), minlength=256) for channel in range(3)]
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    seen = counts > 0
    low, high = levels[seen.argmax(axis=1)], levels[255 - seen[:, ::-1].argmax(axis=1)]
    shaped = [statistic.reshape(3, 1, 1) for statistic in (low, high, mean, std)]
    return FeatureStats(min=shaped[0], max=shaped[1], mean=shaped[2], std=shaped[3], count=len(chosen))


def merge_stats(parts: Iterable[FeatureStats]) -> FeatureStats:
    """The statistics of several sets together, without quantiles (Chan, Golub, LeVeque 1979 for the variance)."""
    parts = list(parts)
    counts = np.array([part.count for part in parts], np.float64)
    weights = counts / counts.sum() if counts.sum() else np.full(len(parts), 1 / len(parts))
    means, stds = np.stack([part.mean for part in parts]), np.stack([part.std for part in parts])
    weights = weights.reshape(-1, *[1] * (means.ndim - 1))
    mean = (weights * means).sum(axis=0)
    variance = (weights * (stds**2 + (means - mean) ** 2)).sum(axis=0)
    return FeatureStats(
        min=np.min([part.min for part in parts], axis=0),
        max=np.max([part.max for part in parts], axis=0),
        mean=mean,
        std=np.sqrt(variance),
        count=int(counts.sum()),
        names=parts[0].names,
    )


def stats_of_files(files: list[Path], features: Mapping[str, Feature]) -> dict[str, FeatureStats]:
    """Exact statistics of the number columns of data files, one column in memory at a time. Raises DataError."""
    stats = {}
    for key, feature in features.items():
        if feature.is_number:
            parts = [to_numpy(read_parquet(file, [key])[key], key, feature, repr(str(file))) for file in files]
            stats[key] = column_stats(np.concatenate(parts), feature.dimension_names(key))
    return stats
