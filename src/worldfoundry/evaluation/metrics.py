"""The metrics, each defined to the letter. All score only the future: the prefix frames were given to the model.

Every metric adds up a total and a count per clip and future frame; what is reported is the ratio of the sums, so a horizon,
a pooled value and a bootstrap resample are sums over different parts of one table (`FrameSums`).

PSNR pools squared errors over everything before taking the logarithm (as TokenBench does per video); the mean of per-frame
PSNR, which a few near-perfect frames inflate, is a metric of another name. SSIM has the defaults of scikit-image: 7x7 uniform
window, sample covariance, RGB channels averaged, K = (0.01, 0.03), windows inside the picture only (Wang et al. 2004 use a
Gaussian window, which gives other numbers).

Axis legend: N clips, T frames, F future frames, H height, W width, C = 3 (RGB). Values are uint8.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from worldfoundry.core.config import stable_hash
from worldfoundry.core.contracts import MetricResult, Tier
from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.bootstrap import ClipSums, decibels, few_draws, interval, resampling_weights, source_indices
from worldfoundry.evaluation.moving import DILATION, THRESHOLD, moving_mask
from worldfoundry.evaluation.objects import BLOCK, PUSHER, VISIBLE, ColourObject, centroids
from worldfoundry.evaluation.ssim import SSIM_WINDOW, check_ssim_size, ssim_of, window_sums

Better = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class FrameSums:
    """total_NF and count_NF, float64: what each future frame of each clip adds. `decibel`: the ratio is a squared error."""

    total_NF: np.ndarray
    count_NF: np.ndarray
    decibel: bool

    def clips(self, frames: slice = slice(None)) -> ClipSums:
        """Summed over a span of future frames."""
        total, count = self.total_NF[:, frames].sum(1), self.count_NF[:, frames].sum(1)
        return ClipSums(total_N=total, count_N=count, decibel=self.decibel)

    def curve(self) -> list[float]:
        """The statistic at each future frame, pooled over clips."""
        return [self.clips(slice(i, i + 1)).value() for i in range(self.total_NF.shape[1])]


class VideoMetric(Protocol):
    """A `Metric` that can also say what each frame contributes. `better` and `perfect` say how to read the value."""

    name: str
    inputs: tuple[str, ...]
    tier: Tier
    label: str
    unit: str
    better: Better
    perfect: float

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums: ...
    def all_sums(
        self, reference: np.ndarray, candidates: Mapping[str, np.ndarray], prefix_frames: int
    ) -> dict[str, FrameSums]: ...
    def floor_sums(self, reference: np.ndarray, prefix_frames: int) -> FrameSums | None: ...
    def parameters(self) -> Mapping[str, Any]: ...
    def __call__(self, **inputs: Any) -> MetricResult: ...


class FutureMetric:
    """What metrics of the future's frames share: the same inputs, bootstrap over clips, and (unless said otherwise) no weights."""

    inputs: tuple[str, ...] = ("reference", "generated", "prefix_frames")
    tier: Tier = "none"
    name: str
    label: str
    unit: str = "dB"
    better: Better = "higher"
    perfect: float = 100.0

    def parameters(self) -> Mapping[str, Any]:
        """Everything that changes the number; goes into the protocol hash."""
        return {}

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        raise NotImplementedError

    def all_sums(self, reference: np.ndarray, candidates: Mapping[str, np.ndarray], prefix_frames: int) -> dict[str, FrameSums]:
        """`sums` of every candidate; a metric that can share work on the reference overrides it."""
        return {name: self.sums(reference, clips, prefix_frames) for name, clips in candidates.items()}

    def floor_sums(self, reference: np.ndarray, prefix_frames: int) -> FrameSums | None:
        """What the true clips score themselves, of a metric that measures with an error; None where that is `perfect`."""
        return None

    def __call__(self, **inputs: Any) -> MetricResult:
        """Score `generated` against `reference`: uint8 (N, T, H, W, 3), the first `prefix_frames` given. Raises DataError."""
        reference, prefix_frames = inputs["reference"], inputs["prefix_frames"]
        check_clips(reference, inputs["generated"], prefix_frames)
        sums = self.sums(reference, inputs["generated"], prefix_frames).clips()
        protocol = protocol_hash(self, reference_id(reference), prefix_frames, (prefix_frames, reference.shape[1]))
        source_N = source_indices(None, len(reference))
        return result(self, sums, source_N, resampling_weights(len(reference), 1000, 0), protocol)


