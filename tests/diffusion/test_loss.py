"""The loss against closed forms."""

import math

import pytest
import torch
from torch import nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.dit import UncertaintyHead
from worldfoundry.diffusion.loss import denoising_loss
from worldfoundry.diffusion.parametrization import EDM, NetworkDenoiser, RectifiedFlow
from worldfoundry.diffusion.schedule import shifted_logit_normal, sigma_of_time


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
    loss = denoising_loss(NetworkDenoiser(Constant()), *draw(), TEXT)
    torch.testing.assert_close(loss.error_B, torch.ones(4), atol=0.06, rtol=0)
    assert loss.loss.item() == pytest.approx(loss.error_B.mean().item())


def test_equals_the_squared_error_of_the_raw_output():
    """weight · (x0 - x0^)² = (F* - F)², F* the output that would be right."""
    x0, sigma, noise = draw()
    network, s = Constant(0.4), draw()[1].view(-1, 1, 1, 1, 1)
    denoiser = NetworkDenoiser(network)
    right = (x0 - denoiser.parametrization.c_skip(s) * (x0 + s * noise)) / denoiser.parametrization.c_out(s)
    expected = (right - 0.4).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(denoising_loss(denoiser, x0, sigma, noise, TEXT).error_B, expected)


def test_of_rectified_flow_is_the_squared_error_of_the_velocity():
    x0, sigma, noise = draw()
    loss = denoising_loss(NetworkDenoiser(Constant(0.4), RectifiedFlow()), x0, sigma, noise, TEXT)
    torch.testing.assert_close(loss.error_B, (noise - x0 - 0.4).square().mean(dim=(1, 2, 3, 4)))


class BestOfGaussian(nn.Module):
    """The network whose x0 is E[x0 | x] = s²/(s² + sigma²)·x for x0 ~ N(0, s²), times `scale`."""

    def __init__(self, parametrization, std, scale=1.0):
        super().__init__()
        self.parametrization, self.std, self.scale = parametrization, std, scale

    def forward(self, x_in, c_noise, context, **conditions):
        flow = isinstance(self.parametrization, RectifiedFlow)
        sigma = (sigma_of_time(c_noise) if flow else (4 * c_noise).exp()).view(-1, 1, 1, 1, 1)
        x, mean = x_in / self.parametrization.c_in(sigma), self.std**2 / (self.std**2 + sigma**2)
        best = (mean - self.parametrization.c_skip(sigma)) / self.parametrization.c_out(sigma)
        return self.scale * best * x


def least_loss(parametrization, std, sigma, scale=1.0, seed=0):
    """The loss per level of the best (or a scaled) network on Gaussian data, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(len(sigma), 4, 2, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    denoiser = NetworkDenoiser(BestOfGaussian(parametrization, std, scale), parametrization)
    return denoising_loss(denoiser, std * x0, sigma, noise, TEXT).error_B


SPREAD = 5 * math.sqrt(2 / (4 * 2 * 64 * 64))
"""Five standard deviations of the mean square of as many normals."""


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", [EDM, RectifiedFlow])
def test_least_loss_of_gaussian_data_is_the_weighted_posterior_variance(kind, std):
    """EDM with sigma_data = s: 1 at every level. Rectified flow: s² / (s²·(1 - t)² + t²). Any other scale is worse."""
    parametrization, t = kind(sigma_data=std), torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    least = torch.ones_like(t) if kind is EDM else std**2 / (std**2 * (1 - t) ** 2 + t**2)
    found = least_loss(parametrization, std, sigma_of_time(t))
    torch.testing.assert_close(found, least, rtol=SPREAD, atol=0)
    if kind is RectifiedFlow:  # EDM's best network is silent here, whatever its scale
        for scale in (0.8, 1.2):
            assert least_loss(parametrization, std, sigma_of_time(t), scale).mean() > found.mean()


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_least_loss_of_rectified_flow_over_even_times_is_half_pi_times_the_deviation(std):
    """∫ s² / (s²·(1 - t)² + t²) dt over [0, 1] = s·π/2."""
    t = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    found = least_loss(RectifiedFlow(), std, sigma_of_time(t)).mean().item()
    assert found == pytest.approx(std * math.pi / 2, rel=SPREAD / 5)


def test_rectified_flow_trains_at_the_shifted_levels_without_a_singular_one():
    """A strong shift puts draws beside t = 1, where sigma is largest: the loss of the best network stays its closed form."""
    sigma = shifted_logit_normal(shift=100.0).sample(64, torch.Generator().manual_seed(0)).double()
    found = least_loss(RectifiedFlow(), 1.0, sigma)
    torch.testing.assert_close(found, (1 + sigma) ** 2 / (1 + sigma**2), rtol=SPREAD, atol=0)


def test_given_frames_neither_count_nor_dilute():
    x0, sigma, noise = draw()
    spoiled = noise.clone()
    spoiled[:, :, :2] = 100.0
    condition = Condition(context_BLD=torch.zeros(1, 2, 4), prefix_BCTHW=x0[:, :, :2])
    denoiser = NetworkDenoiser(Constant(0.1))
    loss = denoising_loss(denoiser, x0, sigma, spoiled, condition)
    alone = denoising_loss(denoiser, x0[:, :, 2:], sigma, noise[:, :, 2:], TEXT)
    torch.testing.assert_close(loss.error_B, alone.error_B)


def test_position_weights_multiply_the_error():
    denoiser, weight = NetworkDenoiser(Constant(0.1)), torch.full((4, 1, 5, 1, 1), 3.0)
    loss = denoising_loss(denoiser, *draw(), TEXT, weight_B1THW=weight)
    torch.testing.assert_close(loss.error_B, 3 * denoising_loss(denoiser, *draw(), TEXT).error_B)


def test_best_uncertainty_is_the_log_of_the_error():
    """d/du of exp(-u)·L + u is zero at u = ln L; a fresh head (u = 0) leaves the loss as it is."""
    network = Constant(2.0, head=True)
    denoiser = NetworkDenoiser(network)
    plain, weighed = (denoising_loss(denoiser, *draw(), TEXT, uncertainty=flag) for flag in (False, True))
    torch.testing.assert_close(plain.loss, weighed.loss)
    log_error = plain.error_B.log()
    network.uncertainty.forward = lambda c_noise: log_error
    best = denoising_loss(denoiser, *draw(), TEXT, uncertainty=True).loss
    torch.testing.assert_close(best, (1 + log_error).mean())
    for shift in (-0.1, 0.1):
        network.uncertainty.forward = lambda c_noise, shift=shift: log_error + shift
        assert denoising_loss(denoiser, *draw(), TEXT, uncertainty=True).loss > best


def test_uncertainty_without_the_head_is_refused():
    with pytest.raises(ConfigError, match="uncertainty head"):
        denoising_loss(NetworkDenoiser(Constant()), *draw(), TEXT, uncertainty=True)
