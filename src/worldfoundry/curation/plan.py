"""From shots to clips: spans in pts, half-open, so that a clip's duration counts its last frame."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from worldfoundry.core.config import stable_hash
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.shots import Transition, spans_between

# Counted up when the same source and parameters would give other clips: it is part of every clip's id.
PLAN_VERSION = 1
GRADUAL_MARGIN = 2  # frames beyond the measured ends of a fade or dissolve (measured: nine in ten ends lie within 2)


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Frames [first, last) of a source, shown during [start_pts, end_pts). `reasons` says why it is rejected, if it is."""

    clip_id: str
    shot_index: int
    first: int
    last: int
    start_pts: int
    end_pts: int
    start_s: float
    end_s: float
    motion: float
    reasons: tuple[str, ...] = ()


def clip_id(source_id: str, start_pts: int, end_pts: int) -> str:
    """The same content gives the same id wherever the file lies."""
    return stable_hash([source_id, start_pts, end_pts, PLAN_VERSION], 20)


def plan_clips(
    source_id: str, frames: FrameTable, transitions: list[Transition], motion_T: np.ndarray, config: CurateConfig
) -> list[ClipPlan]:
    """Every shot becomes one or more clips, kept or rejected; damaged frames are left out of all of them.

    `motion_T[t]` is the mean change of luma from frame t - 1 to t; a clip's motion is its sum per second.
    """
    plans = []
    for shot_index, (start, end) in enumerate(spans_between(transitions, len(frames))):
        start, end = _trim(start, end, transitions, config.trim_frames)
        for first, last in _undamaged(start, end, frames.damaged_T):
            plans += _plan_span(source_id, frames, motion_T, shot_index, first, last, config)
    return plans


def _plan_span(
    source_id: str, frames: FrameTable, motion_T: np.ndarray, shot_index: int, first: int, last: int, config: CurateConfig
) -> list[ClipPlan]:
    """Cut a span into the fewest equal parts that are not longer than `max_s`."""
    half_frame_s = 0.5 / frames.fps  # rounded timestamps must not cost a clip of exactly the least length
    length_s = frames.seconds(frames.end_pts(last - 1)) - frames.seconds(int(frames.pts_T[first]))
    parts = max(1, ceil((length_s - half_frame_s) / config.max_s))
    edges = np.linspace(first, last, parts + 1).round().astype(int)
    plans = []
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start_pts, end_pts = int(frames.pts_T[a]), frames.end_pts(b - 1)
        start_s, end_s = frames.seconds(start_pts), frames.seconds(end_pts)
        motion = float(motion_T[a + 1 : b].sum()) / max(end_s - start_s, 1e-6)
        reasons = []
        if end_s - start_s < config.min_s - half_frame_s:
            reasons.append("TOO_SHORT")
        if motion < config.min_motion:
            reasons.append("STATIC")
        plans.append(
            ClipPlan(
                clip_id=clip_id(source_id, start_pts, end_pts),
                shot_index=shot_index,
                first=a,
                last=b,
                start_pts=start_pts,
                end_pts=end_pts,
                start_s=round(start_s, 6),
                end_s=round(end_s, 6),
                motion=round(motion, 4),
                reasons=tuple(reasons),
            )
        )
    return plans


def _trim(start: int, end: int, transitions: list[Transition], trim: int) -> tuple[int, int]:
    """Step back from the transitions on both sides; the ends of the file are not transitions."""
    for transition in transitions:
        margin = trim if transition.start == transition.end else trim + GRADUAL_MARGIN
        if transition.end == start:
            start += margin
        if transition.start == end:
            end -= margin
    return start, end


def _undamaged(start: int, end: int, damaged_T: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of [start, end) without damaged frames."""
    good_T = np.concatenate([[False], ~damaged_T[start : max(start, end)], [False]])
    edges = np.flatnonzero(np.diff(good_T.astype(np.int8))) + start
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
