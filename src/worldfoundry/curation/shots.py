"""Shot transitions from low-resolution frames: hard cuts, fades through black or white, dissolves; flashes are not transitions.

Axis legend: T frames, H height, W width, C = 3 (RGB), N blocks of the picture.

Every test compares pictures on a tiny grid (18 x 32) after letting each block move by a pixel or two, so that a camera
movement costs little and a change of scene costs much. `change` is in luma levels, 0 to 255.

- A cut is a change far above an absolute level and far above what the frames around it do. If the picture comes back
  within a quarter of a second, it was a flash.
- A fade runs through blank frames (nearly uniform and nearly black or white), extended over the ramps on both sides.
- A dissolve is linear in its two shots (frame = (1 - a) A + a B, a from 0 to 1): its middle frame is the average of the
  ends, and has less contrast than either; a moving camera has neither property. The span is where the fitted `a` rises.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from worldfoundry.curation.config import ShotConfig

Kind = Literal["cut", "fade", "dissolve"]
BAR_LUMA = 24  # what never gets brighter is a black bar
SAME_SCENE = 0.85  # correlation after the best shift (measured: dissolves up to 0.80, pans and changes of light from 0.90)


@dataclass(frozen=True, kw_only=True)
class Transition:
    """Frames [start, end) belong to neither shot; `end` is the first frame of the new one. A cut has start == end."""

    kind: Kind
    start: int
    end: int
    confidence: float


def find_transitions(rgb_THWC: np.ndarray, fps: float, config: ShotConfig) -> list[Transition]:
    """Transitions in order, never overlapping. `rgb_THWC` is uint8 (T, 18, 32, 3); `fps` turns seconds into frames."""
    if len(rgb_THWC) < 2:
        return []
    luma_THW = to_luma(rgb_THWC)
    change_T = np.concatenate([np.zeros(1, np.float32), scene_change(rgb_THWC[1:], rgb_THWC[:-1])])
    fades = _find_fades(luma_THW, change_T, fps, config)
    cuts = _find_cuts(rgb_THWC, change_T, fps, config)
    cuts = [cut for cut in cuts if not any(fade.start - 1 <= cut.start <= fade.end + 1 for fade in fades)]
    hard = sorted(fades + cuts, key=lambda transition: transition.start)
    return sorted(hard + _find_dissolves(luma_THW, hard, fps, config), key=lambda transition: transition.start)


def to_luma(rgb_THWC: np.ndarray) -> np.ndarray:
    """float32 luma (BT.601 weights), 0 to 255."""
    return rgb_THWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def scene_change(a_THWC: np.ndarray, b_THWC: np.ndarray) -> np.ndarray:
    """How different the pictures a[t] and b[t] are (float32, T): luma after block motion plus half the change of colour."""
    a_luma_THW, b_luma_THW = to_luma(a_THWC), to_luma(b_THWC)
    colour_THWC = (a_THWC - a_luma_THW[..., None]) - (b_THWC - b_luma_THW[..., None])
    return block_difference(a_luma_THW, b_luma_THW) + 0.5 * np.abs(colour_THWC).mean(axis=(1, 2, 3))


def block_difference(a_THW: np.ndarray, b_THW: np.ndarray) -> np.ndarray:
    """Mean over 6 x 8 blocks of the least mean absolute difference when a block of `b` may move by (1, 2) pixels."""
    T, H, W = a_THW.shape
    padded = np.pad(b_THW, ((0, 0), (1, 1), (2, 2)), mode="edge")
    least_TN = np.full((T, H // 6, W // 8), np.inf, np.float32)
    for dy in range(3):
        for dx in range(5):
            difference = np.abs(a_THW - padded[:, dy : dy + H, dx : dx + W])
            np.minimum(least_TN, difference.reshape(T, H // 6, 6, W // 8, 8).mean(axis=(2, 4)), out=least_TN)
    return least_TN.mean(axis=(1, 2))


# --- cuts ----------------------------------------------------------------------------------------------------------


def _find_cuts(rgb_THWC: np.ndarray, change_T: np.ndarray, fps: float, config: ShotConfig) -> list[Transition]:
    reach = max(2, round(config.flash_s * fps))
    cuts: list[Transition] = []
    for t in np.flatnonzero(change_T >= min(config.cut_threshold, config.jump_threshold)):
        around = _local_activity(change_T, int(t), reach)
        strength = max(
            change_T[t] / max(config.cut_threshold, config.cut_ratio * around),
            change_T[t] / max(config.jump_threshold, config.jump_ratio * around),
        )
        if strength < 1 or _is_flash(rgb_THWC, change_T, int(t), reach):
            continue
        cut = Transition(kind="cut", start=int(t), end=int(t), confidence=_confidence(strength))
        if cuts and t - cuts[-1].end < reach:  # two cuts within a flash's length enclose no shot worth having
            previous = cuts.pop()
            cut = Transition(kind="cut", start=previous.start, end=cut.end, confidence=max(previous.confidence, cut.confidence))
        cuts.append(cut)
    return cuts


def _local_activity(change_T: np.ndarray, t: int, reach: int) -> float:
    """What the frames beside t do: the second largest change on each side, so that one neighbouring cut does not count."""
    sides = change_T[max(1, t - reach) : t], change_T[t + 1 : t + 1 + reach]
    return max((float(np.sort(side)[-2:][0]) for side in sides if len(side) > 1), default=0.0)


def _is_flash(rgb_THWC: np.ndarray, change_T: np.ndarray, t: int, reach: int) -> bool:
    """True if a frame soon after t looks like the frame before it, or a frame well before looks like t."""

    def least_change(frames_THWC: np.ndarray, frame: int) -> float:
        return scene_change(frames_THWC, np.repeat(rgb_THWC[frame : frame + 1], len(frames_THWC), axis=0)).min(initial=np.inf)

    after, before = rgb_THWC[t + 1 : t + 1 + reach], rgb_THWC[max(0, t - 1 - reach) : t - 1]
    return min(least_change(after, t - 1), least_change(before, t)) < 0.5 * change_T[t]


def _confidence(strength: float) -> float:
    """0.5 at the threshold, towards 1 above it."""
    return round(float(1 - 0.5 / max(strength, 1.0)), 4)


# --- fades ---------------------------------------------------------------------------------------------------------


def _find_fades(luma_THW: np.ndarray, change_T: np.ndarray, fps: float, config: ShotConfig) -> list[Transition]:
    picture_THW = _without_bars(luma_THW)
    mean_T, contrast_T = picture_THW.mean(axis=(1, 2)), picture_THW.std(axis=(1, 2))
    dark_T, bright_T = mean_T < config.blank_luma, mean_T > 255 - config.blank_luma
    # Between black and white (a dip to fog or colour) a frame must be more nearly uniform to count.
    blank_T = contrast_T < np.where(dark_T | bright_T, config.blank_contrast, 0.5 * config.blank_contrast)
    longest, flash = round(config.fade_s * fps), max(2, round(config.flash_s * fps))
    fades: list[Transition] = []
    for first, stop in _runs(blank_T):
        if not dark_T[first] and stop - first <= flash and _same_scene(luma_THW, first - 1, stop, change_T):
            continue
        start = _walk_ramp(contrast_T, first, -1, longest, fades[-1].end if fades else 0)
        end = _walk_ramp(contrast_T, stop - 1, 1, longest, len(luma_THW) - 1) + 1
        ramped = max(first - start, end - stop) >= 3
        start, end = (start, end) if ramped else (first, stop)
        fades.append(Transition(kind="fade" if ramped else "cut", start=start, end=end, confidence=0.95))
    return _merge_touching(fades)


def _without_bars(luma_THW: np.ndarray) -> np.ndarray:
    """Leave out rows and columns that are black in every frame (letterbox), and those beside them, which hold some of both."""
    brightest_HW = luma_THW.max(axis=0)

    def inner(brightest: np.ndarray) -> np.ndarray:
        lit = np.concatenate([[True], brightest > BAR_LUMA, [True]])
        return lit[1:-1] & lit[:-2] & lit[2:]

    rows, columns = inner(brightest_HW.max(axis=1)), inner(brightest_HW.max(axis=0))
    return luma_THW[:, rows][:, :, columns] if rows.any() and columns.any() else luma_THW


def _walk_ramp(contrast_T: np.ndarray, edge: int, step: int, longest: int, limit: int) -> int:
    """From the edge of a blank run, go on while contrast keeps rising; returns the last frame of the ramp."""
    t = edge
    while abs(t - edge) < longest and (limit - t) * step > 0 and contrast_T[t + step] > 1.02 * contrast_T[t] + 0.1:
        t += step
    return t


def _same_scene(luma_THW: np.ndarray, before: int, after: int, change_T: np.ndarray) -> bool:
    if before < 0 or after >= len(luma_THW):
        return False
    difference = block_difference(luma_THW[after : after + 1], luma_THW[before : before + 1])[0]
    return bool(difference < 0.5 * change_T[before + 1])


def _merge_touching(fades: list[Transition]) -> list[Transition]:
    merged: list[Transition] = []
    for fade in fades:
        if merged and fade.start <= merged[-1].end:
            last = merged.pop()
            fade = Transition(kind="fade", start=last.start, end=fade.end, confidence=fade.confidence)
        merged.append(fade)
    return merged


def _runs(mask_T: np.ndarray) -> list[tuple[int, int]]:
    """Half-open spans of consecutive True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask_T.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


