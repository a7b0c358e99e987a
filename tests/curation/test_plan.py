"""Clip plans: the last frame counts, bounds are inclusive, parts are equal, damage and transitions stay outside."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.plan import ClipPlan, clip_id, plan_clips, plan_image
from worldfoundry.curation.shots import Transition


def table(
    num_frames: int, fps: float = 30.0, time_base: Fraction = Fraction(1, 15360), damaged: tuple[int, ...] = ()
) -> FrameTable:
    damaged_T = np.zeros(num_frames, bool)
    damaged_T[list(damaged)] = True
    return FrameTable(
        pts_T=np.round(np.arange(num_frames) / fps / float(time_base)).astype(np.int64),
        damaged_T=damaged_T,
        time_base=time_base,
        zero_pts=0,
        fps=fps,
        variable_rate=False,
        longest_closed_gop=12,
        problem="",
    )


def plan(frames: FrameTable, transitions: tuple[Transition, ...] = (), **changes: Any) -> list[ClipPlan]:
    return plan_clips("s", frames, list(transitions), **{"max_s": 60.0, "trim_frames": 1, **changes})


@pytest.mark.parametrize("fps", [30.0, 30000 / 1001, 24.0, 12.0])
@pytest.mark.parametrize("time_base", [Fraction(1, 15360), Fraction(1, 1000), Fraction(1, 90000)])
def test_the_last_frame_counts(fps: float, time_base: Fraction) -> None:
    (whole,) = plan(table(48, fps, time_base))
    assert whole.end_s == pytest.approx(48 / fps, abs=0.6 * float(time_base) + 1e-6)


def test_the_longest_length_is_inclusive_and_longer_takes_are_cut_evenly() -> None:
    assert len(plan(table(1800))) == 1
    parts = plan(table(1801))
    assert [p.last - p.first for p in parts] == [900, 901]
    assert [p.last - p.first for p in plan(table(900), max_s=7)] == [180] * 5


def test_transitions_are_stepped_back_from_and_file_ends_are_not() -> None:
    cut = Transition(kind="cut", start=100, end=100, confidence=1.0)
    fade = Transition(kind="fade", start=200, end=230, confidence=1.0)
    spans = [(p.first, p.last) for p in plan(table(400), (cut, fade), trim_frames=1)]
    assert spans == [(0, 99), (101, 197), (233, 400)]
    assert [(p.first, p.last) for p in plan(table(400), (cut,), trim_frames=0)] == [(0, 100), (100, 400)]


def test_damage_is_left_out() -> None:
    plans = plan(table(300, damaged=tuple(range(100, 130))))
    assert [(p.first, p.last) for p in plans] == [(0, 100), (130, 300)]
    assert plan(table(100, damaged=tuple(range(100)))) == []


def test_ids_follow_content_and_span() -> None:
    (a,) = plan(table(60))
    assert a.clip_id == clip_id("s", a.start_pts, a.end_pts)
    assert len({clip_id("s", 0, 10), clip_id("s", 0, 11), clip_id("s", 1, 10), clip_id("t", 0, 10)}) == 4


def test_an_image_is_one_frame_of_no_length() -> None:
    image = plan_image("s")
    assert (image.first, image.last, image.start_s, image.end_s) == (0, 1, 0.0, 0.0)
    assert image.clip_id == clip_id("s", 0, 1)


@given(
    num_frames=st.integers(min_value=1, max_value=900),
    marks=st.lists(st.tuples(st.integers(min_value=1, max_value=880), st.integers(min_value=0, max_value=19)), max_size=6),
    damaged=st.sets(st.integers(min_value=0, max_value=899), max_size=5),
    max_s=st.sampled_from([1.0, 4.0, 10.0]),
)
def test_clips_never_overlap_and_hold_only_good_frames(
    num_frames: int, marks: list[tuple[int, int]], damaged: set[int], max_s: float
) -> None:
    transitions, edge = [], 0
    for start, length in sorted(marks):
        if edge <= start and start + length <= num_frames:
            transitions.append(Transition(kind="fade" if length else "cut", start=start, end=start + length, confidence=1.0))
            edge = start + length
    frames = table(num_frames, damaged=tuple(i for i in damaged if i < num_frames))
    plans = plan(frames, tuple(transitions), max_s=max_s)
    taken = np.zeros(num_frames, int)
    for p in plans:
        taken[p.first : p.last] += 1
        assert not frames.damaged_T[p.first : p.last].any()
        assert p.end_s - p.start_s <= max_s + 1.5 / 30
    assert taken.max(initial=0) <= 1
    for t in transitions:
        assert not taken[t.start : t.end].any()
