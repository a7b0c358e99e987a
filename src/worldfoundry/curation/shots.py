"""Shot transitions from low-resolution frames: cuts, fades through black or white, dissolves, wipes; flashes are none.

Axis legend: T frames, H height, W width, C = 3 (RGB).

The fast detector compares pictures on a tiny grid (18 x 32) after letting each block move by a pixel or two, so that a
camera movement costs little and a change of scene costs much.

- A cut is a change far above an absolute level and far above what the frames around it do. If the picture comes back
  within a quarter of a second, it was a flash.
- A fade runs through blank frames (nearly uniform and nearly black or white), extended over the ramps on both sides.
- Wipes and dissolves are in files of their own.

What it is unsure of (evidence near a threshold) is put to a network, which sees the frames around at 27 x 48, unless that is off.
"""

from dataclasses import replace

import numpy as np

from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.shots_dissolves import find_dissolves
from worldfoundry.curation.shots_network import Network, judge
from worldfoundry.curation.shots_pictures import in_blocks, luma_change, runs, scene_change, shrink, to_luma
from worldfoundry.curation.shots_types import Kind, Transition, probability, spans_between
from worldfoundry.curation.shots_wipes import find_wipes

__all__ = ["Kind", "Transition", "find_transitions", "luma_change", "scene_change", "spans_between", "to_luma"]

BAR_LUMA = 24  # what never gets brighter is a black bar
WEAK = 0.9  # candidates for cuts are kept from this part of the threshold on


def find_transitions(rgb_THWC: np.ndarray, fps: float, config: ShotConfig, network: Network | None = None) -> list[Transition]:
    """Transitions in order, never overlapping. `rgb_THWC` is uint8 (T, 18, 32, 3) or larger; `fps` turns seconds into frames.

    With a `network`, pictures must be (T, 27, 48, 3), and it decides what the fast detector doubts. Works on a block of
    frames at a time, so that a film needs little more memory than its small pictures.
    """
    if len(rgb_THWC) < 2:
        return []
    proposed = propose(shrink(rgb_THWC), fps, config)
    if network is not None:
        proposed = judge(proposed, rgb_THWC, network, config)
    return [transition for transition in proposed if transition.confidence >= 0.5]


def propose(rgb_THWC: np.ndarray, fps: float, config: ShotConfig) -> list[Transition]:
    """What the fast detector finds (confidence from 0.5 on) or is tempted by (below), in order, without overlaps."""
    luma_THW = in_blocks(to_luma, rgb_THWC)
    change_T = np.concatenate([np.zeros(1, np.float32), in_blocks(scene_change, rgb_THWC[1:], rgb_THWC[:-1])])
    fades = _find_fades(rgb_THWC, change_T, fps, config)
    cuts = _find_cuts(rgb_THWC, change_T, fades, fps, config)
    found = _merge_overlapping(fades + [cut for cut in cuts if cut.confidence >= 0.5])
    tempting = [cut for cut in cuts if cut.confidence < 0.5]
    for find in (find_wipes, find_dissolves):
        new = [t for start, end in spans_between(found, len(luma_THW)) for t in find(luma_THW, start, end, fps, config)]
        found = sorted(found + [t for t in new if t.confidence >= 0.5], key=lambda transition: transition.start)
        tempting += [t for t in new if t.confidence < 0.5]
    for weak in sorted(tempting, key=lambda transition: -transition.confidence):
        if all(weak.end + 2 < other.start or other.end + 2 < weak.start for other in found):
            found.append(weak)
    return sorted(found, key=lambda transition: transition.start)


# --- cuts ----------------------------------------------------------------------------------------------------------


def _find_cuts(
    rgb_THWC: np.ndarray, change_T: np.ndarray, fades: list[Transition], fps: float, config: ShotConfig
) -> list[Transition]:
    """Cuts in order; those with a confidence below 0.5 only tempt."""
    reach = max(2, round(config.flash_s * fps))
    cuts: list[Transition] = []
    for t in np.flatnonzero(change_T >= WEAK * min(config.cut_threshold, config.jump_threshold)).tolist():
        around = _local_activity(change_T, t, reach)
        strength = max(
            float(change_T[t]) / max(config.cut_threshold, config.cut_ratio * around),
            float(change_T[t]) / max(config.jump_threshold, config.jump_ratio * around),
        )
        in_fade = any(fade.start - 1 <= t <= fade.end + 1 for fade in fades)
        if in_fade or strength < WEAK or _is_flash(rgb_THWC, float(change_T[t]), t, reach):
            continue
        cut = Transition(kind="cut", start=t, end=t, confidence=probability(strength))
        if cuts and t - cuts[-1].end < reach:  # two cuts within a flash's length enclose no shot worth having
            previous = cuts.pop()
            surer = max(previous, cut, key=lambda transition: transition.confidence)
            both = min(previous.confidence, cut.confidence) >= 0.5
            cut = replace(surer, start=previous.start, end=cut.end) if both else surer
        cuts.append(cut)
    return cuts


