"""Streams: every row once an epoch, a restored position continues the very same sequence."""

import pytest
import torch

from worldfoundry.core.errors import DataError
from worldfoundry.training.streams import ImageTurns, TensorStream


def stream(seed=0, rows=10, batch=4):
    return TensorStream({"i": torch.arange(rows)}, batch_size=batch, seed=seed)


def draw(s, batches):
    return torch.cat([s.next_batch()["i"] for _ in range(batches)]).tolist()


def test_every_row_once_an_epoch():
    drawn = draw(stream(), 5)
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_a_restored_position_continues_the_sequence():
    whole = draw(stream(), 9)
    first = stream()
    start = draw(first, 4)
    second = stream()
    second.load_state_dict(first.state_dict())
    assert start + draw(second, 5) == whole


def test_seeds_differ():
    assert draw(stream(0), 3) != draw(stream(1), 3)


def test_changed_rows_are_refused():
    with pytest.raises(DataError, match="10 rows when it was saved and has 11"):
        stream(rows=11).load_state_dict(stream(rows=10).state_dict())


def test_columns_of_different_length_are_refused():
    with pytest.raises(DataError, match="one non-zero length"):
        TensorStream({"a": torch.zeros(3), "b": torch.zeros(4)}, batch_size=1, seed=0)


def turns(every=3):
    video = torch.arange(6 * 5, dtype=torch.uint8).view(6, 5, 1, 1, 1).expand(6, 5, 2, 2, 3)
    return ImageTurns(TensorStream({"video": video}, batch_size=2, seed=0), every=every, per_clip=2, seed=0)


def test_every_third_batch_is_of_images_from_its_clips():
    s, plain = turns(), turns(every=100)
    for i in range(6):
        batch, clips = s.next_batch()["video"], plain.next_batch()["video"]
        if (i + 1) % 3:
            assert torch.equal(batch, clips)
            continue
        assert batch.shape == (4, 1, 2, 2, 3)
        frames = batch[:, 0, 0, 0, 0].view(2, 2)
        for chosen, clip in zip(frames.tolist(), clips[:, :, 0, 0, 0].tolist(), strict=True):
            assert len(set(chosen)) == 2
            assert set(chosen) <= set(clip)


def test_image_turns_go_on_where_they_were():
    whole, first, second = turns(), turns(), turns()
    expected = [whole.next_batch()["video"] for _ in range(7)]
    start = [first.next_batch()["video"] for _ in range(4)]
    second.load_state_dict(first.state_dict())
    drawn = start + [second.next_batch()["video"] for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
