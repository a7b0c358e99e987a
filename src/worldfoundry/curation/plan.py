"""From shots to clips: spans in pts, half-open, so that a clip's duration counts its last frame."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from worldfoundry.core.config import stable_hash
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.shots import Transition, spans_between

# Counted up when the same source and parameters would give other clips: it is part of every clip's id.
PLAN_VERSION = 1
GRADUAL_MARGIN = 2  # frames beyond the measured ends of a fade or dissolve (measured: nine in ten ends lie within 2)


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Frames [first, last) of a source, shown during [start_pts, end_pts)."""

    clip_id: str
    shot_index: int
    first: int
    last: int
    start_pts: int
    end_pts: int
    start_s: float
    end_s: float


def clip_id(source_id: str, start_pts: int, end_pts: int) -> str:
    """The same content gives the same id wherever the file lies."""
    return stable_hash([source_id, start_pts, end_pts, PLAN_VERSION], 20)


def plan_image(source_id: str) -> ClipPlan:
    """An image is one clip of one frame, which lasts no time."""
    identity = clip_id(source_id, 0, 1)
    return ClipPlan(clip_id=identity, shot_index=0, first=0, last=1, start_pts=0, end_pts=1, start_s=0.0, end_s=0.0)


def plan_clips(
    source_id: str, frames: FrameTable, transitions: list[Transition], *, max_s: float, trim_frames: int
) -> list[ClipPlan]:
    """Every shot becomes one or more clips, however short; damaged frames are left out of all of them."""
    plans = []
    for shot_index, (start, end) in enumerate(spans_between(transitions, len(frames))):
        start, end = _trim(start, end, transitions, trim_frames)
        for first, last in _undamaged(start, end, frames.damaged_T):
            plans += _plan_span(source_id, frames, shot_index, first, last, max_s)
    return plans


def half_frame_s(fps: float) -> float:
    """Rounded timestamps must not cost a clip of exactly the least length."""
    return 0.5 / fps if fps else 0.0


def _plan_span(source_id: str, frames: FrameTable, shot_index: int, first: int, last: int, max_s: float) -> list[ClipPlan]:
    """Cut a span into the fewest equal parts that are not longer than `max_s`."""
    length_s = frames.seconds(frames.end_pts(last - 1)) - frames.seconds(int(frames.pts_T[first]))
    parts = max(1, ceil((length_s - half_frame_s(frames.fps)) / max_s))
    edges = np.linspace(first, last, parts + 1).round().astype(int)
    plans = []
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start_pts, end_pts = int(frames.pts_T[a]), frames.end_pts(b - 1)
        plans.append(
            ClipPlan(
                clip_id=clip_id(source_id, start_pts, end_pts),
                shot_index=shot_index,
                first=a,
                last=b,
                start_pts=start_pts,
                end_pts=end_pts,
                start_s=round(frames.seconds(start_pts), 6),
                end_s=round(frames.seconds(end_pts), 6),
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