def _local_activity(change_T: np.ndarray, t: int, reach: int) -> float:
    """What the frames beside t do: the second largest change on each side, so that one neighbouring cut does not count."""
    sides = change_T[max(1, t - reach) : t], change_T[t + 1 : t + 1 + reach]
    return max((float(np.sort(side)[-2:][0]) for side in sides if len(side) > 1), default=0.0)


def _is_flash(rgb_THWC: np.ndarray, change: float, t: int, reach: int) -> bool:
    """True if some frame soon after t looks like some frame shortly before it: the picture was away for a moment only."""
    pairs = [
        (before, after)
        for before in range(max(0, t - reach), t)
        for after in range(t, min(len(rgb_THWC), before + reach + 2))
        if after > before + 1
    ]
    if not pairs:
        return False
    before, after = np.array(pairs).T
    return bool(scene_change(rgb_THWC[after], rgb_THWC[before]).min() < 0.5 * change)


# --- fades ---------------------------------------------------------------------------------------------------------


def _find_fades(rgb_THWC: np.ndarray, change_T: np.ndarray, fps: float, config: ShotConfig) -> list[Transition]:
    rows, columns = _inside_bars(rgb_THWC)
    mean_T = in_blocks(lambda rgb: to_luma(rgb)[:, rows][:, :, columns].mean(axis=(1, 2)), rgb_THWC)
    contrast_T = in_blocks(lambda rgb: to_luma(rgb)[:, rows][:, :, columns].std(axis=(1, 2)), rgb_THWC)
    dark_T, bright_T = mean_T < config.blank_luma, mean_T > 255 - config.blank_luma
    # Between black and white (a dip to fog or colour) a frame must be more nearly uniform to count.
    blank_T = contrast_T < np.where(dark_T | bright_T, config.blank_contrast, 0.5 * config.blank_contrast)
    longest, flash = round(config.fade_s * fps), max(2, round(config.flash_s * fps))
    fades: list[Transition] = []
    for first, stop in runs(blank_T):
        change = float(change_T[first])
        if not dark_T[first] and stop - first <= flash and _is_flash(rgb_THWC, change, first, flash + stop - first):
            continue
        start = _walk_ramp(contrast_T, first, -1, longest, fades[-1].end if fades else 0)
        end = _walk_ramp(contrast_T, stop - 1, 1, longest, len(rgb_THWC) - 1) + 1
        ramped = max(first - start, end - stop) >= 3
        start, end = (start, end) if ramped else (first, stop)
        fades.append(Transition(kind="fade" if ramped else "cut", start=start, end=end, confidence=0.95))
    return _merge_overlapping(fades)


def _inside_bars(rgb_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of rows and columns, without those black in every frame (letterbox) and those beside them (some of both)."""
    brightest_HW = rgb_THWC.max(axis=(0, 3))

    def inner(brightest: np.ndarray) -> np.ndarray:
        lit = np.concatenate([[True], brightest > BAR_LUMA, [True]])
        return lit[1:-1] & lit[:-2] & lit[2:]

    rows, columns = inner(brightest_HW.max(axis=1)), inner(brightest_HW.max(axis=0))
    return (rows, columns) if rows.any() and columns.any() else (np.ones_like(rows), np.ones_like(columns))


def _walk_ramp(contrast_T: np.ndarray, edge: int, step: int, longest: int, limit: int) -> int:
    """From the edge of a blank run, go on while contrast keeps rising; returns the last frame of the ramp."""
    t = edge
    while abs(t - edge) < longest and (limit - t) * step > 0 and contrast_T[t + step] > 1.02 * contrast_T[t] + 0.1:
        t += step
    return t


def _merge_overlapping(transitions: list[Transition]) -> list[Transition]:
    """In order; what touches becomes one, of the longer one's kind."""
    merged: list[Transition] = []
    for transition in sorted(transitions, key=lambda t: (t.start, t.end)):
        if merged and transition.start <= merged[-1].end:
            last = merged.pop()
            longer = max(last, transition, key=lambda t: t.end - t.start)
            transition = replace(longer, start=last.start, end=max(last.end, transition.end))
        merged.append(transition)
    return merged
