"""Metrics that compare sets of clips through a feature network: `FD[network]` and `KD[network]`, over the whole future.

They see whether generated clips look like true ones as a set, not whether each is right. n counts clips: frames of one clip are alike.
Below 2 000 clips the Fréchet distance measures the sample size as much as the model; read the kernel distance there.

Axis legend: N clips, G sources of clips, T frames, F future frames, K feature vectors of a clip, D features, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldfoundry.core.contracts import MetricResult, Tier
from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.bootstrap import few_draws, resampling_weights, source_indices
from worldfoundry.evaluation.distances import clip_gram, frechet_distance, kernel_distance, pair_terms
from worldfoundry.evaluation.features import FeatureExtractor
from worldfoundry.evaluation.metrics import Better, check_clips, protocol_hash, reference_id

ENOUGH = 2000  # clips from which the Fréchet distance is the one to report
FOLDS = 10  # of the jackknife
KERNEL_SPLITS, FRECHET_SPLITS = 50, 4
Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with what it was on resampled clips: bootstrap resamples, or leave-one-fold-out values (jackknife)."""

    value: float
    resampled: np.ndarray
    jackknife: bool

    def interval(self) -> tuple[float, float]:
        """95 %: percentiles of the bootstrap, widened to hold the value; or the value ± 1.96 jackknife standard errors."""
        return _interval(self.value, self.resampled, self.jackknife)

    def minus(self, other: "Estimate") -> tuple[float, float, float]:
        """(difference, low, high) on the same resamples."""
        difference = self.value - other.value
        return difference, *_interval(difference, self.resampled - other.resampled, self.jackknife)


class DistributionMetric:
    """What both distances share. `features` is run once per set of clips; `estimate` compares two results of it."""

    inputs: tuple[str, ...] = ("reference", "generated", "prefix_frames")
    unit = ""
    better: Better = "lower"
    perfect = 0.0
    kind: str
    words: str

    def __init__(self, extractor: FeatureExtractor, *, name: str = "") -> None:
        self.extractor = extractor
        self.name = name or f"{self.kind}[{extractor.name}]"
        self.label = name or f"{self.words}, {extractor.name}"

    @property
    def tier(self) -> Tier:
        return self.extractor.tier

    def parameters(self) -> Mapping[str, Any]:
        return {"distance": self.kind, **self.extractor.parameters()}

    def estimate(
        self, reference_NKD: np.ndarray, generated_NKD: np.ndarray, source_N: np.ndarray, weights_RG: np.ndarray
    ) -> Estimate:
        raise NotImplementedError

    def floor(self, reference_NKD: np.ndarray, source_N: np.ndarray, seed: int) -> float:
        """What true clips score against true clips of other sources: 95 % quantile over random halvings; nan below 4 sources."""
        raise NotImplementedError

    def result(self, estimate: Estimate, source_N: np.ndarray, protocol: str, note: str = "") -> MetricResult:
        low, high = estimate.interval()
        n = len(source_N)
        said = [text for text in (note, self.remark(n), few_draws(source_N)) if text]
        return MetricResult(
            name=self.name,
            value=estimate.value,
            n=n,
            low=low,
            high=high,
            tier=self.tier,
            protocol=protocol,
            note="; ".join(said),
        )

    def remark(self, n: int) -> str:
        """What has to be said about a value from n clips."""
        return ""

    def __call__(self, **inputs: Any) -> MetricResult:
        """Score `generated` against `reference`: uint8 (N, T, H, W, 3), the first `prefix_frames` given. Raises DataError."""
        reference, prefix_frames = inputs["reference"], inputs["prefix_frames"]
        check_clips(reference, inputs["generated"], prefix_frames)
        check_enough(reference, self.name)
        true, made = (self.extractor(clips[:, prefix_frames:]) for clips in (reference, inputs["generated"]))
        source_N = source_indices(None, len(reference))
        estimate = self.estimate(true, made, source_N, resampling_weights(len(reference), 1000, 0))
        frames = (prefix_frames, reference.shape[1])
        return self.result(estimate, source_N, protocol_hash(self, reference_id(reference), prefix_frames, frames))


