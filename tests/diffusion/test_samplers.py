"""Samplers on problems whose exact solution is known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import ConfigError, UsageError
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.parametrization import EDM, NetworkDenoiser, RectifiedFlow
from worldfoundry.diffusion.samplers import SAMPLERS, initial_noise, sample_euler, sample_res_2m, sampler
from worldfoundry.diffusion.schedule import flow_sigmas, karras_sigmas, noise_levels, time_of_sigma

MEAN, STD = 0.7, 0.5
ORDERS = {"euler": 1, "heun": 2, "dpmpp_2m": 2, "res_2m": 2}


def gaussian_x0(x, sigma_B):
    """E[x0 | x] for x0 ~ N(MEAN, STD²): the perfect denoiser of a Gaussian target."""
    sigma = sigma_B.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact(x, sigma, end):
    """The flow keeps (x - MEAN) / sqrt(STD² + sigma²) constant."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + end**2) / (STD**2 + sigma**2))


def error(name, steps, end=0.05):
    """Largest error after `steps` intervals from sigma 3 to `end`, in float64."""
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)[None]
    sigmas = karras_sigmas(steps + 1, end, 3.0, end_at_zero=False)
    return (SAMPLERS[name](gaussian_x0, x, sigmas, None) - exact(x, 3.0, end)).abs().max().item()


def test_every_sampler_states_its_order():
    assert set(ORDERS) == set(SAMPLERS)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_convergence_order_on_a_gaussian_target(name):
    """Twice the steps, 1/2^order of the error."""
    coarse, fine = error(name, 64), error(name, 128)
    assert math.log2(coarse / fine) == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"euler"}))
def test_second_order_is_worth_its_evaluations(name):
    """At 32 evaluations each, less than a third of Euler's error."""
    steps = 16 if name == "heun" else 32
    assert error(name, steps) < error("euler", 32) / 3


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("schedule", ["karras", "flow"])
def test_samples_of_the_whole_schedule_follow_the_target(name, schedule):
    x = initial_noise((1, 20_000), 80.0, torch.Generator().manual_seed(0), sigma_data=STD)
    samples = SAMPLERS[name](gaussian_x0, x, noise_levels(schedule, 60), None)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_constant_x0_is_solved_exactly_in_any_steps_and_the_last_ends_on_it(name):
    target = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 80
    out = SAMPLERS[name](lambda x, s: target, x, karras_sigmas(5), None)
    assert torch.equal(out, target)
    early = SAMPLERS[name](lambda x, s: target, x, karras_sigmas(5, end_at_zero=False), None)
    torch.testing.assert_close(early, target + 0.002 / 80 * (x - target))


def test_res_is_exact_where_x0_is_linear_in_log_sigma():
    """x0 = a + b·lambda gives x = x0 - b + c·e^-lambda, a solution of dx/dlambda = x0 - x; the first step is Euler's."""
    a, b, c = 0.4, 0.3, 2.0
    sigmas = karras_sigmas(9, 0.05, 3.0, end_at_zero=False)

    def x0(sigma):
        return a - b * sigma.log()

    def solution(sigma):
        return x0(sigma) - b + c * sigma

    states = [solution(sigmas[0]).view(1, 1)]
    sample_res_2m(lambda x, s: x0(s.double()).view(1, 1), states[0], sigmas, lambda i, x, x0: states.append(x))
    # What the Euler step got wrong only decays, by sigma'/sigma: divided by sigma it stays what it is.
    wrong = torch.stack([(x - solution(s)) / s for x, s in zip(states, sigmas, strict=True)]).flatten()
    assert wrong[1].abs() > 1e-3
    torch.testing.assert_close(wrong[2:], wrong[1].expand(len(wrong) - 2), atol=1e-6, rtol=1e-6)


