"""Guidance as identities: g = 0, equal branches, linearity, one pass."""

import pytest
import torch

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.guidance import guided


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
    assert torch.equal(out, denoiser(X, SIGMA, CONDITION))
    assert denoiser.batches[0] == 2


@pytest.mark.parametrize("scale", [0.5, 1.0, 7.0])
def test_cond_plus_g_times_the_difference_in_one_doubled_pass(scale):
    denoiser = Counting()
    out = guided(denoiser, CONDITION, NEGATIVE, scale)(X, SIGMA)
    assert denoiser.batches == [4]
    expected = torch.tensor([2 + scale * (2 - 1), 5 + scale * (5 - 1)])
    torch.testing.assert_close(out[:, 0, 0, 0, 0], expected)


def test_equal_branches_leave_the_condition_unchanged():
    out = guided(Counting(), CONDITION, CONDITION, 7.0)(X, SIGMA)
    assert torch.equal(out, Counting()(X, SIGMA, CONDITION))


def test_without_a_negative_prompt_the_other_branch_is_zero_rows():
    out = guided(Counting(), CONDITION, CONDITION.unconditional(), 1.0)(X, SIGMA)
    assert out[:, 0, 0, 0, 0].tolist() == [4.0, 10.0]


def test_bad_requests_are_refused():
    with pytest.raises(UsageError, match=r"at least 0, not -1"):
        guided(Counting(), CONDITION, NEGATIVE, -1)
    with pytest.raises(UsageError, match="needs an unconditional branch"):
        guided(Counting(), CONDITION, None, 1.0)
