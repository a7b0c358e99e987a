"""Streams: every row once an epoch, a restored position continues the very same sequence."""

import pytest
import torch

from worldfoundry.core.errors import DataError
from worldfoundry.training.streams import ImageTurns, MixedStream, StagedStream, TensorStream


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


def mixture(seed=0):
    streams = {"a": stream(rows=10), "b": TensorStream({"i": torch.arange(100, 110)}, batch_size=2, seed=1)}
    return MixedStream(streams, {"a": 3.0, "b": 1.0}, seed)


def test_a_mixture_draws_each_stream_by_its_weight_and_in_its_own_order():
    mixed, alone = mixture(), stream(rows=10)
    batches = [mixed.next_batch()["i"].tolist() for _ in range(400)]
    of_a = [batch for batch in batches if batch[0] < 100]
    assert 0.69 < len(of_a) / 400 < 0.81  # 0.75 and nearly three deviations of 400 draws either way
    assert of_a == [alone.next_batch()["i"].tolist() for _ in of_a]


def test_a_restored_mixture_continues_the_sequence():
    whole = draw(mixture(), 12)
    first, second = mixture(), mixture()
    start = draw(first, 5)
    second.load_state_dict(first.state_dict())
    assert start + draw(second, 7) == whole
    assert draw(mixture(seed=1), 12) != whole


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(DataError, match="needs streams and a weight of each"):
        MixedStream({"a": stream()}, {"a": 0.0}, 0)


def staged():
    return StagedStream([stream(rows=10), TensorStream({"i": torch.arange(100, 110)}, batch_size=2, seed=0)], [0.25, 1.0])


def run_staged(s, steps, total):
    drawn = []
    for step in steps:
        s.begin_step(step / total)
        drawn.append(s.next_batch()["i"].tolist())
    return drawn


def test_stages_follow_the_share_of_the_budget():
    drawn = run_staged(staged(), range(8), 8)
    assert [batch[0] >= 100 for batch in drawn] == [False] * 2 + [True] * 6


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resuming_across_the_border_of_a_stage_is_like_never_stopping(cut):
    whole, first, second = run_staged(staged(), range(8), 8), staged(), staged()
    start = run_staged(first, range(cut), 8)
    second.load_state_dict(first.state_dict())
    assert start + run_staged(second, range(cut, 8), 8) == whole
