"""Streams: every row once an epoch, a restored position continues the very same sequence."""

import pytest
import torch

from worldfoundry.core.errors import DataError
from worldfoundry.training.streams import TensorStream


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