class KernelDistance(DistributionMetric):
    """Unbiased squared maximum mean discrepancy with the kernel (x·y/D + 1)³; may be slightly negative for very good clips."""

    kind, words = "KD", "Kernel distance"

    def estimate(
        self, reference_NKD: np.ndarray, generated_NKD: np.ndarray, source_N: np.ndarray, weights_RG: np.ndarray
    ) -> Estimate:
        h_NN = pair_terms(
            clip_gram(reference_NKD, reference_NKD),
            clip_gram(generated_NKD, generated_NKD),
            clip_gram(reference_NKD, generated_NKD),
        )
        resampled = kernel_distance(h_NN, source_N, weights_RG)
        return Estimate(value=float(kernel_distance(h_NN, source_N)), resampled=resampled, jackknife=False)

    def floor(self, reference_NKD: np.ndarray, source_N: np.ndarray, seed: int) -> float:
        gram = clip_gram(reference_NKD, reference_NKD)
        values = []
        for a, b in _halvings(source_N, KERNEL_SPLITS, seed):
            h = pair_terms(gram[np.ix_(a, a)], gram[np.ix_(b, b)], gram[np.ix_(a, b)])
            other = (source_N[a][:, None] != source_N[a]) & (source_N[b][:, None] != source_N[b])
            values += [float(h[other].mean())] if other.any() else []
        return float(np.quantile(values, 0.95)) if values else float("nan")


class FrechetDistance(DistributionMetric):
    """Fréchet distance of the Gaussians fitted to all feature vectors of either set."""

    kind, words = "FD", "Fréchet distance"

    def remark(self, n: int) -> str:
        if n >= ENOUGH:
            return ""
        return f"{n} clips: a Fréchet distance below {ENOUGH} is biased upwards and only compares with the same n; read KD"

    def estimate(
        self, reference_NKD: np.ndarray, generated_NKD: np.ndarray, source_N: np.ndarray, weights_RG: np.ndarray
    ) -> Estimate:
        fold_N = source_N % FOLDS
        few = source_N.max() < 2  # leaving a source out could leave no spread
        keep = [fold_N != fold for fold in range(int(fold_N.max()) + 1) if not few]
        left = [_frechet(reference_NKD[rest], generated_NKD[rest]) for rest in keep]
        value = _frechet(reference_NKD, generated_NKD)
        return Estimate(value=value, resampled=np.array(left), jackknife=True)

    def floor(self, reference_NKD: np.ndarray, source_N: np.ndarray, seed: int) -> float:
        halves = _halvings(source_N, FRECHET_SPLITS, seed)
        values = [_frechet(reference_NKD[a], reference_NKD[b]) for a, b in halves]
        return float(np.quantile(values, 0.95)) if values else float("nan")


def check_enough(reference: np.ndarray, name: str) -> None:
    """Raise DataError for fewer than the two clips without which a set has no spread."""
    if len(reference) < 2:
        raise DataError(f"{name} compares sets of clips and got {len(reference)} clip.", "Give at least 2, better 100.")


def _frechet(x_NKD: np.ndarray, y_NKD: np.ndarray) -> float:
    return frechet_distance(x_NKD.reshape(-1, x_NKD.shape[-1]), y_NKD.reshape(-1, y_NKD.shape[-1]))


def _halvings(source_N: np.ndarray, splits: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips of one half of the sources and as many of the other half, in random order."""
    rng = np.random.default_rng(seed)
    count, halves = int(source_N.max()) + 1, []
    for _ in range(splits if count >= 4 else 0):
        order = rng.permutation(count)
        a, b = (np.flatnonzero(np.isin(source_N, part)) for part in (order[: count // 2], order[count // 2 : count // 2 * 2]))
        n = min(len(a), len(b))
        halves.append((rng.permutation(a)[:n], rng.permutation(b)[:n]))
    return halves


def _interval(value: float, resampled: np.ndarray, jackknife: bool) -> tuple[float, float]:
    good = resampled[np.isfinite(resampled)]
    if len(good) < 2:
        return float("nan"), float("nan")
    if jackknife:
        error = np.sqrt((len(good) - 1) / len(good) * np.square(good - good.mean()).sum())
        return value - Z95 * float(error), value + Z95 * float(error)
    low, high = np.percentile(good, [2.5, 97.5])
    return min(float(low), value), max(float(high), value)
