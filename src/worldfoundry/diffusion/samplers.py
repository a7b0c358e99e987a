"""Solvers of the probability-flow equation dx/dsigma = (x - x0(x, sigma)) / sigma (arXiv 2206.00364, eq. 1 and algorithm 1).

Legend: B batch, C latent channels, T H W latent frames/rows/columns. A sampler knows neither network nor condition: it asks
`denoiser(x, sigma_B) -> x0`, see `guidance.guided` for how a condition is bound.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_BCTHW, sigma_B) → x0_BCTHW."""
Callback = Callable[[int, Tensor, Tensor], None]
"""(index of the finished step, x after it, the x0 it was taken towards): for previews and progress."""


def initial_noise(
    shape: tuple[int, ...], sigma_max: float, generator: torch.Generator, *, sigma_data: float = 0.5, unit_data: bool = False
) -> Tensor:
    """The state at sigma_max, in float32 on the generator's device: noise times sqrt(sigma_max² + sigma_data²).

    That is the deviation of data plus noise. `unit_data` takes 1 for the data's instead, as the published pipelines do.
    """
    data = 1.0 if unit_data else sigma_data
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return noise * (sigma_max**2 + data**2) ** 0.5


def sample_euler(denoiser: Denoise, x_BCTHW: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """First order: one evaluation per interval of the falling `sigmas`. Global error O(step)."""
    for i, (sigma, following) in enumerate(_intervals(sigmas)):
        x0 = denoiser(x_BCTHW, _everywhere(sigma, x_BCTHW))
        # The Euler step x + (x - x0)/sigma·(following - sigma), written so that it ends exactly on x0 at zero.
        x_BCTHW = x0 + following / sigma * (x_BCTHW - x0)
        if callback is not None:
            callback(i, x_BCTHW, x0)
    return x_BCTHW


def sample_heun(denoiser: Denoise, x_BCTHW: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Second order: two evaluations per interval (one where it ends at zero). Global error O(step²).

    In u = 1/sigma the equation reads d(x/sigma)/du = x0, and this is the trapezoidal rule for it: an Euler step towards the
    mean of the two estimates, as in Cosmos' training-side sampler. (The EDM paper averages slopes in sigma instead, which
    is of the same order and less exact over the long first intervals.)
    """
    for i, (sigma, following) in enumerate(_intervals(sigmas)):
        x0 = denoiser(x_BCTHW, _everywhere(sigma, x_BCTHW))
        if following > 0:
            euler = x0 + following / sigma * (x_BCTHW - x0)
            x0 = (x0 + denoiser(euler, _everywhere(following, euler))) / 2
        x_BCTHW = x0 + following / sigma * (x_BCTHW - x0)
        if callback is not None:
            callback(i, x_BCTHW, x0)
    return x_BCTHW


SAMPLERS: dict[str, Callable[[Denoise, Tensor, Tensor, Callback | None], Tensor]] = {
    "euler": sample_euler,
    "heun": sample_heun,
}


def _intervals(sigmas: Tensor) -> list[tuple[float, float]]:
    values = sigmas.double().tolist()
    return list(pairwise(values))


def _everywhere(sigma: float, x_BCTHW: Tensor) -> Tensor:
    return torch.full((len(x_BCTHW),), sigma, dtype=torch.float32, device=x_BCTHW.device)
