"""Windows: cut where they say, mirrored as the dataset allows, held-out sources apart."""

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.windows import iter_windows, mirror, split, spread_windows

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


def test_nothing_long_enough_says_how_long_the_longest_is(dataset):
    with pytest.raises(DataError, match=r"has 100 frames \(the longest has 30\)"):
        split(dataset, WINDOW.replace(num_frames=100))


def test_no_actions_where_they_are_needed(make_dataset):
    with pytest.raises(DataError, match="and actions"):
        split(ClipDataset(make_dataset(CLIPS, name="silent")), WINDOW, need_actions=True)