class Psnr(FutureMetric):
    """Pooled PSNR over all pixels of the future."""

    name, label = "psnr", "PSNR, full frame"

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        error_NF = np.stack([_squared_error(a, b).sum((1, 2, 3)) for a, b in _futures(reference, generated, prefix_frames)])
        return FrameSums(total_NF=error_NF, count_NF=np.full(error_NF.shape, float(np.prod(reference.shape[2:]))), decibel=True)


class FramePsnr(FutureMetric):
    """The mean over frames of each frame's PSNR (a perfect frame counts 100 dB)."""

    name, label = "psnr_per_frame", "PSNR, mean of frames"

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        pooled = Psnr().sums(reference, generated, prefix_frames)
        values_NF = decibels(pooled.total_NF / pooled.count_NF)
        return FrameSums(total_NF=values_NF, count_NF=np.ones_like(values_NF), decibel=False)


class MovingPsnr(FutureMetric):
    """Pooled PSNR over the pixels that move in the true clip (`moving.py`). Clips in which nothing moves do not count."""

    name, label = "psnr_moving", "PSNR, moving pixels"

    def parameters(self) -> Mapping[str, Any]:
        return {"threshold": THRESHOLD, "dilation": DILATION}

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        mask_NHW = moving_mask(reference, prefix_frames)
        pairs = zip(mask_NHW, _futures(reference, generated, prefix_frames), strict=True)
        total_NF = np.stack([_squared_error(a, b)[:, mask].sum((1, 2)) for mask, (a, b) in pairs])
        count_N = 3.0 * mask_NHW.sum((1, 2))
        return FrameSums(total_NF=total_NF, count_NF=np.broadcast_to(count_N[:, None], total_NF.shape), decibel=True)


class Ssim(FutureMetric):
    """Mean SSIM of frames, scikit-image's defaults."""

    name, label, unit, perfect = "ssim", "SSIM, 7x7 window", "", 1.0

    def parameters(self) -> Mapping[str, Any]:
        return {"window": SSIM_WINDOW, "kernel": "uniform", "covariance": "sample", "k1": 0.01, "k2": 0.03}

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        return self.all_sums(reference, {"": generated}, prefix_frames)[""]

    def all_sums(self, reference: np.ndarray, candidates: Mapping[str, np.ndarray], prefix_frames: int) -> dict[str, FrameSums]:
        """The windows of the true frames are summed once for all candidates."""
        check_ssim_size(reference)
        values = {name: np.empty((len(reference), reference.shape[1] - prefix_frames)) for name in candidates}
        for i, clip in enumerate(reference):
            true = window_sums(clip[prefix_frames:])
            for name, clips in candidates.items():
                values[name][i] = ssim_of(true, clips[i, prefix_frames:])
        return {n: FrameSums(total_NF=v_NF, count_NF=np.ones_like(v_NF), decibel=False) for n, v_NF in values.items()}


