"""Score any number of candidates for the same futures: per metric, candidate and horizon, paired with copy-last-frame.

Axis legend: N clips, G sources of clips, T frames (prefix included), H height, W width, C = 3 (RGB). Clips are uint8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.contracts import MetricResult
from worldfoundry.core.errors import DataError, did_you_mean
from worldfoundry.core.files import write_json
from worldfoundry.evaluation.baselines import BACKGROUND, COPY_LAST, background_control, copy_last_frame
from worldfoundry.evaluation.bootstrap import paired_difference, resampling_weights, source_indices
from worldfoundry.evaluation.distributions import DistributionMetric, check_enough
from worldfoundry.evaluation.flow import CONSTANT_VELOCITY, constant_velocity
from worldfoundry.evaluation.metrics import (
    METRICS,
    CentroidError,
    FrameSums,
    VideoMetric,
    check_clips,
    protocol_hash,
    reference_id,
    result,
)
from worldfoundry.evaluation.objects import PUSHER, VISIBLE, centroids
from worldfoundry.evaluation.results import FORMAT, row_to_dict

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number: a metric of a candidate over a horizon. The difference is candidate minus baseline on the same clips.

    `floor` is what the truth scores: true clips against other true clips for metrics that compare sets, against themselves for
    those that measure with an error of their own (`floor_sums`); nan where the truth is perfect.
    """

    candidate: str
    horizon: str
    result: MetricResult
    baseline: str
    difference: float
    difference_low: float
    difference_high: float
    floor: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which clips belong together, how often each source is drawn in each resample, and the seed."""

    source_N: np.ndarray
    weights_RG: np.ndarray
    seed: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything `evaluate_predictions` found. `curves[metric][candidate]` has one value per future frame.

    Metrics that compare sets of clips have rows for the whole future only, and no curve.
    """

    rows: tuple[Row, ...]
    metrics: tuple[VideoMetric | DistributionMetric, ...]
    candidates: tuple[str, ...]
    horizons: tuple[str, ...]
    curves: Mapping[str, Mapping[str, list[float]]]
    baseline: str
    setting: Mapping[str, Any]

    def row(self, metric: str, candidate: str, horizon: str = ALL) -> Row:
        """The row of a metric and candidate. Raises DataError with suggestions."""
        for row in self.rows:
            if (row.result.name, row.candidate, row.horizon) == (metric, candidate, horizon):
                return row
        known = sorted({f"{row.result.name} / {row.candidate} / {row.horizon}" for row in self.rows})
        wanted = f"{metric} / {candidate} / {horizon}"
        raise DataError(f"The evaluation has no row {wanted!r}.", did_you_mean(wanted, known))

    def value(self, metric: str, candidate: str, horizon: str = ALL) -> float:
        """The number alone."""
        return self.row(metric, candidate, horizon).result.value

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; numbers that do not exist (no moving pixel, one clip) are null."""
        return {
            "format": FORMAT,
            **self.setting,
            "candidates": list(self.candidates),
            "horizons": list(self.horizons),
            "rows": [row_to_dict(row) for row in self.rows],
            "curves": {
                name: {c: [_finite(v) for v in curve] for c, curve in curves.items()} for name, curves in self.curves.items()
            },
        }

    def save(self, path: Path) -> None:
        """Write results.json, whole or not at all."""
        write_json(path, self.to_dict())


def evaluate_predictions(
    reference: np.ndarray,
    candidates: Mapping[str, np.ndarray],
    prefix_frames: int,
    *,
    fps: float | None = None,
    horizons: int = 3,
    metrics: Sequence[VideoMetric | DistributionMetric] | None = None,
    baseline: str = COPY_LAST,
    groups: Sequence[object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    note: str = "",
) -> Evaluation:
    """Score candidates, uint8 (N, T, H, W, 3) with their prefix frames, against the true clips of the same shape.

    Copy-last-frame, constant velocity and the background control are added unless given under those names. The future is cut
    into `horizons` equal spans, plus all of it. `baseline` names the candidate that the others are paired with. `groups` says of
    each clip what it was cut from: clips of one source are drawn together, because they are alike, and set distances never compare
    them with each other (None = every clip stands alone). `metrics` None = all that need no weights; object positions only where
    the pusher is found in most true clips. `protocol` = further facts that make numbers comparable (held-out seeds, sampler);
    `note` is repeated in every row. Raises DataError on shapes that do not fit.
    """
    for name, clips in candidates.items():
        check_clips(reference, clips, prefix_frames, name)
    check_clips(reference, reference, prefix_frames)
    everyone = {
        **candidates,
        **{k: f(reference, prefix_frames) for k, f in CONTROLS.items() if k not in candidates},
    }
    if baseline not in everyone:
        raise DataError(f"The baseline {baseline!r} is not among the candidates.", did_you_mean(baseline, list(everyone)))
    chosen = tuple(metrics) if metrics is not None else applicable_metrics(reference)
    spans = horizon_spans(reference.shape[1] - prefix_frames, horizons)
    source_N = source_indices(groups, len(reference))
    sources = int(source_N.max()) + 1
    draws = Draws(source_N=source_N, weights_RG=resampling_weights(sources, resamples, seed), seed=seed)
    facts = {**(protocol or {}), **({"sources": source_N.tolist()} if sources < len(reference) else {})}
    identity, rows, curves = reference_id(reference), [], {}
    for metric in (m for m in chosen if not isinstance(m, DistributionMetric)):
        sums, floors = metric.all_sums(reference, everyone, prefix_frames), metric.floor_sums(reference, prefix_frames)
        curves[metric.name] = {name: table.curve() for name, table in sums.items()}
        for horizon, span in spans.items():
            frames = (prefix_frames + span.start, prefix_frames + span.stop)
            hashed = protocol_hash(metric, identity, prefix_frames, frames, facts)
            floor = float("nan") if floors is None else floors.clips(span).value()
            rows += [_row(metric, name, horizon, span, sums, baseline, draws, hashed, note, floor) for name in everyone]
    frames = (prefix_frames, reference.shape[1])
    hashes = {m.name: protocol_hash(m, identity, prefix_frames, frames, facts) for m in chosen}
    sets = [metric for metric in chosen if isinstance(metric, DistributionMetric)]
    rows += _set_rows(sets, reference, everyone, prefix_frames, baseline, draws, hashes, note)
    setting = {
        **_setting(reference, prefix_frames, draws),
        "fps": fps,
        "baseline": baseline,
        "protocol": dict(protocol or {}),
        "note": note,
    }
    return Evaluation(
        rows=tuple(rows),
        metrics=chosen,
        candidates=tuple(everyone),
        horizons=tuple(spans),
        curves=curves,
        baseline=baseline,
        setting=setting,
    )


def _setting(reference: np.ndarray, prefix_frames: int, draws: Draws) -> dict[str, Any]:
    """The clips and the intervals in words and numbers."""
    resamples, sources = draws.weights_RG.shape
    what = "clips" if sources == len(reference) else f"the {sources} sources of the clips"
    return {
        "clips": len(reference),
        "sources": sources,
        "frames": reference.shape[1],
        "prefix_frames": prefix_frames,
        "height": reference.shape[2],
        "width": reference.shape[3],
        "interval": f"95 % percentile bootstrap over {what}, {resamples} resamples, seed {draws.seed}",
    }


CONTROLS = {COPY_LAST: copy_last_frame, CONSTANT_VELOCITY: constant_velocity, BACKGROUND: background_control}


def applicable_metrics(reference: np.ndarray) -> tuple[VideoMetric, ...]:
    """All registered metrics; object positions only if the magenta pusher is visible in at least half of the true clips."""
    found = np.mean([centroids(clip[:1], PUSHER)[1][0] >= VISIBLE for clip in reference]) >= 0.5
    return tuple(metric for metric in METRICS.values() if found or not isinstance(metric, CentroidError))


def horizon_spans(future_frames: int, horizons: int) -> dict[str, slice]:
    """Equal spans of the future by name (`+1–4` = the first to the fourth generated frame), then `all`."""
    edges = np.linspace(0, future_frames, min(horizons, future_frames) + 1).round().astype(int).tolist()
    spans = {}
    for start, stop in pairwise(edges):
        spans[f"+{start + 1}" + (f"–{stop}" if stop > start + 1 else "")] = slice(start, stop)
    return {**(spans if len(spans) > 1 else {}), ALL: slice(0, future_frames)}


def _row(
    metric: VideoMetric,
    name: str,
    horizon: str,
    span: slice,
    sums: Mapping[str, FrameSums],
    baseline: str,
    draws: Draws,
    protocol: str,
    note: str,
    floor: float,
) -> Row:
    mine, other = sums[name].clips(span), sums[baseline].clips(span)
    source_N = draws.source_N
    difference, low, high = paired_difference(mine.by_source(source_N), other.by_source(source_N), draws.weights_RG)
    return Row(
        candidate=name,
        horizon=horizon,
        result=result(metric, mine, draws.source_N, draws.weights_RG, protocol, note),
        baseline=baseline,
        difference=difference,
        difference_low=low,
        difference_high=high,
        floor=floor,
    )


def _set_rows(
    metrics: Sequence[DistributionMetric],
    reference: np.ndarray,
    everyone: Mapping[str, np.ndarray],
    prefix_frames: int,
    baseline: str,
    draws: Draws,
    hashes: Mapping[str, str],
    note: str,
) -> list[Row]:
    """Rows of the metrics that compare sets; a network that several of them use looks at each set once."""
    rows, seen = [], {}
    for metric in metrics:
        check_enough(reference, metric.name)
        network = metric.extractor.name
        if network not in seen:
            sets = {"": reference, **everyone}
            seen[network] = {name: metric.extractor(clips[:, prefix_frames:]) for name, clips in sets.items()}
        true, estimates = seen[network][""], {}
        for name in everyone:
            estimates[name] = metric.estimate(true, seen[network][name], draws.source_N, draws.weights_RG)
        floor = metric.floor(true, draws.source_N, draws.seed)
        for name, estimate in estimates.items():
            difference, low, high = estimate.minus(estimates[baseline])
            rows.append(
                Row(
                    candidate=name,
                    horizon=ALL,
                    result=metric.result(estimate, draws.source_N, hashes[metric.name], note),
                    baseline=baseline,
                    difference=difference,
                    difference_low=low,
                    difference_high=high,
                    floor=floor,
                )
            )
    return rows


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
