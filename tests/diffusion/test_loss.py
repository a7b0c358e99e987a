"""The loss against closed forms."""

import pytest
import torch
from torch import nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.dit import UncertaintyHead
from worldfoundry.diffusion.loss import edm_loss
from worldfoundry.diffusion.parametrization import EDMDenoiser


class Constant(nn.Module):
    """Answers with one number everywhere; carries the uncertainty head when asked."""

    def __init__(self, value=0.0, head=False):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.uncertainty = UncertaintyHead() if head else None

    def forward(self, x, c_noise, context, **conditions):
        return self.value.expand_as(x)


def draw(batch=4, frames=5):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(batch, 3, frames, 16, 16, generator=generator) * 0.5
    return x0, torch.linspace(0.05, 5.0, batch), torch.randn(x0.shape, generator=generator)


TEXT = Condition(context_BLD=torch.zeros(1, 2, 4))


def test_a_silent_network_scores_one_at_every_level():
    """Its error is Var[x0 | x], which the weight turns into 1 for data of deviation sigma_data."""
    loss = edm_loss(EDMDenoiser(Constant()), *draw(), TEXT)
    torch.testing.assert_close(loss.edm_B, torch.ones(4), atol=0.06, rtol=0)
    assert loss.loss.item() == pytest.approx(loss.edm_B.mean().item())


def test_equals_the_squared_error_of_the_raw_output():
    """weight · (x0 - x0^)² = (F* - F)², F* the output that would be right."""
    x0, sigma, noise = draw()
    network, s = Constant(0.4), draw()[1].view(-1, 1, 1, 1, 1)
    denoiser = EDMDenoiser(network)
    right = (x0 - denoiser.parametrization.c_skip(s) * (x0 + s * noise)) / denoiser.parametrization.c_out(s)
    expected = (right - 0.4).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(edm_loss(denoiser, x0, sigma, noise, TEXT).edm_B, expected)


def test_given_frames_neither_count_nor_dilute():
    x0, sigma, noise = draw()
    spoiled = noise.clone()
    spoiled[:, :, :2] = 100.0
    condition = Condition(context_BLD=torch.zeros(1, 2, 4), prefix_BCTHW=x0[:, :, :2])
    denoiser = EDMDenoiser(Constant(0.1))
    loss = edm_loss(denoiser, x0, sigma, spoiled, condition)
    alone = edm_loss(denoiser, x0[:, :, 2:], sigma, noise[:, :, 2:], TEXT)
    torch.testing.assert_close(loss.edm_B, alone.edm_B)


def test_position_weights_multiply_the_error():
    denoiser, weight = EDMDenoiser(Constant(0.1)), torch.full((4, 1, 5, 1, 1), 3.0)
    loss = edm_loss(denoiser, *draw(), TEXT, weight_B1THW=weight)
    torch.testing.assert_close(loss.edm_B, 3 * edm_loss(denoiser, *draw(), TEXT).edm_B)


def test_best_uncertainty_is_the_log_of_the_error():
    """d/du of exp(-u)·L + u is zero at u = ln L; a fresh head (u = 0) leaves the loss as it is."""
    network = Constant(2.0, head=True)
    denoiser = EDMDenoiser(network)
    plain, weighed = (edm_loss(denoiser, *draw(), TEXT, uncertainty=flag) for flag in (False, True))
    torch.testing.assert_close(plain.loss, weighed.loss)
    log_error = plain.edm_B.log()
    network.uncertainty.forward = lambda c_noise: log_error
    best = edm_loss(denoiser, *draw(), TEXT, uncertainty=True).loss
    torch.testing.assert_close(best, (1 + log_error).mean())
    for shift in (-0.1, 0.1):
        network.uncertainty.forward = lambda c_noise, shift=shift: log_error + shift
        assert edm_loss(denoiser, *draw(), TEXT, uncertainty=True).loss > best


def test_uncertainty_without_the_head_is_refused():
    with pytest.raises(ConfigError, match="uncertainty head"):
        edm_loss(EDMDenoiser(Constant()), *draw(), TEXT, uncertainty=True)
