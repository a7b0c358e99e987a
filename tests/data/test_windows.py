"""The sampler: resumed equals uninterrupted bit for bit, epochs see every clip, batches never mix buckets."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.windows import WindowSampler

CLIPS = [("a", 24, 32, 32), ("a", 24, 32, 32), ("b", 24, 32, 32), ("c", 20, 36, 64), ("d", 9, 32, 32), ("d", 20, 36, 64)]


def sampler_of(dataset: ClipDataset, **changes: Any) -> WindowSampler:
    settings: dict[str, Any] = {"num_frames": 9, "size": (16, 16), "batch_size": 2, "seed": 3} | changes
    return WindowSampler(dataset, dataset.records, **settings)


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]))


def test_resumed_equals_uninterrupted_bit_for_bit(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS, actions=True))
    straight = sampler_of(dataset)
    batches = [next(straight) for _ in range(11)]  # more than two epochs
    for stop in (0, 1, straight.batches_per_epoch, 7):
        stopped = sampler_of(dataset)
        for _ in range(stop):
            next(stopped)
        state = json.loads(json.dumps(stopped.state_dict()))
        resumed = sampler_of(dataset)
        resumed.load_state_dict(state)
        for batch in batches[stop:]:
            assert_same(next(resumed), batch)


def test_an_epoch_sees_every_clip_and_fills_batches(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS))
    sampler = sampler_of(dataset)
    bucket_of = {record.key: record.bucket for record in dataset.records}
    orders = []
    for _ in range(3):
        epoch = [next(sampler) for _ in range(sampler.batches_per_epoch)]
        counts = Counter(key for batch in epoch for key in batch["key"])
        assert set(counts) == set(bucket_of)
        assert max(counts.values()) <= 2
        assert all(len({bucket_of[key] for key in batch["key"]}) == 1 for batch in epoch)
        assert all(batch["video"].shape == (2, 9, 16, 16, 3) for batch in epoch)
        orders.append([key for batch in epoch for key in batch["key"]])
    assert orders[0] != orders[1]


def test_windows_are_the_frames_and_actions_they_say(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS, actions=True))
    records = {record.key: record for record in dataset.records}
    sampler = sampler_of(dataset, size=(32, 32))
    starts = set()
    for _ in range(8):
        batch = next(sampler)
        for i, key in enumerate(batch["key"]):
            start = int(batch["start"][i])
            starts.add(start)
            expected = dataset.video(records[key], start, 9)
            if expected.shape[1:3] == (32, 32):
                np.testing.assert_array_equal(batch["video"][i], expected)
            np.testing.assert_allclose(batch["video"][i].mean(axis=(1, 2, 3)), expected.mean(axis=(1, 2, 3)), atol=1)
            np.testing.assert_array_equal(batch["actions"][i][:, 0], np.arange(start, start + 9))
            assert batch["caption"][i] == records[key].caption
            assert batch["fps"][i] == 12
    assert len(starts) > 3


def test_keeping_clips_in_memory_changes_nothing(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS))
    kept, read = sampler_of(dataset), sampler_of(dataset, cache_mb=0)
    for _ in range(5):
        assert_same(next(kept), next(read))


def test_clips_too_short_are_counted_or_refused(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS))
    sampler = sampler_of(dataset, num_frames=21)
    assert sampler.skipped == 3
    assert {record.num_frames for record in sampler.records} == {24}
    with pytest.raises(DataError, match=r"None of 6 clips has 25 frames; the longest has 24\."):
        sampler_of(dataset, num_frames=25)


def test_a_position_of_something_else_is_refused(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS))
    state = sampler_of(dataset).state_dict()
    for changes in ({"seed": 4}, {"num_frames": 8}, {"size": (16, 24)}, {"batch_size": 3}):
        with pytest.raises(DataError, match="other clips or other window settings"):
            sampler_of(dataset, **changes).load_state_dict(state)


def test_seeds_give_different_orders(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset(CLIPS))
    drawn = []
    for seed in (0, 1):
        sampler = sampler_of(dataset, seed=seed)
        drawn.append([(tuple(b["key"]), tuple(b["start"])) for b in (next(sampler) for _ in range(4))])
    assert drawn[0] != drawn[1]
