"""Dissolves, and fades without blank frames: frames that are mixtures of the two shots.

Axis legend: T frames, H height, W width, N pixels.

A dissolve is linear in its two shots (frame = (1 - a) A + a B, a from 0 to 1): its middle frame is the average of the ends, and
has less contrast than either; a moving camera has neither property. The span is where the fitted `a` rises.
"""

import numpy as np

from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.shots_pictures import block_difference, blocks_with_margin
from worldfoundry.curation.shots_types import Kind, Transition, probability

SAME_SCENE = 0.85  # correlation after the best shift (measured: dissolves up to 0.80, pans and changes of light from 0.90)
LOOSE = 0.9  # candidates are looked at from this part of every threshold on


def find_dissolves(luma_THW: np.ndarray, start: int, end: int, fps: float, config: ShotConfig) -> list[Transition]:
    """Dissolves within one stretch without cuts, at several lengths, best evidence first; doubtful ones (below 0.5) among them."""
    halves = sorted({round(half_s * fps) for half_s in config.dissolve_half_s} - {0, 1})
    found: list[Transition] = []
    for block, low, high in blocks_with_margin(start, end, 3 * max(halves, default=0)):
        stretch_THW = luma_THW[low:high]
        candidates = [c for half in halves for c in _candidates(stretch_THW, half, config) if c[1] + low in block]
        doubtful: list[Transition] = []
        for _, centre, half, strength in sorted(candidates, reverse=True):
            first, last = _ramp_span(stretch_THW, centre, half)
            if any(first + low < other.end + half and other.start - half < last + low for other in found):
                continue
            kind, fit = _ramp_kind(stretch_THW, first, last, config)
            # The same scene at two brightnesses is a fade where a stretch begins or ends, else a change of light.
            at_edge = first + low <= start + 1 or last + low >= end - 1
            fits = config.dissolve_min_s * fps <= last - first <= config.dissolve_max_s * fps
            if not fits or (kind == "fade" and not at_edge):
                continue
            p = probability(min(strength, fit))
            if p < 0.5 and (kind == "fade" or p < 0.5 * LOOSE):
                continue
            (found if p >= 0.5 else doubtful).append(Transition(kind=kind, start=first + low, end=last + low, confidence=p))
        for weak in sorted(doubtful, key=lambda transition: -transition.confidence):
            if not any(weak.start < other.end and other.start < weak.end for other in found):
                found.append(weak)
    return found


def _candidates(luma_THW: np.ndarray, half: int, config: ShotConfig) -> list[tuple[float, int, int, float]]:
    """(rank, centre, half, strength) where the middle frame is like an even mixture of the frames `half` away on both sides."""
    if half < 2 or len(luma_THW) < 2 * half + 1:
        return []
    centres = np.arange(half, len(luma_THW) - half, max(1, half // 12))
    apart = np.abs(luma_THW[centres + half] - luma_THW[centres - half]).mean(axis=(1, 2))
    # Motion can only lower the difference, so most of a calm video is settled without looking for it.
    centres = centres[apart > LOOSE * config.dissolve_threshold]
    if not len(centres):
        return []
    before, middle, after = luma_THW[centres - half], luma_THW[centres], luma_THW[centres + half]
    distance = block_difference(after, before)
    mixture_error = np.abs(middle - (before + after) / 2).mean(axis=(1, 2)) / np.maximum(
        np.abs(after - before).mean(axis=(1, 2)), 1
    )
    power = (before.var(axis=(1, 2)) + after.var(axis=(1, 2))) / 2 + 1
    contrast_kept = (middle.var(axis=(1, 2)) + 1) / power
    rank = distance * (1.5 - mixture_error) * (1.5 - contrast_kept)
    strength = np.minimum(distance / config.dissolve_threshold, config.dissolve_mixture_error / (mixture_error + 1e-3))
    strength = np.minimum(strength, config.dissolve_contrast_kept / contrast_kept)
    return [(float(rank[i]), int(centres[i]), half, float(strength[i])) for i in np.flatnonzero(strength > LOOSE)]


def _ramp_kind(luma_THW: np.ndarray, first: int, last: int, config: ShotConfig) -> tuple[Kind, float]:
    """(kind, strength): a dissolve if every frame is a mixture of the ends, in even steps, and these are different pictures.

    A fade if the ends are the same picture at two brightnesses. The strength falls below 1 if anything moves.
    """
    low, high = max(first - 1, 0), min(last, len(luma_THW) - 1)
    ramp_TN = luma_THW[low : high + 1].reshape(high + 1 - low, -1)
    before, direction = ramp_TN[0], ramp_TN[-1] - ramp_TN[0]
    weight_T = (ramp_TN - before) @ direction / (direction @ direction + 1e-6)
    error = np.abs(ramp_TN - before - weight_T[:, None] * direction)[1:-1].mean() / (np.abs(direction).mean() + 1e-6)
    unevenness = np.abs(weight_T - np.linspace(0, 1, len(weight_T))).max()
    strength = config.dissolve_ramp_error / (max(float(error), float(unevenness)) + 1e-3)
    return ("dissolve" if likeness(luma_THW[low], luma_THW[high]) < SAME_SCENE else "fade"), strength


def likeness(a_HW: np.ndarray, b_HW: np.ndarray, reach: tuple[int, int] = (4, 8)) -> float:
    """Largest correlation of two pictures over shifts of up to a quarter of the picture: blind to light and camera pans."""
    H, W = a_HW.shape
    best = -1.0
    for dy in range(-reach[0], reach[0] + 1):
        for dx in range(-reach[1], reach[1] + 1):
            a = a_HW[max(dy, 0) : H + min(dy, 0), max(dx, 0) : W + min(dx, 0)]
            b = b_HW[max(-dy, 0) : H + min(-dy, 0), max(-dx, 0) : W + min(-dx, 0)]
            a, b = a - a.mean(), b - b.mean()
            best = max(best, float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-6)))
    return best


def _ramp_span(luma_THW: np.ndarray, centre: int, half: int) -> tuple[int, int]:
    """[first, last) over which the mixing weight keeps rising, walking outwards from the centre."""
    before, after = luma_THW[centre - half], luma_THW[centre + half]
    low, high = max(0, centre - 3 * half), min(len(luma_THW), centre + 3 * half + 1)
    direction = (after - before).ravel()
    weight_T = (luma_THW[low:high].reshape(high - low, -1) - before.ravel()) @ direction / (direction @ direction + 1e-6)
    slope_T = np.convolve(np.diff(weight_T), np.ones(3) / 3, mode="same")  # slope_T[i]: from frame low + i to low + i + 1
    middle = centre - low
    steep = 0.25 * max(float(np.median(slope_T[max(0, middle - half // 2) : middle + half // 2 + 1])), 1e-6)
    first = middle
    while first > 0 and slope_T[first - 1] > steep:
        first -= 1
    last = middle
    while last < len(slope_T) and slope_T[last] > steep:
        last += 1
    return low + first, low + last + 1
