"""Schedules as closed forms: Karras, shifted times, and the levels of training."""

import math

import pytest
import torch

from worldfoundry.core.errors import ConfigError, UsageError
from worldfoundry.diffusion.schedule import (
    LogNormalSigmas,
    flow_sigmas,
    karras_sigmas,
    noise_levels,
    shift_time,
    shifted_logit_normal,
    sigma_of_time,
    time_of_sigma,
)


@pytest.mark.parametrize("steps", [1, 2, 35])
def test_karras_levels_fall_from_max_to_min_to_zero(steps):
    sigmas = karras_sigmas(steps, 0.002, 80.0)
    assert len(sigmas) == steps + 1
    assert sigmas[0].item() == pytest.approx(80.0)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    if steps > 1:
        assert sigmas[-2].item() == pytest.approx(0.002)
        even = sigmas[:-1] ** (1 / 7)
        torch.testing.assert_close(even.diff(), even.diff().mean().expand(steps - 1))


@pytest.mark.parametrize("shift", [0.5, 1.0, 5.0])
def test_flow_levels_are_even_in_unshifted_time_and_fall_from_max_to_zero(shift):
    sigmas = flow_sigmas(10, 80.0, shift)
    assert len(sigmas) == 11
    assert sigmas[0].item() == pytest.approx(80.0)
    assert sigmas[-1] == 0
    unshifted = time_of_sigma(sigmas / shift)
    torch.testing.assert_close(unshifted.diff(), unshifted.diff().mean().expand(10))


def test_time_and_sigma_are_one_level_and_a_shift_multiplies_sigma():
    sigma = torch.tensor([0.0, 0.01, 1.0, 80.0], dtype=torch.float64)
    torch.testing.assert_close(sigma_of_time(time_of_sigma(sigma)), sigma)
    torch.testing.assert_close(shift_time(time_of_sigma(sigma), 5.0), time_of_sigma(5 * sigma))
    assert torch.equal(shift_time(torch.tensor([0.0, 1.0]), 5.0), torch.tensor([0.0, 1.0]))


def test_levels_by_name():
    assert torch.equal(noise_levels("karras", 4, sigma_min=0.1, sigma_max=9.0, rho=5.0), karras_sigmas(4, 0.1, 9.0, 5.0))
    assert torch.equal(noise_levels("flow", 4, sigma_max=9.0, shift=3.0), flow_sigmas(4, 9.0, 3.0))
    with pytest.raises(ConfigError, match="Did you mean 'karras'"):
        noise_levels("karas", 4)


@pytest.mark.parametrize("schedule", ["karras", "flow"])
def test_no_steps_are_refused(schedule):
    with pytest.raises(UsageError, match="num_inference_steps must be at least 1, not 0"):
        noise_levels(schedule, 0)


def test_bad_levels_are_refused():
    with pytest.raises(UsageError, match="sigma_min <= sigma_max"):
        karras_sigmas(5, 3.0, 2.0)
    with pytest.raises(UsageError, match=r"greater than 0, not \(80.0, 0.0\)"):
        flow_sigmas(5, 80.0, 0.0)
    with pytest.raises(ConfigError, match=r"greater than 0, not \(-1.0, 1.0\)"):
        shifted_logit_normal(shift=-1.0)


def test_training_levels_are_log_normal():
    levels = LogNormalSigmas(mean=0.3, std=1.3)
    logs = levels.sample(40_000, torch.Generator().manual_seed(0)).log()
    assert logs.mean().item() == pytest.approx(0.3, abs=0.03)
    assert logs.std().item() == pytest.approx(1.3, rel=0.02)
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64).exp()
    assert torch.trapezoid(levels.density(grid), grid).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_shifted_logit_normal_draws_times_as_its_name_says(shift):
    """The same normals put through sigmoid and shift, written out in t."""
    levels = shifted_logit_normal(shift, mean=0.2, std=1.1)
    times = time_of_sigma(levels.sample(1000, torch.Generator().manual_seed(0)))
    normals = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1.1 + 0.2
    torch.testing.assert_close(times, shift_time(normals.sigmoid(), shift))
    assert levels.mean == pytest.approx(0.2 + math.log(shift))
