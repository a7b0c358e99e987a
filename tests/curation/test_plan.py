"""Clip plans: the last frame counts, bounds are inclusive, parts are equal, damage and transitions stay outside."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.plan import ClipPlan, clip_id, plan_clips
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
    config = CurateConfig(input="", out=Path(), **changes)
    return plan_clips("s", frames, list(transitions), np.ones(len(frames)), config)


@pytest.mark.parametrize("fps", [30.0, 30000 / 1001, 24.0, 12.0])
@pytest.mark.parametrize("time_base", [Fraction(1, 15360), Fraction(1, 1000), Fraction(1, 90000)])
def test_a_clip_of_exactly_the_least_length_is_kept(fps: float, time_base: Fraction) -> None:
    exact = round(2.0 * fps)
    (kept,) = plan(table(exact, fps, time_base))
    assert kept.reasons == ()
    assert kept.end_s == pytest.approx(exact / fps, abs=0.6 * float(time_base) + 1e-6)
    (short,) = plan(table(exact - 1, fps, time_base))
    assert short.reasons == ("TOO_SHORT",)


def test_the_longest_length_is_inclusive_and_longer_takes_are_cut_evenly() -> None:
    assert len(plan(table(1800))) == 1
    parts = plan(table(1801))
    assert [p.last - p.first for p in parts] == [900, 901]
    assert [p.last - p.first for p in plan(table(900), max_s=7, min_s=1)] == [180] * 5


def test_transitions_are_stepped_back_from_and_file_ends_are_not() -> None:
    cut = Transition(kind="cut", start=100, end=100, confidence=1.0)
    fade = Transition(kind="fade", start=200, end=230, confidence=1.0)
    spans = [(p.first, p.last) for p in plan(table(400), (cut, fade), trim_frames=1)]
    assert spans == [(0, 99), (101, 197), (233, 400)]
    assert [(p.first, p.last) for p in plan(table(400), (cut,), trim_frames=0)] == [(0, 100), (100, 400)]


def test_damage_is_left_out() -> None:
    plans = plan(table(300, damaged=tuple(range(100, 130))))
    assert [(p.first, p.last, p.reasons) for p in plans] == [(0, 100, ()), (130, 300, ())]
    assert plan(table(100, damaged=tuple(range(100)))) == []


def test_ids_follow_content_and_span() -> None:
    (a,) = plan(table(60))
    assert a.clip_id == clip_id("s", a.start_pts, a.end_pts)
    assert len({clip_id("s", 0, 10), clip_id("s", 0, 11), clip_id("s", 1, 10), clip_id("t", 0, 10)}) == 4


def test_still_clips_are_rejected_if_asked() -> None:
    (still,) = plan(table(90), min_motion=40.0)
    assert still.motion == pytest.approx(89 / 3, rel=1e-3)
    assert still.reasons == ("STATIC",)


@given(
    num_frames=st.integers(min_value=1, max_value=900),
    marks=st.lists(st.tuples(st.integers(min_value=1, max_value=880), st.integers(min_value=0, max_value=19)), max_size=6),
    damaged=st.sets(st.integers(min_value=0, max_value=899), max_size=5),
    min_s=st.sampled_from([0.5, 1.0, 2.0]),
    factor=st.sampled_from([2.0, 5.0]),
)
def test_clips_never_overlap_and_hold_only_good_frames(
    num_frames: int, marks: list[tuple[int, int]], damaged: set[int], min_s: float, factor: float
) -> None:
    transitions, edge = [], 0
    for start, length in sorted(marks):
        if edge <= start and start + length <= num_frames:
            transitions.append(Transition(kind="fade" if length else "cut", start=start, end=start + length, confidence=1.0))
            edge = start + length
    frames = table(num_frames, damaged=tuple(i for i in damaged if i < num_frames))
    plans = plan(frames, tuple(transitions), min_s=min_s, max_s=factor * min_s)
    taken = np.zeros(num_frames, int)
    for p in plans:
        taken[p.first : p.last] += 1
        assert not frames.damaged_T[p.first : p.last].any()
        assert p.end_s - p.start_s <= factor * min_s + 1.5 / 30
        if not p.reasons:
            assert p.end_s - p.start_s >= min_s - 0.5 / 30 - 1e-6
    assert taken.max(initial=0) <= 1
    for t in transitions:
        assert not taken[t.start : t.end].any()