# --- dissolves -----------------------------------------------------------------------------------------------------


def _find_dissolves(luma_THW: np.ndarray, hard: list[Transition], fps: float, config: ShotConfig) -> list[Transition]:
    """Search each stretch between hard transitions on its own, at several lengths, best evidence first."""
    found = []
    for start, end in spans_between(hard, len(luma_THW)):
        stretch_THW = luma_THW[start:end]
        candidates = [c for half_s in config.dissolve_half_s for c in _candidates(stretch_THW, round(half_s * fps), config)]
        taken: list[Transition] = []
        for score, centre, half in sorted(candidates, reverse=True):
            first, last = _ramp_span(stretch_THW, centre, half)
            if any(first < other.end + half and other.start - half < last for other in taken):
                continue
            kind = _ramp_kind(stretch_THW, first, last, config)
            if kind and config.dissolve_min_s * fps <= last - first <= config.dissolve_max_s * fps:
                confidence = _confidence(score / config.dissolve_threshold)
                taken.append(Transition(kind=kind, start=first, end=last, confidence=confidence))
        found += [replace(t, start=t.start + start, end=t.end + start) for t in taken]
    return found


def _ramp_kind(luma_THW: np.ndarray, first: int, last: int, config: ShotConfig) -> Kind | None:
    """A dissolve if every frame of the ramp is a mixture of its ends, in even steps, and the ends are different pictures.

    The same picture at two brightnesses is a fade if it begins or ends the stretch, else a change of light within a shot.
    """
    low, high = max(first - 1, 0), min(last, len(luma_THW) - 1)
    ramp_TN = luma_THW[low : high + 1].reshape(high + 1 - low, -1)
    before, direction = ramp_TN[0], ramp_TN[-1] - ramp_TN[0]
    weight_T = (ramp_TN - before) @ direction / (direction @ direction + 1e-6)
    error = np.abs(ramp_TN - before - weight_T[:, None] * direction)[1:-1].mean() / (np.abs(direction).mean() + 1e-6)
    unevenness = np.abs(weight_T - np.linspace(0, 1, len(weight_T))).max()
    if error > config.dissolve_ramp_error or unevenness > config.dissolve_ramp_error:
        return None
    if _likeness(luma_THW[low], luma_THW[high]) < SAME_SCENE:
        return "dissolve"
    return "fade" if low == 0 or high == len(luma_THW) - 1 else None


