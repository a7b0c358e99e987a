"""Solvers of the probability-flow equation dx/dsigma = (x - x0(x, sigma)) / sigma (arXiv 2206.00364, eq. 1 and algorithm 1).

Legend: B batch, C latent channels, T H W latent frames/rows/columns. A sampler knows neither network nor condition: it asks
`denoiser(x, sigma_B) -> x0`, see `guidance.guided` for how a condition is bound.

With lambda = -ln sigma the equation is dx/dlambda = x0 - x, whose exact solution over a step h = ln(sigma / sigma') is

    x' = e^-h · x + ∫ e^(s-h) · x0(s) ds over s in [0, h].

All samplers here take the step that is exact for a constant x0, x' = x0 + (sigma'/sigma)·(x - x0), and differ in which x0 they
put there. A last step to sigma' = 0 ends on the network's own x0, so given frames come out as they went in.
In the time of rectified flow (`schedule.time_of_sigma`) this is the same equation, and Euler steps are the same steps.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from worldfoundry.core.errors import ConfigError, UsageError, did_you_mean

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_BCTHW, sigma_B) → x0_BCTHW."""
Callback = Callable[[int, Tensor, Tensor], None]
"""(index of the finished step, x after it, the x0 it was taken towards): for previews and progress."""
Sampler = Callable[[Denoise, Tensor, Tensor, Callback | None], Tensor]
"""(denoiser, x at sigmas[0], falling sigmas, callback) → x at sigmas[-1]."""


def initial_noise(
    shape: tuple[int, ...], sigma_max: float, generator: torch.Generator, *, sigma_data: float = 0.5, unit_data: bool = False
) -> Tensor:
    """The state at sigma_max, in float32 on the generator's device: noise times sqrt(sigma_max² + sigma_data²).

    That is the deviation of data plus noise. `unit_data` takes 1 for the data's instead, as the published pipelines do.
    """
    data = 1.0 if unit_data else sigma_data
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return noise * (sigma_max**2 + data**2) ** 0.5


# --- one step at a time ----------------------------------------------------------------------------------------------


def sample_euler(denoiser: Denoise, x_BCTHW: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """First order: one evaluation per interval of the falling `sigmas`, x0 held constant. Global error O(h)."""
    for i, (sigma, following) in enumerate(_intervals(sigmas)):
        x0 = denoiser(x_BCTHW, _everywhere(sigma, x_BCTHW))
        x_BCTHW = _towards(x0, x_BCTHW, sigma, following)
        if callback is not None:
            callback(i, x_BCTHW, x0)
    return x_BCTHW


def sample_heun(denoiser: Denoise, x_BCTHW: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Second order: two evaluations per interval (one where it ends at zero). Global error O(h²).

    In u = 1/sigma the equation reads d(x/sigma)/du = x0, and this is the trapezoidal rule for it: an Euler step towards the
    mean of the two estimates, as in Cosmos' training-side sampler. (The EDM paper averages slopes in sigma instead, which
    is of the same order and less exact over the long first intervals.)
    """
    for i, (sigma, following) in enumerate(_intervals(sigmas)):
        x0 = denoiser(x_BCTHW, _everywhere(sigma, x_BCTHW))
        if following > 0:
            euler = _towards(x0, x_BCTHW, sigma, following)
            x0 = (x0 + denoiser(euler, _everywhere(following, euler))) / 2
        x_BCTHW = _towards(x0, x_BCTHW, sigma, following)
        if callback is not None:
            callback(i, x_BCTHW, x0)
    return x_BCTHW


# --- multistep: second order at one evaluation per step --------------------------------------------------------------


def sample_dpmpp_2m(denoiser: Denoise, x_BCTHW: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """DPM-Solver++(2M): x0 at the middle of the step, on the line through the last two (arXiv 2211.01095, algorithm 2).

    x0 + (h / 2h_before)·(x0 - x0_before). First step and a last one to zero are Euler's. Global error O(h²).
    """
    return _multistep(denoiser, x_BCTHW, sigmas, callback, lambda h, h_before: h / (2 * h_before))


def sample_res_2m(denoiser: Denoise, x_BCTHW: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Second-order multistep RES, Cosmos' `2ab`: exact for an x0 that is linear in lambda (arXiv 2308.02157).

    With phi1 = (1 - e^-h)/h and phi2 = (1 - phi1)/h the step is e^-h·x + h·(phi1·x0 + phi2·(h/h_before)·(x0 - x0_before)).
    First step and a last one to zero are Euler's. Global error O(h²).
    """

    def weight(h: float, h_before: float) -> float:
        phi1 = -math.expm1(-h) / h
        return (1 - phi1) / (h_before * phi1)

    return _multistep(denoiser, x_BCTHW, sigmas, callback, weight)


def _multistep(
    denoiser: Denoise,
    x_BCTHW: Tensor,
    sigmas: Tensor,
    callback: Callback | None,
    weight: Callable[[float, float], float],
) -> Tensor:
    """Steps towards x0 + weight(h, h_before)·(x0 - x0_before), h and h_before being the lengths in lambda of this step and
    the one before."""
    x0_before, h_before = None, 0.0
    for i, (sigma, following) in enumerate(_intervals(sigmas)):
        x0 = denoiser(x_BCTHW, _everywhere(sigma, x_BCTHW))
        target, h = x0, math.log(sigma / following) if following > 0 else math.inf
        if x0_before is not None and following > 0:
            target = x0 + weight(h, h_before) * (x0 - x0_before)
        x_BCTHW = _towards(target, x_BCTHW, sigma, following)
        x0_before, h_before = x0, h
        if callback is not None:
            callback(i, x_BCTHW, x0)
    return x_BCTHW


SAMPLERS: dict[str, Sampler] = {
    "euler": sample_euler,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "res_2m": sample_res_2m,
}


def sampler(name: str) -> Sampler:
    """A sampler by name. Raises ConfigError with a suggestion for an unknown name."""
    if name not in SAMPLERS:
        raise ConfigError(f"Unknown sampler {name!r}.", did_you_mean(name, list(SAMPLERS)))
    return SAMPLERS[name]


def _intervals(sigmas: Tensor) -> list[tuple[float, float]]:
    """(sigma, following) per step. Raises UsageError where levels do not fall to zero or above."""
    values = sigmas.double().tolist()
    steps = list(pairwise(values))
    wrong = next(((a, b) for a, b in steps if not a > b >= 0), None)
    if wrong is not None:
        raise UsageError(f"Noise levels must fall at every step, but {wrong[0]:g} is followed by {wrong[1]:g}.")
    return steps


def _towards(x0: Tensor, x_BCTHW: Tensor, sigma: float, following: float) -> Tensor:
    """The step that is exact for a constant x0, written so that it ends exactly on x0 at zero."""
    return x0 + following / sigma * (x_BCTHW - x0)


def _everywhere(sigma: float, x_BCTHW: Tensor) -> Tensor:
    return torch.full((len(x_BCTHW),), sigma, dtype=torch.float32, device=x_BCTHW.device)