def test_euler_in_sigma_is_euler_in_the_time_of_rectified_flow():
    """x_t += (t' - t)·v with v = (x_t - x0)/t, in x_t = (1 - t)·x0 + t·noise."""
    sigmas = flow_sigmas(7, 20.0, shift=3.0)
    x = torch.linspace(-30, 30, 8, dtype=torch.float64)[None]
    x_t = x / (1 + sigmas[0])
    for sigma, following in pairwise(sigmas):
        t, t_after = time_of_sigma(sigma), time_of_sigma(following)
        x0 = gaussian_x0(x_t / (1 - t), sigma.view(1))
        x_t = x_t + (t_after - t) * (x_t - x0) / t
    torch.testing.assert_close(sample_euler(gaussian_x0, x, sigmas), x_t, atol=1e-5, rtol=1e-5)


def test_evaluations_and_callbacks():
    for name, evaluations in (("euler", 5), ("heun", 9), ("dpmpp_2m", 5), ("res_2m", 5)):
        seen, calls = [], []

        def denoise(x, sigma, seen=seen):
            seen.append(sigma.tolist())
            return torch.zeros_like(x)

        out = SAMPLERS[name](denoise, torch.ones(2, 1), karras_sigmas(5), lambda i, x, x0, calls=calls: calls.append((i, x)))
        assert len(seen) == evaluations
        assert all(len(sigma) == 2 for sigma in seen)
        assert [i for i, _ in calls] == list(range(5))
        assert torch.equal(calls[-1][1], out)


class Restless(nn.Module):
    """A network that answers with something else at every level and frame."""

    def forward(self, x, c_noise, context, **conditions):
        return torch.tanh(3 * x) + c_noise.view(-1, 1, 1, 1, 1) + context.mean()


@pytest.mark.parametrize("parametrization", [EDM(), RectifiedFlow()])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("split", [False, True])
def test_prefix_latents_come_out_unchanged(name, parametrization, split):
    """With guidance in an interval, so that guided and plain steps both occur."""
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randn(2, 3, 2, 4, 4, generator=generator) * parametrization.sigma_data
    condition = Condition(context_BLD=torch.ones(2, 3, 4), prefix_BCTHW=prefix, augment_noise_BCTHW=torch.ones_like(prefix))
    denoiser = NetworkDenoiser(Restless(), parametrization)
    denoise = guided(denoiser, condition, condition.unconditional(), 7.0, interval=(0.1, 10.0), split=split)
    x = initial_noise((2, 3, 5, 4, 4), 80.0, generator)
    out = sampler(name)(denoise, x, karras_sigmas(6), None)
    assert torch.equal(out[:, :, :2], prefix)
    assert out.isfinite().all()
    assert not torch.equal(out[:, :, 2:4], prefix)


def test_initial_noise_has_the_deviation_of_noisy_data_and_comes_from_the_generator():
    noise = initial_noise((50_000,), 2.0, torch.Generator().manual_seed(3))
    assert noise.std().item() == pytest.approx(math.sqrt(4.25), rel=0.02)
    assert torch.equal(noise, initial_noise((50_000,), 2.0, torch.Generator().manual_seed(3)))
    published = initial_noise((50_000,), 2.0, torch.Generator().manual_seed(3), unit_data=True)
    torch.testing.assert_close(published / noise, torch.full_like(noise, math.sqrt(5 / 4.25)))


def test_unknown_samplers_are_refused_with_the_closest():
    with pytest.raises(ConfigError, match=r"Unknown sampler 'dpmpp2m'\. Did you mean 'dpmpp_2m'"):
        sampler("dpmpp2m")


@pytest.mark.parametrize("sigmas", [[1.0, 1.0, 0.0], [1.0, 2.0], [1.0, -1.0], [0.0, 0.0]])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_levels_that_do_not_fall_are_refused(name, sigmas):
    with pytest.raises(UsageError, match="must fall at every step, but"):
        sampler(name)(gaussian_x0, torch.ones(1, 1), torch.tensor(sigmas), None)
