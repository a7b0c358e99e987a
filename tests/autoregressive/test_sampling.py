"""Sampling: the filters by hand, and draws that belong to a sample and a position."""

import pytest
import torch

from worldfoundry.autoregressive.sampling import Race, Sampling, probabilities
from worldfoundry.core.errors import ConfigError

LOGITS = torch.log(torch.tensor([[[0.5, 0.3, 0.15, 0.05]]]))


def p_of(**options):
    return probabilities(LOGITS, Sampling.from_dict({"top_p": 1.0, **options}))[0, 0]


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_nothing_filtered_is_the_softmax():
    assert torch.allclose(p_of(), torch.tensor([0.5, 0.3, 0.15, 0.05]))


def test_temperature_is_a_power_of_the_probabilities():
    want = torch.tensor([0.5, 0.3, 0.15, 0.05]) ** 2
    assert torch.allclose(p_of(temperature=0.5), want / want.sum())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, 2),
        ({"top_k": 9}, 4),
        ({"top_p": 0.5}, 1),
        ({"top_p": 0.6}, 2),
        ({"top_p": 0.94}, 3),
        ({"top_p": 1e-6}, 1),
    ],
)
def test_filters_keep_the_likeliest_and_their_ratios(options, kept):
    want = torch.tensor([0.5, 0.3, 0.15, 0.05])
    want[kept:] = 0
    assert torch.allclose(p_of(**options), want / want.sum())


def test_top_p_is_of_what_top_k_left():
    assert torch.allclose(p_of(top_k=2, top_p=0.6), torch.tensor([1.0, 0, 0, 0]))  # 0.5 of 0.8 is more than 0.6


def test_the_order_of_tokens_does_not_matter():
    order = torch.tensor([2, 0, 3, 1])
    sampling = Sampling(top_p=0.7, temperature=1.3, top_k=3)
    assert torch.allclose(probabilities(LOGITS[..., order], sampling), probabilities(LOGITS, sampling)[..., order])


def test_temperature_zero_is_greedy_without_random_numbers():
    sampling, generator = Sampling(temperature=0), generators(1)
    before = generator[0].get_state()
    assert Race(sampling, generator).draw(LOGITS).tolist() == [[0]]
    assert p_of(temperature=0).tolist() == [1, 0, 0, 0]
    assert torch.equal(generator[0].get_state(), before)


@pytest.mark.parametrize("options", [{"top_p": 0.0}, {"top_p": 1.01}, {"temperature": -0.1}, {"top_k": -1}])
def test_a_bad_option_is_one_line_that_names_it(options):
    with pytest.raises(ConfigError, match=next(iter(options))) as raised:
        Sampling.from_dict(options, where="sampling")
    assert "\n" not in str(raised.value)


def test_draws_follow_the_probabilities():
    count = 4000
    drawn = Race(Sampling(top_p=1.0), generators(0)).draw(LOGITS.expand(1, count, 4))
    seen, want = torch.bincount(drawn[0], minlength=4), torch.tensor([0.5, 0.3, 0.15, 0.05]) * count
    assert float(((seen - want) ** 2 / want).sum()) < 16.3  # chi-square of 3 degrees: 0.1 %


def test_a_filtered_token_is_never_drawn():
    drawn = Race(Sampling(top_p=1.0, top_k=2), generators(0)).draw(LOGITS.expand(1, 2000, 4))
    assert set(drawn[0].tolist()) == {0, 1}


def test_a_sample_does_not_depend_on_its_batch():
    logits = torch.randn(3, 5, 7, generator=generators(9)[0])
    together = Race(Sampling(), generators(4, 5, 6)).draw(logits)
    for row, seed in enumerate((4, 5, 6)):
        assert torch.equal(Race(Sampling(), generators(seed)).draw(logits[row : row + 1])[0], together[row])


def test_positions_at_once_or_one_by_one_or_again():
    logits = torch.randn(2, 6, 9, generator=generators(9)[0])
    whole = Race(Sampling(), generators(1, 2)).draw(logits)
    race, parts = Race(Sampling(), generators(1, 2)), []
    for start, count in ((0, 1), (1, 3), (4, 2)):
        race.draw(logits[:, start:])  # looking further ahead changes nothing
        parts.append(race.draw(logits[:, start : start + count]))
        race.advance(count)
    assert torch.equal(torch.cat(parts, 1), whole)
