"""Wipes: the new shot pushes its front over the old one, straight, aslant or as a growing circle.

Axis legend: T frames, H height, W width, N blocks of the picture.

In the middle of a wipe each block shows either the old shot or the new one: its distance to one of the two is small beside
the distance between them (a dissolve's blocks lie halfway; a fast pan's are like neither). The share of the new shot rises
evenly to the end (at a cut it jumps).
"""

import numpy as np

from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.shots_pictures import block_differences, blocks_with_margin
from worldfoundry.curation.shots_types import Transition, probability

BLOCK_HEIGHT, BLOCK_WIDTH = 3, 4
LARGEST_STEP = 0.5  # of the picture, from one frame to the next: more is a cut within a moving shot
LEAST_STEP = 0.008  # of the picture, from one frame to the next, while the front moves
LOOSE = 0.85  # candidates are looked at from this part of every threshold on
OUTSIDE = 2  # frames beyond the ends of a wipe, at which the two shots are seen unmixed
LEAST_WAY = 0.5  # of the picture that the front must cross
LEAST_COVER = 0.5  # share of blocks that must change: else something merely moved through the picture


def find_wipes(luma_THW: np.ndarray, start: int, end: int, fps: float, config: ShotConfig) -> list[Transition]:
    """Wipes within one stretch without cuts, best evidence first; those below a probability of 0.5 are doubtful ones."""
    halves = sorted({round(half_s * fps) for half_s in config.wipe_half_s} - {0, 1})
    found: list[Transition] = []
    for block, low, high in blocks_with_margin(start, end, 3 * max(halves, default=0)):
        stretch_THW = luma_THW[low:high]
        candidates = [c for half in halves for c in _candidates(stretch_THW, half, config) if c[1] + low in block]
        for strength, centre, half in sorted(candidates, reverse=True):
            if any(other.start - half < centre + low < other.end + half for other in found):
                continue
            first, last, evidence = _front_span(stretch_THW, centre, half, config)
            if last - first >= 3 and evidence > 0:
                p = probability(min(strength, evidence))
                found.append(Transition(kind="wipe", start=first + low, end=last + low, confidence=p))
    return found


def _candidates(luma_THW: np.ndarray, half: int, config: ShotConfig) -> list[tuple[float, int, int]]:
    """(strength, centre, half) where each block of the middle frame looks like one of the frames `half` away."""
    if len(luma_THW) < 2 * half + 1:
        return []
    step = max(1, half // 4)
    centres = np.arange(half, len(luma_THW) - half, step)
    before, after = luma_THW[centres - half], luma_THW[centres + half]
    # Motion can only lower the difference, so most of a calm video is settled without looking for it.
    centres = centres[np.abs(after - before).mean(axis=(1, 2)) > config.wipe_threshold]
    if not len(centres):
        return []
    before, middle, after = luma_THW[centres - half], luma_THW[centres], luma_THW[centres + half]
    apart_TN, old_TN, new_TN = (
        block_differences(a, b, BLOCK_HEIGHT, BLOCK_WIDTH) for a, b in ((before, after), (middle, before), (middle, after))
    )
    distance = apart_TN.mean(axis=1)
    weight_TN = apart_TN / (apart_TN.sum(axis=1, keepdims=True) + 1e-6)
    share_TN = _share(old_TN, new_TN, apart_TN)
    unexplained = np.minimum(old_TN, new_TN).mean(axis=1) / (distance + 1e-6)
    decided = (weight_TN * np.abs(2 * share_TN - 1)).sum(axis=1)
    progress = (weight_TN * share_TN).sum(axis=1)
    cover = (apart_TN > 0.4 * distance[:, None]).mean(axis=1)
    strength = np.minimum(distance / config.wipe_threshold, config.wipe_unexplained / np.maximum(unexplained, 1e-3))
    strength = np.minimum(strength, decided / config.wipe_decided)
    strength[(np.abs(progress - 0.5) > 0.25) | (cover < LEAST_COVER)] = 0
    # The middle of the front's way fits best.
    rank = strength - np.abs(progress - 0.5)
    keep = np.flatnonzero(strength > LOOSE)
    order = keep[np.argsort(-rank[keep])]
    return [(float(strength[i]), int(centres[i]), half) for i in order]


def _front_span(luma_THW: np.ndarray, centre: int, half: int, config: ShotConfig) -> tuple[int, int, float]:
    """[first, last) over which the share of the new shot grows, and the strength of the evidence in all its frames.

    The strength is 0 if the share jumps or does not get far.
    """
    first, last, a, b = centre - half, centre + half, 0, 0
    share_T = unexplained_T = np.zeros(1)
    for _ in range(3):  # the front may have come further than half its way at either end: look again from outside
        old, new = max(0, first - OUTSIDE), min(len(luma_THW) - 1, last + OUTSIDE)
        share_T, unexplained_T = _shares(luma_THW, old, new)
        step_T = np.convolve(np.diff(share_T), np.ones(3) / 3, mode="same")
        middle = min(max(centre - old, 1), len(step_T) - 1)
        a = middle
        while a > 0 and step_T[a - 1] > LEAST_STEP:
            a -= 1
        b = middle
        while b < len(step_T) and step_T[b] > LEAST_STEP:
            b += 1
        found = old + a + 1, old + b
        if found == (first, last):
            break
        first, last = found
    way = share_T[b] - share_T[a]
    if way < LEAST_WAY or np.diff(share_T)[a:b].max(initial=0) > LARGEST_STEP:
        return first, last, 0.0
    unevenness = np.abs(share_T[a : b + 1] - np.linspace(share_T[a], share_T[b], b + 1 - a)).max() / way
    unexplained = unexplained_T[a : b + 1].mean()
    evidence = min(config.wipe_unexplained / (unexplained + 1e-3), config.wipe_unevenness / (unevenness + 1e-3))
    return first, last, float(evidence)


def _shares(luma_THW: np.ndarray, old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """For the frames from `old` to `new`: the share of the new shot, and what is like neither, relative to their difference."""
    near = luma_THW[old : new + 1]
    old_TN = block_differences(near, np.repeat(near[:1], len(near), axis=0), BLOCK_HEIGHT, BLOCK_WIDTH)
    new_TN = block_differences(near, np.repeat(near[-1:], len(near), axis=0), BLOCK_HEIGHT, BLOCK_WIDTH)
    apart_N = old_TN[-1] + 1e-6
    share_TN = _share(old_TN, new_TN, apart_N)
    return share_TN @ (apart_N / apart_N.sum()), np.minimum(old_TN, new_TN).mean(axis=1) / apart_N.mean()


def _share(old_TN: np.ndarray, new_TN: np.ndarray, apart_TN: np.ndarray) -> np.ndarray:
    """0 where a block shows the old shot, 1 where it shows the new one, 0.5 where it does not tell.

    A block that is near to both, in a scene that has moved on by more than a block may, says nothing, whichever is nearer.
    """
    return 0.5 + 0.5 * (old_TN - new_TN) / np.maximum(np.maximum(old_TN + new_TN, apart_TN), 1e-3)
