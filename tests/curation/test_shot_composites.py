"""The generator of composites: what it says of its transitions is what its frames show."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from worldfoundry.curation.lowres import watch_frames

FILE = Path(__file__).parents[2] / "benchmarks" / "shot_composites.py"
spec = importlib.util.spec_from_file_location("shot_composites", FILE)
composites = importlib.util.module_from_spec(spec)
spec.loader.exec_module(composites)

LEVELS = {"a": 40, "b": 90, "c": 140, "d": 190}


def flat_footage():
    """Clips of one grey level each: then every change of a composite is the generator's own."""
    return {name: [np.full((90, 18, 32, 3), level, np.uint8)] for name, level in LEVELS.items()}


@pytest.fixture(scope="module")
def made():
    return [composites.compose(flat_footage(), seed, num_transitions=12) for seed in range(8)]


def levels(composite):
    return composite.frames_THWC.mean(axis=(1, 2, 3))


def test_frames_change_within_transitions_and_flashes_alone(made):
    for composite in made:
        changes_T = np.abs(np.diff(levels(composite))) > 0.01
        allowed_T = np.zeros(len(changes_T), bool)
        for event in (*composite.transitions, *(d for d in composite.decoys if d.kind == "flash")):
            allowed_T[event.start - 1 : event.end] = True
        assert not (changes_T & ~allowed_T).any()
        assert all(changes_T[t.start - 1 : t.end].any() for t in composite.transitions)
        for cut in (t for t in composite.transitions if t.kind == "cut"):
            assert cut.start == cut.end
            assert changes_T[cut.start - 1]


def test_what_lies_between_is_monotonous_or_blank(made):
    for composite in made:
        for t in composite.transitions:
            span = levels(composite)[t.start - 1 : t.end + 1]
            if t.kind in ("dissolve", "wipe"):
                assert len(set(np.sign(np.diff(span))) - {0.0}) == 1
            elif t.kind == "fade":
                middle = levels(composite)[t.start : t.end]
                assert (middle.min() < 20) if "black" in t.how else (middle.max() > 235)


def test_events_are_in_order_and_apart(made):
    for composite in made:
        assert len(composite.transitions) == 12
        assert len(composite.clips) == 13
        assert all(a != b for a, b in pairwise(composite.clips))
        events = sorted((*composite.transitions, *composite.decoys), key=lambda e: e.start)
        assert all(a.end + 4 <= b.start for a, b in pairwise(events))
    kinds = {event.kind for composite in made for event in (*composite.transitions, *composite.decoys)}
    assert kinds == {*composites.TRANSITIONS, *composites.DECOYS}


def test_a_seed_gives_the_same_composite_again(made):
    again = composites.compose(flat_footage(), 3, num_transitions=12)
    assert np.array_equal(again.frames_THWC, made[3].frames_THWC)
    assert again.transitions == made[3].transitions
    assert again.transitions != made[2].transitions


def test_times_survive_the_file(made, tmp_path):
    assert [composite.variable_rate for composite in made] == [False, False, False, True] * 2
    for composite in (made[2], made[3]):
        table = watch_frames(composites.write_composite(composite, tmp_path / f"{composite.seed}.mp4"), [])
        assert [table.seconds(int(pts)) for pts in table.pts_T] == pytest.approx(composite.pts_T / composites.TICKS, abs=1e-4)
        assert table.variable_rate == composite.variable_rate


def test_no_clip_is_in_both_halves():
    footage = {f"clip{i}": [np.zeros((40 + 10 * i, 2, 2, 3), np.uint8)] for i in range(9)}
    tuning, held_out = composites.split_clips(footage)
    assert {*tuning, *held_out} == {*footage}
    assert not {*tuning} & {*held_out}
    frames = [sum(len(take) for takes in half.values() for take in takes) for half in (tuning, held_out)]
    assert abs(frames[0] - frames[1]) <= 120


def test_clips_are_read_at_one_shape_without_what_is_left_out(made, tmp_path):
    for name, composite in zip("xy", made, strict=False):
        composites.write_composite(composite, tmp_path / f"{name}.mp4")
    spans = tmp_path / "spans.json"
    spans.write_text('{"x.mp4": [[0, 45], [50, 60], [60, 130]], "y.mp4": []}')
    footage = composites.load_footage(tmp_path, 20, 20, spans=spans)
    assert {name: [take.shape for take in takes] for name, takes in footage.items()} == {
        "x": [(45, 20, 20, 3), (70, 20, 20, 3)]
    }
    with pytest.raises(ValueError, match="at least two clips"):
        composites.compose(footage, 0)