def _likeness(a_HW: np.ndarray, b_HW: np.ndarray, reach: tuple[int, int] = (4, 8)) -> float:
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


def _candidates(luma_THW: np.ndarray, half: int, config: ShotConfig) -> list[tuple[float, int, int]]:
    """(score, centre, half) where the middle frame looks like an even mixture of the frames `half` away on both sides."""
    if half < 2 or len(luma_THW) < 2 * half + 1:
        return []
    before, middle, after = luma_THW[: -2 * half], luma_THW[half:-half], luma_THW[2 * half :]
    distance = block_difference(after, before)
    mixture_error = np.abs(middle - (before + after) / 2).mean(axis=(1, 2)) / np.maximum(
        np.abs(after - before).mean(axis=(1, 2)), 1
    )
    power = (before.var(axis=(1, 2)) + after.var(axis=(1, 2))) / 2 + 1
    contrast_kept = (middle.var(axis=(1, 2)) + 1) / power
    good = (
        (distance > config.dissolve_threshold)
        & (mixture_error < config.dissolve_mixture_error)
        & (contrast_kept < config.dissolve_contrast_kept)
    )
    score = distance * (1.5 - mixture_error) * (1.5 - contrast_kept)
    return [(float(score[i]), int(i) + half, half) for i in np.flatnonzero(good)]


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


def spans_between(transitions: list[Transition], num_frames: int) -> list[tuple[int, int]]:
    """The shots: half-open frame spans left between transitions, empty ones dropped."""
    edges = [0, *(edge for transition in transitions for edge in (transition.start, transition.end)), num_frames]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
