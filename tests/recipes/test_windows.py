"""Windows: cut where they say, mirrored as the dataset allows, held-out sources apart."""

import numpy as np
import pytest

from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import ConfigError, DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.windows import check_window, iter_windows, mirror, split, spread_windows

CLIPS = [("a", 30, 32, 48), ("b", 25, 32, 48), ("c", 9, 32, 48), ("d", 30, 32, 48)]
WINDOW = WindowConfig(num_frames=17, height=16, width=16, stride=6, held_out_fraction=0.3)


@pytest.fixture
def dataset(make_dataset):
    return ClipDataset(make_dataset(CLIPS, actions=True))


def test_short_clips_are_left_out_and_sources_kept_apart(dataset):
    parts = split(dataset, WINDOW)
    assert parts.skipped == 1
    train, held_out = ({r.source_id for r in records} for records in (parts.train, parts.held_out))
    assert train | held_out == {"a", "b", "d"}
    assert not train & held_out
    assert held_out


def test_tokenizer_and_world_model_hold_out_the_same_sources(make_dataset):
    """One clip without actions must not shift the choice: a tokenizer would be trained on what the world is measured on."""
    acting = ClipDataset(make_dataset([(f"s{i:02d}", 20, 32, 48) for i in range(20)], actions=True))
    silent = ClipDataset(make_dataset([("s005", 20, 32, 48), ("s99", 20, 32, 48)], name="silent"))
    acting.records = (*acting.records, *silent.records)
    tokenizer, world = split(acting, WINDOW), split(acting, WINDOW, need_actions=True)
    assert {r.source_id for r in tokenizer.held_out} == {r.source_id for r in world.held_out}
    assert {"s005", "s99"} <= {r.source_id for r in tokenizer.train} - {r.source_id for r in world.train}


def test_one_source_with_actions_among_others_still_leaves_a_tokenizer_something_to_measure_on(make_dataset):
    dataset = ClipDataset(make_dataset([("a", 20, 32, 48)], actions=True))
    dataset.records = (*dataset.records, *ClipDataset(make_dataset([("b", 20, 32, 48)], name="silent")).records)
    parts = split(dataset, WINDOW)
    assert {len(parts.train), len(parts.held_out)} == {1}
    with pytest.raises(DataError, match="come from one source, 'a'"):
        split(dataset, WINDOW, need_actions=True)


def test_windows_start_a_stride_apart_and_keep_frames_with_their_actions(dataset):
    record = next(r for r in dataset.records if r.source_id == "a")
    (windows,) = iter_windows(dataset, [record], WINDOW)
    assert [w.start for w in windows] == [0, 6, 12]
    for window in windows:
        assert window.frames.shape == (17, 16, 16, 3)
        assert window.actions[0, 0] == window.start


def test_mirrored_windows_flip_the_picture_and_the_declared_actions(dataset):
    record = dataset.records[0]
    (windows,) = iter_windows(dataset, [record], WINDOW.replace(mirror_action=(-1.0, 1.0)))
    plain, mirrored = windows[: len(windows) // 2], windows[len(windows) // 2 :]
    for one, two in zip(plain, mirrored, strict=True):
        assert two.mirrored
        assert two.name == one.name + "m"
        assert np.array_equal(two.frames[:, :, ::-1], one.frames)
        assert np.array_equal(two.actions * [-1, 1], one.actions)


def test_a_mirror_that_does_not_fit_the_actions_is_refused(dataset):
    (windows,) = iter_windows(dataset, [dataset.records[0]], WINDOW)
    with pytest.raises(DataError, match="3 factors"):
        mirror(windows[0], (1.0, 1.0, 1.0))


def test_spread_windows_cover_clips_and_their_length(dataset):
    records = split(dataset, WINDOW).train
    windows = spread_windows(dataset, records, WINDOW, 4)
    assert len(windows) == 4
    assert {w.record.source_id for w in windows} == {r.source_id for r in records}
    assert min(w.start for w in windows) == 0
    assert max(w.start for w in windows) == max(r.num_frames for r in records) - 17


def test_spread_windows_hold_the_frames_that_whole_clips_hold(dataset):
    record = dataset.records[0]
    (whole,) = iter_windows(dataset, [record], WINDOW.replace(stride=1))
    for window in spread_windows(dataset, [record], WINDOW, 3):
        assert np.array_equal(window.frames, whole[window.start].frames)
        assert np.array_equal(window.actions, whole[window.start].actions)


def test_nothing_long_enough_says_how_long_the_longest_is(dataset):
    with pytest.raises(DataError, match=r"has 100 frames \(the longest has 30\)"):
        split(dataset, WINDOW.replace(num_frames=100))


def test_no_actions_where_they_are_needed(make_dataset):
    with pytest.raises(DataError, match="and actions"):
        split(ClipDataset(make_dataset(CLIPS, name="silent")), WINDOW, need_actions=True)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("num_frames", 16, "num_frames.*17"), ("height", 37, "height.*40"), ("width", 18, "width.*20")],
)
def test_a_window_that_a_tokenizer_cannot_take_whole_names_the_next_that_fits(field, value, words):
    spec = TokenizerSpec(t=4, h=4, w=4, channels=12, causal=True)
    check_window(WINDOW, spec)
    with pytest.raises(ConfigError, match=words):
        check_window(WINDOW.replace(**{field: value}), spec)
