"""The contract checker for metrics: run it on your own metric before you trust a number of it.

The test scene is a magenta and a green square that move over gray noise, so that every metric here has something to score.
Axis legend: N clips, T frames, H height, W width, C = 3 (RGB). Clips are uint8.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from worldfoundry.core.contracts import Metric, MetricResult, Tier
from worldfoundry.core.errors import DataError, WorldFoundryError

PREFIX = 2
NOISE = (4.0, 12.0, 36.0)  # standard deviations, of 255 levels
OFFSET = 10  # levels that are added to every pixel
SHIFT = 3  # pixels that the generated objects are moved to the right
TOLERANCE = 1e-6
DECLARED = ("name", "inputs", "tier", "better", "perfect")

# Known answers. PSNR of a constant error d is 20 log10(255 / d), however it is pooled; an object's centroid error is its shift.
CLOSED_FORMS = {
    "psnr": ("offset", 20 * math.log10(255 / OFFSET)),
    "psnr_per_frame": ("offset", 20 * math.log10(255 / OFFSET)),
    "psnr_moving": ("offset", 20 * math.log10(255 / OFFSET)),
    "centroid_error_pusher": ("shift", float(SHIFT)),
    "centroid_error_block": ("shift", float(SHIFT)),
    "centroid_error_block_moved": ("shift", float(SHIFT)),
}


class MetricContractError(WorldFoundryError):
    """A metric breaks the contract that evaluation relies on."""


def check_metric(metric: Metric) -> None:
    """Score clips whose answers are known. Raises MetricContractError that lists every breach.

    Checked: the result's form, the perfect score for the truth itself, closed forms where the name has one, that more noise
    never scores better, determinism, untouched inputs, a protocol hash that follows the reference, refusal of other shapes.
    """
    truth = moving_squares()
    breaches = list(_check_result(metric, truth))
    if not breaches:  # the others read the fields of a good result
        for check in (_check_perfect, _check_noise, _check_closed_form, _check_repeatable, _check_refuses):
            breaches += check(metric, truth)
    if breaches:
        raise MetricContractError(f"{getattr(metric, 'name', metric)!r} breaks the metric contract: {'; '.join(breaches)}.")


def moving_squares(shift: int = 0, clips: int = 10, seed: int = 0) -> np.ndarray:
    """uint8 (N, 8, 48, 48, 3): the test scene, with the squares `shift` pixels further right."""
    rng = np.random.default_rng(seed)
    made = np.empty((clips, 8, 48, 48, 3), np.uint8)
    for clip in made:
        clip[:] = rng.integers(90, 130, (48, 48, 1))
        x, y = rng.integers(2, 6, 2)
        for t, frame in enumerate(clip):
            frame[4 + y : 14 + y, x + 2 * t + shift : x + 2 * t + 8 + shift] = (230, 20, 230)
            frame[22 + y : 34 + y, x + 3 * t + shift : x + 3 * t + 10 + shift] = (20, 210, 20)
    return made


def _check_result(metric: Metric, truth: np.ndarray) -> Iterator[str]:
    missing = [name for name in DECLARED if not hasattr(metric, name)]
    if missing:
        yield f"it does not declare {', '.join(missing)}"
        return
    result = _score(metric, truth, _noisy(truth, NOISE[0]))
    if not isinstance(result, MetricResult):
        yield f"it returns {type(result).__name__}, not MetricResult"
        return
    if result.name != metric.name:
        yield f"the result is named {result.name!r}"
    if result.tier != metric.tier or result.tier not in get_args(Tier):
        yield f"the tier of the result is {result.tier!r}, of the metric {metric.tier!r}"
    if not isinstance(result.value, float) or not math.isfinite(result.value):
        yield f"the value is {result.value!r}"
    elif not result.low <= result.value <= result.high:
        yield f"the value {result.value:g} is outside its interval [{result.low:g}, {result.high:g}]"
    if result.n != len(truth):
        yield f"n is {result.n!r} for {len(truth)} clips that all have something to score"
    if not result.protocol:
        yield "the protocol hash is empty"


def _check_perfect(metric: Any, truth: np.ndarray) -> Iterator[str]:
    value = _score(metric, truth, truth).value
    if abs(value - metric.perfect) > TOLERANCE:
        yield f"the truth itself scores {value:g}, the declared perfect score is {metric.perfect:g}"


def _check_noise(metric: Any, truth: np.ndarray) -> Iterator[str]:
    values = [_score(metric, truth, _noisy(truth, sigma)).value for sigma in (0.0, *NOISE)]
    sign = 1 if metric.better == "higher" else -1
    if not all(sign * (before - after) > 0 for before, after in pairwise(values)):
        yield f"noise of 0, {', '.join(f'{s:g}' for s in NOISE)} levels scores {', '.join(f'{v:.4g}' for v in values)}"


def _check_closed_form(metric: Metric, truth: np.ndarray) -> Iterator[str]:
    if metric.name in CLOSED_FORMS:
        damage, want = CLOSED_FORMS[metric.name]
        made = truth + np.uint8(OFFSET) if damage == "offset" else moving_squares(SHIFT)
        value = _score(metric, truth, made).value
        if abs(value - want) > TOLERANCE:
            yield f"{damage} scores {value:.8g}, the closed form is {want:.8g}"


def _check_repeatable(metric: Metric, truth: np.ndarray) -> Iterator[str]:
    made = _noisy(truth, NOISE[0])
    copies = truth.copy(), made.copy()
    first = _score(metric, truth, made)
    if not (np.array_equal(truth, copies[0]) and np.array_equal(made, copies[1])):
        yield "it changes its inputs"
    if replace(_score(metric, *copies), note="") != replace(first, note=""):
        yield "it gives two results for the same clips"
    if _score(metric, moving_squares(seed=1), made).protocol == first.protocol:
        yield "its protocol hash is the same for another reference"


def _check_refuses(metric: Metric, truth: np.ndarray) -> Iterator[str]:
    for what, made in (("fewer frames", truth[:, :-1]), ("fewer clips", truth[:-1]), ("float clips", truth.astype(np.float32))):
        try:
            _score(metric, truth, made)
        except DataError:
            continue
        yield f"it scores {what} without complaint"


def _score(metric: Metric, reference: np.ndarray, generated: np.ndarray) -> MetricResult:
    return metric(reference=reference, generated=generated, prefix_frames=PREFIX)


def _noisy(clips: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(7).normal(0, 1, clips.shape) * sigma
    return np.clip(np.round(clips + noise), 0, 255).astype(np.uint8)
