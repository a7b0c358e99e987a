"""Reading a clip dataset: frames by number, actions by frame, clear errors, a split that shares no source."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldfoundry.core.errors import DataError
from worldfoundry.data.clips import ClipDataset, ClipRecord, split_records

RECORD = ClipRecord(
    clip_id="a", key="a", source_id="s", num_frames=9, fps=12.0, width=8, height=8, start_s=0.0, duration_s=0.75,
    caption="", motion=0.0, has_actions=False, action_names=(), bucket="b", shard="s.tar", bytes=1,
)  # fmt: skip


def test_any_span_equals_the_same_frames_of_the_whole(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset([("s0", 40, 32, 48)]))
    record = dataset.records[0]
    whole = dataset.video(record)
    assert whole.shape == (40, 32, 48, 3)
    assert whole.dtype == np.uint8
    levels = whole.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels[:24], 16 + 8 * np.arange(24), atol=2)
    for start, count in [(0, 1), (0, 17), (11, 13), (12, 1), (23, 17), (39, 1)]:
        np.testing.assert_array_equal(dataset.video(record, start, count), whole[start : start + count])


def test_actions_and_metadata_belong_to_their_clip(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset([("s0", 5, 32, 32), ("s1", 7, 32, 32)], actions=True))
    for i, record in enumerate(dataset.records):
        actions = dataset.actions(record)
        assert actions is not None
        assert actions.dtype == np.float32
        np.testing.assert_array_equal(actions, np.stack([np.arange(record.num_frames), np.full(record.num_frames, i)], 1))
        assert dataset.metadata(record) == {"n": i}
    assert dataset.action_names == ("time", "clip")
    assert ClipDataset(make_dataset([("s0", 5, 32, 32)], name="plain")).actions(RECORD) is None


def test_hash_follows_the_content(make_dataset: Callable[..., Path]) -> None:
    clips = [("s0", 5, 32, 32), ("s1", 5, 48, 64)]
    assert ClipDataset(make_dataset(clips)).hash() == ClipDataset(make_dataset(clips, name="again")).hash()
    assert ClipDataset(make_dataset(clips)).hash() != ClipDataset(make_dataset(clips[:1], name="less")).hash()


def test_what_is_not_a_clip_dataset_is_explained(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*worldfoundry curate"):
        ClipDataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no 'tables/clips\.parquet'.*worldfoundry curate"):
        ClipDataset(tmp_path)
    folder = make_dataset([("s0", 5, 32, 32)])
    table = pq.read_table(folder / "tables" / "clips.parquet")
    pq.write_table(table.drop_columns(["caption", "shard"]), folder / "tables" / "clips.parquet")
    with pytest.raises(DataError, match="lacks the columns caption, shard"):
        ClipDataset(folder)
    pq.write_table(table.slice(0, 0), folder / "tables" / "clips.parquet")
    with pytest.raises(DataError, match=r"holds no clip.*report\.html"):
        ClipDataset(folder)
    (folder / "tables" / "clips.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read"):
        ClipDataset(folder)


def test_a_missing_shard_is_named_at_once(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset([("s0", 5, 32, 32), ("s1", 5, 48, 64)])
    next(folder.glob("shards/*/*.tar")).unlink()
    with pytest.raises(DataError, match=r"00000\.tar' is missing"):
        ClipDataset(folder)


def test_spans_outside_and_wrong_counts_are_refused(make_dataset: Callable[..., Path]) -> None:
    dataset = ClipDataset(make_dataset([("s0", 9, 32, 32)], actions=True))
    record = dataset.records[0]
    for start, count in [(0, 10), (5, 5), (-1, 3), (3, 0)]:
        with pytest.raises(DataError, match="are not all in clip"):
            dataset.video(record, start, count)
    with pytest.raises(DataError, match="gave 9 frames instead of 10"):
        dataset.video(replace(record, num_frames=10))
    with pytest.raises(DataError, match="for 10 frames"):
        dataset.actions(replace(record, num_frames=10))


@given(
    sources=st.lists(st.sampled_from([f"s{i}" for i in range(12)]), min_size=1, max_size=40),
    fraction=st.floats(min_value=0, max_value=0.99),
    seed=st.integers(min_value=0, max_value=2**31),
)
def test_split_shares_no_source_and_loses_no_record(sources: list[str], fraction: float, seed: int) -> None:
    records = [replace(RECORD, key=f"k{i}", source_id=source) for i, source in enumerate(sources)]
    train, held_out = split_records(records, fraction, seed)
    assert sorted(r.key for r in train + held_out) == sorted(r.key for r in records)
    assert not {r.source_id for r in train} & {r.source_id for r in held_out}
    assert train
    if len(set(sources)) >= 2 and fraction > 0:
        assert held_out
    # Which sources are held out does not depend on the order or number of their clips.
    again = split_records([*reversed(records), replace(records[0], key="more")], fraction, seed)[1]
    assert {r.source_id for r in again} == {r.source_id for r in held_out}


def test_split_fraction_and_seed() -> None:
    records = [replace(RECORD, key=f"k{i}", source_id=f"s{i}") for i in range(40)]
    assert len(split_records(records, 0.25, 0)[1]) == 10
    assert split_records(records, 0.25, 0) != split_records(records, 0.25, 1)
    with pytest.raises(ValueError, match="held_out_fraction"):
        split_records(records, 1.0, 0)
