"""EDM and rectified flow as identities, and what a denoiser does to given frames."""

import pytest
import torch
from torch import nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import ConfigError, UsageError
from worldfoundry.diffusion.parametrization import (
    EDM,
    PARAMETRIZATIONS,
    NetworkDenoiser,
    RectifiedFlow,
    parametrization,
    per_sample,
)
from worldfoundry.diffusion.schedule import time_of_sigma

SIGMAS = torch.tensor([1e-3, 0.1, 0.5, 2.0, 80.0], dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_input_and_training_target_have_unit_variance(sigma_data):
    """Of x0 ~ N(0, sigma_data²): Var[c_in·x] = 1 and Var[(x0 - c_skip·x)/c_out] = 1 (EDM, appendix B.6)."""
    edm = EDM(sigma_data=sigma_data)
    variance_of_x = SIGMAS**2 + sigma_data**2
    torch.testing.assert_close(edm.c_in(SIGMAS) ** 2 * variance_of_x, torch.ones_like(SIGMAS))
    target = (1 - edm.c_skip(SIGMAS)) ** 2 * sigma_data**2 + edm.c_skip(SIGMAS) ** 2 * SIGMAS**2
    torch.testing.assert_close(target / edm.c_out(SIGMAS) ** 2, torch.ones_like(SIGMAS))
    torch.testing.assert_close(edm.loss_weight(SIGMAS) * edm.c_out(SIGMAS) ** 2, torch.ones_like(SIGMAS))


def test_silent_network_gives_the_best_linear_guess():
    """c_skip·x is the posterior mean of Gaussian data: no other multiple of x has a smaller error."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(1, 1, 1, 500, 500, generator=generator) * 0.5
    sigma = torch.tensor([0.8])
    x = x0 + 0.8 * torch.randn(x0.shape, generator=generator)
    guess = EDM().denoise(torch.zeros_like(x), x, sigma)
    factor = (x0 * x).sum() / x.square().sum()
    torch.testing.assert_close(guess, factor * x, atol=2e-2, rtol=0)


def test_the_true_velocity_gives_x0_and_the_network_sees_the_interpolation():
    """x_t = (1 - t)·x0 + t·noise = c_in·x, v = noise - x0, x0 = x_t - t·v; the network is told t."""
    generator, flow = torch.Generator().manual_seed(0), RectifiedFlow()
    x0, noise = (torch.randn(5, 2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    x, t = x0 + per_sample(SIGMAS, x0) * noise, time_of_sigma(SIGMAS)
    x_t = (1 - per_sample(t, x0)) * x0 + per_sample(t, x0) * noise
    torch.testing.assert_close(per_sample(flow.c_in(SIGMAS), x) * x, x_t)
    torch.testing.assert_close(flow.denoise(noise - x0, x, SIGMAS), x0)
    assert torch.equal(flow.c_noise(SIGMAS), t)
    torch.testing.assert_close(flow.loss_weight(SIGMAS), t**-2)


def test_rectified_flow_reaches_the_network_through_the_denoiser():
    network, x, sigma = Recorder(), torch.randn(2, 3, 5, 4, 4), torch.tensor([0.25, 4.0])
    context = torch.full((1, 2, 4), 2.0)
    x0 = NetworkDenoiser(network, RectifiedFlow())(x, sigma, Condition(context_BLD=context))
    t = torch.tensor([0.2, 0.8])
    torch.testing.assert_close(network.c_noise, t)
    x_t = x * (1 - t).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(network.x, x_t)
    torch.testing.assert_close(x0, x_t - t.view(2, 1, 1, 1, 1) * (0.3 * x_t + 2.0))


def test_parametrizations_by_name():
    assert {name: parametrization(name, 0.7) for name in PARAMETRIZATIONS} == {
        "edm": EDM(sigma_data=0.7),
        "rectified_flow": RectifiedFlow(sigma_data=0.7),
    }
    with pytest.raises(ConfigError, match="Did you mean 'rectified_flow'"):
        parametrization("rectifiedflow", 1.0)


def test_the_published_prefix_rule_is_edm_alone():
    with pytest.raises(ConfigError, match="belongs to EDM"):
        NetworkDenoiser(Recorder(), RectifiedFlow(), prefix_rule="published")


class Recorder(nn.Module):
    """A network that remembers what it was given and answers with a fixed linear map."""

    def forward(self, x, c_noise, context, **conditions):
        self.x, self.c_noise, self.conditions = x, c_noise, conditions
        return 0.3 * x + context.mean()


def prefix_condition(**changes):
    generator = torch.Generator().manual_seed(1)
    values = {
        "context_BLD": torch.ones(2, 3, 4),
        "prefix_BCTHW": torch.randn(2, 3, 2, 4, 4, generator=generator) * 0.5,
        "augment_noise_BCTHW": torch.randn(2, 3, 2, 4, 4, generator=generator),
    }
    return Condition(**(values | changes))


BOTH = pytest.mark.parametrize("parametrization", [EDM(), RectifiedFlow(), RectifiedFlow(sigma_data=0.5)])


@BOTH
@pytest.mark.parametrize("sigma", [80.0, 1.0, 1e-4])
def test_given_frames_come_out_equal_to_the_prefix(sigma, parametrization):
    network, condition = Recorder(), prefix_condition()
    x = torch.randn(2, 3, 5, 4, 4) * sigma
    x0 = NetworkDenoiser(network, parametrization)(x, torch.full((2,), sigma), condition)
    assert torch.equal(x0[:, :, :2], condition.prefix_BCTHW)
    mask = network.conditions["condition_mask_B1THW"]
    assert mask[:, 0, :, 0, 0].tolist() == [[1, 1, 0, 0, 0]] * 2


@BOTH
@pytest.mark.parametrize("sigma", [80.0, 1.0, 1e-4])
def test_network_sees_given_frames_at_the_augmentation_level(sigma, parametrization):
    """After c_in(sigma), given frames are (prefix + s·noise)·c_in(s) with s = min(augment_sigma, sigma)."""
    network, condition = Recorder(), prefix_condition(augment_sigma=0.01)
    NetworkDenoiser(network, parametrization)(torch.randn(2, 3, 5, 4, 4) * sigma, torch.full((2,), sigma), condition)
    level = torch.tensor(min(0.01, sigma))
    expected = (condition.prefix_BCTHW + level * condition.augment_noise_BCTHW) * parametrization.c_in(level)
    torch.testing.assert_close(network.x[:, :, :2], expected)
    torch.testing.assert_close(network.conditions["prefix_BCTHW"], condition.prefix_BCTHW / parametrization.sigma_data)


@pytest.mark.parametrize("sigma", [80.0, 1.0])
def test_with_frame_levels_given_frames_are_seen_as_they_are_and_said_to_be(sigma):
    network, condition = Recorder(), prefix_condition(augment_sigma=0.01, augment_noise_BCTHW=None)
    parametrization = RectifiedFlow()
    denoiser = NetworkDenoiser(network, parametrization, frame_levels=True)
    x, sigma_B = torch.randn(2, 3, 5, 4, 4) * sigma, torch.full((2,), sigma)
    x0 = denoiser(x, sigma_B, condition)
    torch.testing.assert_close(network.x[:, :, :2], condition.prefix_BCTHW)
    level, own = (float(parametrization.c_noise(torch.tensor(s))) for s in (sigma, 0.01))
    torch.testing.assert_close(network.c_noise, torch.tensor([[own, own, level, level, level]] * 2))
    assert torch.equal(x0[:, :, :2], condition.prefix_BCTHW)


def test_samples_at_one_level_are_told_it_once_where_a_memo_is_kept():
    network, x, condition = Recorder(), torch.randn(2, 3, 5, 4, 4), prefix_condition()
    NetworkDenoiser(network)(x, torch.tensor([2.0, 2.0]), condition, {})
    assert network.c_noise.shape == (1,)
    NetworkDenoiser(network)(x, torch.tensor([2.0, 3.0]), condition, {})
    assert network.c_noise.shape == (2,)


def test_number_of_given_frames_may_differ_per_sample():
    network, condition = Recorder(), prefix_condition(num_prefix_B=torch.tensor([0, 2]))
    x, sigma = torch.randn(2, 3, 5, 4, 4), torch.ones(2)
    x0 = NetworkDenoiser(network)(x, sigma, condition)
    free = NetworkDenoiser(network)(x, sigma, prefix_condition(prefix_BCTHW=None, augment_noise_BCTHW=None))
    torch.testing.assert_close(x0[0], free[0])
    assert torch.equal(x0[1, :, :2], condition.prefix_BCTHW[1])


def test_published_rule_leaves_the_last_steps_to_the_network():
    network, condition = Recorder(), prefix_condition()
    denoiser = NetworkDenoiser(network, prefix_rule="published")
    x, sigma = torch.randn(2, 3, 5, 4, 4) * 1e-4, torch.full((2,), 1e-4)
    assert torch.equal(denoiser.with_prefix(x, sigma, condition), x)
    assert not torch.equal(denoiser(x, sigma, condition)[:, :, :2], condition.prefix_BCTHW)
    assert network.conditions["condition_mask_B1THW"].sum() == 4


def test_a_prefix_longer_than_the_clip_is_refused():
    with pytest.raises(UsageError, match="2 latent frames, more than the 1"):
        NetworkDenoiser(Recorder())(torch.randn(2, 3, 1, 4, 4), torch.ones(2), prefix_condition())


def test_per_sample_broadcasts_over_all_other_axes():
    assert per_sample(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)).shape == (2, 1, 1)
