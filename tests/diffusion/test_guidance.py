"""Guidance as identities: g = 0, equal branches, linearity, one pass, two passes, an interval of noise levels."""

import pytest
import torch

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.parametrization import NetworkDenoiser


class Counting:
    """x0 = x + the mean of the context; counts its passes and their batch sizes."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, sigma_B, condition):
        self.batches.append(len(x))
        return x + condition.batched(len(x)).context_BLD.mean(dim=(1, 2)).view(-1, 1, 1, 1, 1)


X, SIGMA = torch.zeros(2, 1, 1, 2, 2), torch.ones(2)
CONDITION = Condition(context_BLD=torch.stack([torch.full((3, 4), 2.0), torch.full((3, 4), 5.0)]))
NEGATIVE = CONDITION.unconditional(torch.ones(1, 3, 4))


def test_zero_runs_the_condition_alone_in_one_pass_of_the_batch():
    denoiser = Counting()
    out = guided(denoiser, CONDITION, NEGATIVE, 0.0)(X, SIGMA)
    assert denoiser.batches == [2]
    assert torch.equal(out, denoiser(X, SIGMA, CONDITION))


@pytest.mark.parametrize(("split", "batches"), [(False, [4]), (True, [2, 2])])
@pytest.mark.parametrize("scale", [0.5, 1.0, 7.0])
def test_cond_plus_g_times_the_difference_in_one_doubled_pass_or_two(scale, split, batches):
    denoiser = Counting()
    out = guided(denoiser, CONDITION, NEGATIVE, scale, split=split)(X, SIGMA)
    assert denoiser.batches == batches
    expected = torch.tensor([2 + scale * (2 - 1), 5 + scale * (5 - 1)])
    torch.testing.assert_close(out[:, 0, 0, 0, 0], expected)


def test_equal_branches_leave_the_condition_unchanged():
    out = guided(Counting(), CONDITION, CONDITION, 7.0)(X, SIGMA)
    assert torch.equal(out, Counting()(X, SIGMA, CONDITION))


def test_without_a_negative_prompt_the_other_branch_is_zero_rows():
    out = guided(Counting(), CONDITION, CONDITION.unconditional(), 1.0)(X, SIGMA)
    assert out[:, 0, 0, 0, 0].tolist() == [4.0, 10.0]


@pytest.mark.parametrize(("sigma", "guides"), [(0.3, False), (0.31, True), (5.0, True), (5.01, False)])
def test_an_interval_guides_above_low_up_to_high_and_costs_one_branch_elsewhere(sigma, guides):
    denoiser = Counting()
    out = guided(denoiser, CONDITION, NEGATIVE, 1.0, interval=(0.3, 5.0))(X, SIGMA * sigma)
    assert denoiser.batches == [4 if guides else 2]
    assert out[:, 0, 0, 0, 0].tolist() == ([3.0, 9.0] if guides else [2.0, 5.0])


def test_an_interval_counts_per_sample():
    out = guided(Counting(), CONDITION, NEGATIVE, 1.0, interval=(0.5, 2.0))(X, torch.tensor([1.0, 3.0]))
    assert out[:, 0, 0, 0, 0].tolist() == [3.0, 5.0]


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf")])
def test_a_scale_below_zero_or_without_end_is_refused(scale):
    with pytest.raises(UsageError, match=rf"must be a number of at least 0, not {scale}"):
        guided(Counting(), CONDITION, NEGATIVE, scale)


def test_guidance_needs_something_to_move_away_from():
    with pytest.raises(UsageError, match="needs an unconditional branch"):
        guided(Counting(), CONDITION, None, 1.0)


@pytest.mark.parametrize("interval", [(5.0, 0.3), (1.0, 1.0), (-1.0, 2.0)])
def test_an_interval_that_holds_nothing_is_refused(interval):
    with pytest.raises(UsageError, match=r"\(low, high\) with 0 <= low < high"):
        guided(Counting(), CONDITION, NEGATIVE, 1.0, interval=interval)


class Remembering(torch.nn.Module):
    """A network that keeps the memos it is given."""

    def __init__(self):
        super().__init__()
        self.memos = []

    def forward(self, x, c_noise, context, *, memo=None, **conditions):
        self.memos.append(memo)
        return x


@pytest.mark.parametrize(("split", "kept"), [(False, [0, 0]), (True, [0, 1, 0, 1])])
def test_each_branch_keeps_one_memo_over_all_steps(split, kept):
    network = Remembering()
    denoise = guided(NetworkDenoiser(network), CONDITION, NEGATIVE, 2.0, split=split)
    with torch.no_grad():
        denoise(X, SIGMA)
        denoise(X, SIGMA / 2)
    assert all(memo is network.memos[which] for memo, which in zip(network.memos, kept, strict=True))
    assert len({id(memo) for memo in network.memos}) == max(kept) + 1
    denoise(X, SIGMA)  # with gradients nothing is kept
    assert network.memos[-1] is None
