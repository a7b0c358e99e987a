"""Samplers on problems whose exact solution is known, and the schedules they run on."""

import math

import pytest
import torch

from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.samplers import SAMPLERS, initial_noise, sample_euler, sample_heun
from worldfoundry.diffusion.schedule import LogNormalSigmas, karras_sigmas

MEAN, STD = 0.7, 0.5


def gaussian_x0(x, sigma_B):
    """E[x0 | x] for x0 ~ N(MEAN, STD²): the perfect denoiser of a Gaussian target."""
    sigma = sigma_B.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact(x, sigma, end):
    """The flow keeps (x - MEAN) / sqrt(STD² + sigma²) constant."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + end**2) / (STD**2 + sigma**2))


def error(sampler, steps, end=0.05):
    """Largest error after `steps` intervals from sigma 3 to `end`, in float64."""
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)[None]
    sigmas = karras_sigmas(steps + 1, end, 3.0, end_at_zero=False)
    return (sampler(lambda x, s: gaussian_x0(x, s), x, sigmas) - exact(x, 3.0, end)).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_convergence_order_on_a_gaussian_target(name, order):
    coarse, fine = error(SAMPLERS[name], 32), error(SAMPLERS[name], 64)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samples_of_the_whole_schedule_follow_the_target(name):
    x = initial_noise((1, 20_000), 80.0, torch.Generator().manual_seed(0), sigma_data=STD)
    samples = SAMPLERS[name](gaussian_x0, x, karras_sigmas(60), None)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize("sampler", [sample_euler, sample_heun])
def test_the_last_step_to_zero_ends_exactly_on_x0(sampler):
    target = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    out = sampler(lambda x, s: target, torch.randn(2, 3) * 80, karras_sigmas(5))
    assert torch.equal(out, target)


def test_evaluations_and_callbacks():
    for sampler, evaluations in ((sample_euler, 5), (sample_heun, 9)):
        seen, calls = [], []

        def denoise(x, sigma, seen=seen):
            seen.append(sigma.tolist())
            return torch.zeros_like(x)

        out = sampler(denoise, torch.ones(2, 1), karras_sigmas(5), lambda i, x, x0, calls=calls: calls.append((i, x)))
        assert len(seen) == evaluations
        assert all(len(sigma) == 2 for sigma in seen)
        assert [i for i, _ in calls] == list(range(5))
        assert torch.equal(calls[-1][1], out)


def test_initial_noise_has_the_deviation_of_noisy_data_and_comes_from_the_generator():
    noise = initial_noise((50_000,), 2.0, torch.Generator().manual_seed(3))
    assert noise.std().item() == pytest.approx(math.sqrt(4.25), rel=0.02)
    assert torch.equal(noise, initial_noise((50_000,), 2.0, torch.Generator().manual_seed(3)))
    published = initial_noise((50_000,), 2.0, torch.Generator().manual_seed(3), unit_data=True)
    torch.testing.assert_close(published / noise, torch.full_like(noise, math.sqrt(5 / 4.25)))


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


def test_bad_schedules_are_refused():
    with pytest.raises(UsageError, match="num_inference_steps must be at least 1, not 0"):
        karras_sigmas(0)
    with pytest.raises(UsageError, match="sigma_min <= sigma_max"):
        karras_sigmas(5, 3.0, 2.0)


def test_training_levels_are_log_normal():
    levels = LogNormalSigmas(mean=0.3, std=1.3)
    logs = levels.sample(40_000, torch.Generator().manual_seed(0)).log()
    assert logs.mean().item() == pytest.approx(0.3, abs=0.03)
    assert logs.std().item() == pytest.approx(1.3, rel=0.02)
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64).exp()
    assert torch.trapezoid(levels.density(grid), grid).item() == pytest.approx(1.0, abs=1e-4)