class CentroidError(FutureMetric):
    """Mean distance in pixels between an object's true and generated centroid, over frames in which it is visible in the truth.

    An object that is gone from the generated frame counts as if it were at the picture's centre. With `moved_px`, only clips
    in which the true object moves at least so far from the last prefix frame to the last frame.
    """

    unit = "px"
    better: Better = "lower"
    perfect = 0.0

    def __init__(self, thing: ColourObject, moved_px: float = 0.0) -> None:
        self.thing, self.moved_px = thing, moved_px
        self.name = f"centroid_error_{thing.name}" + ("_moved" if moved_px else "")
        self.label = f"{'Moved ' * bool(moved_px)}{thing.name} position error".capitalize()

    def parameters(self) -> Mapping[str, Any]:
        return {"object": self.thing.name, "moved_px": self.moved_px, "visible": VISIBLE, "gone": "centre"}

    def sums(self, reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> FrameSums:
        totals, counts = [], []
        for true, made in zip(reference, generated, strict=True):
            xy, mass = centroids(true[prefix_frames - 1 :], self.thing)
            made_xy, _ = centroids(made[prefix_frames:], self.thing)
            moved = np.linalg.norm(xy[-1] - xy[0]) >= self.moved_px
            visible = (mass[1:] >= VISIBLE) & moved
            totals.append(np.linalg.norm(made_xy - xy[1:], axis=-1) * visible)
            counts.append(visible.astype(float))
        return FrameSums(total_NF=np.stack(totals), count_NF=np.stack(counts), decibel=False)


METRICS: dict[str, VideoMetric] = {
    metric.name: metric
    for metric in (
        MovingPsnr(),
        Psnr(),
        FramePsnr(),
        Ssim(),
        CentroidError(PUSHER),
        CentroidError(BLOCK),
        CentroidError(BLOCK, moved_px=3.0),
    )
}


def result(
    metric: VideoMetric, sums: ClipSums, source_N: np.ndarray, weights_RG: np.ndarray, protocol: str, note: str = ""
) -> MetricResult:
    """A row: value, interval over the sources of the clips, and what has to be said about them."""
    low, high = interval(sums.by_source(source_N), weights_RG)
    left_out = len(sums.count_N) - sums.n
    notes = [note] if note else []
    if sums.n == 0:
        notes.append("no clip has anything to score here")
    elif left_out:
        notes.append(f"{left_out} of {len(sums.count_N)} clips have nothing to score here")
    if sums.n and (few := few_draws(source_N[sums.count_N > 0])):
        notes.append(few)
    return MetricResult(
        name=metric.name,
        value=sums.value(),
        n=sums.n,
        low=low,
        high=high,
        tier=metric.tier,
        protocol=protocol,
        note="; ".join(notes),
    )


def reference_id(reference: np.ndarray) -> str:
    """A hash of the true clips: other pixels, other protocol."""
    return hashlib.sha256(np.ascontiguousarray(reference).data).hexdigest()[:16]


class Hashable(Protocol):
    """What a protocol hash needs to know of a metric."""

    name: str

    def parameters(self) -> Mapping[str, Any]: ...


def protocol_hash(
    metric: Hashable, reference: str, prefix_frames: int, frames: tuple[int, int], extra: Mapping[str, Any] | None = None
) -> str:
    """What has to be equal for two numbers to be comparable: the metric to the letter, the true clips, which frames count."""
    parts = {"metric": metric.name, "parameters": dict(metric.parameters()), "reference": reference}
    return stable_hash({**parts, "prefix_frames": prefix_frames, "frames": frames, "extra": dict(extra or {})})


def check_clips(reference: np.ndarray, generated: np.ndarray, prefix_frames: int, name: str = "generated") -> None:
    """Raise DataError unless both are uint8 (N, T, H, W, 3) of one shape with at least one frame after the prefix."""
    for what, clips in (("reference", reference), (name, generated)):
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or len(clips) == 0:
            raise DataError(
                f"{what!r} must be uint8 clips (N, T, H, W, 3) with N >= 1, got {clips.dtype} {clips.shape}.",
                "Stack the frames of every clip; all clips need one size and length.",
            )
    if reference.shape != generated.shape:
        raise DataError(
            f"{name!r} has shape {generated.shape}, the reference {reference.shape}.",
            "Candidates need the reference's number of clips, frames (prefix included) and size.",
        )
    if not 1 <= prefix_frames < reference.shape[1]:
        raise DataError(
            f"prefix_frames is {prefix_frames!r}, the clips have {reference.shape[1]} frames: nothing is left to score.",
            f"Use 1 to {reference.shape[1] - 1}.",
        )


def _futures(reference: np.ndarray, generated: np.ndarray, prefix_frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(a[prefix_frames:], b[prefix_frames:]) for a, b in zip(reference, generated, strict=True)]


def _squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact for uint8 inputs; float64 so that sums stay exact too."""
    return np.square(a.astype(np.int32) - b.astype(np.int32)).astype(np.float64)
