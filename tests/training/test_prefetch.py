"""Batches drawn ahead: the same sequence, and a restored position neither loses nor repeats what was in flight."""

import threading

import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.training.prefetch import Prefetch


class Counter:
    """0, 1, 2, …; can be told to fail, and tells how far it was drawn."""

    def __init__(self, fail_at=None):
        self.drawn, self.fail_at = 0, fail_at
        self.reached = threading.Event()

    def next_batch(self):
        if self.drawn == self.fail_at:
            raise DataError("The clip is damaged.")
        self.drawn += 1
        if self.drawn >= 3:
            self.reached.set()
        return self.drawn - 1

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


def draw(stream, count):
    return [stream.next_batch() for _ in range(count)]


def test_the_sequence_is_the_same():
    stream = Prefetch(Counter())
    assert draw(stream, 20) == list(range(20))
    stream.close()


def test_the_state_is_that_of_the_last_batch_handed_out_not_of_the_last_drawn():
    counter = Counter()
    stream = Prefetch(counter, depth=4)
    assert draw(stream, 1) == [0]
    assert counter.reached.wait(60)  # more is in flight
    state = stream.state_dict()
    assert state == {"drawn": 1}
    other = Prefetch(Counter())
    other.load_state_dict(state)
    assert draw(other, 3) == [1, 2, 3]
    stream.close()
    other.close()


def test_going_back_drops_what_was_drawn_ahead():
    stream = Prefetch(Counter())
    start = stream.state_dict()
    draw(stream, 5)
    stream.load_state_dict(start)
    assert draw(stream, 3) == [0, 1, 2]
    stream.close()


def test_closing_ends_the_thread_and_puts_the_stream_where_the_reader_is():
    counter = Counter()
    stream = Prefetch(counter, depth=3)
    draw(stream, 2)
    stream.close()
    assert counter.drawn == 2
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    assert draw(stream, 2) == [2, 3]  # and it can start again
    stream.close()


def test_an_error_comes_where_the_batch_would_have():
    stream = Prefetch(Counter(fail_at=2))
    assert draw(stream, 2) == [0, 1]
    with pytest.raises(DataError, match="damaged"):
        stream.next_batch()
    stream.close()
