"""Which noise levels are visited: when sampling (Karras, flow) and when training (log-normal sigma, logit-normal t).

Levels are sigmas, of x = x0 + sigma · noise. The times of rectified flow, x_t = (1 - t)·x0 + t·noise, are the same levels under
another name: t = sigma / (1 + sigma), so ln(sigma) = logit(t), and a time shift multiplies sigma.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.core.errors import ConfigError, UsageError, did_you_mean


def time_of_sigma(sigma: Tensor) -> Tensor:
    """t = sigma / (1 + sigma), in [0, 1)."""
    return sigma / (1 + sigma)


def sigma_of_time(time: Tensor) -> Tensor:
    """sigma = t / (1 - t); t = 1, noise alone, has no finite sigma."""
    return time / (1 - time)


def shift_time(time: Tensor, shift: float) -> Tensor:
    """t' = s·t / (1 + (s - 1)·t), which is sigma' = s·sigma (arXiv 2403.03206, eq. 23): s > 1 spends more on strong noise."""
    return shift * time / (1 + (shift - 1) * time)


# --- sampling --------------------------------------------------------------------------------------------------------


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, *, end_at_zero: bool = True
) -> Tensor:
    """`num_steps` falling noise levels from sigma_max to sigma_min inclusive, then 0: [num_steps + 1] (float64).

    Evenly spaced in sigma^(1/rho) (arXiv 2206.00364, eq. 5; the values are Cosmos'). A sampler takes one network evaluation
    (Euler) per interval. Raises UsageError for fewer than one step or levels out of order.
    """
    _check_steps(num_steps)
    if not 0 < sigma_min <= sigma_max:
        raise UsageError(f"Noise levels must satisfy 0 < sigma_min <= sigma_max, not {(sigma_min, sigma_max)!r}.")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]) if end_at_zero else sigmas


def flow_sigmas(num_steps: int, sigma_max: float = 80.0, shift: float = 1.0) -> Tensor:
    """Falling noise levels from sigma_max to 0 at shifted uniform times: [num_steps + 1] (float64).

    t_i = shift_time(u_i, shift) with u_i evenly spaced down to 0. sigma_max stands in for t = 1, whose sigma is infinite (80 is
    t = 0.988). Raises UsageError for fewer than one step or a level or shift that is not positive.
    """
    _check_steps(num_steps)
    if not (sigma_max > 0 and shift > 0):
        raise UsageError(f"sigma_max and shift must be greater than 0, not {(sigma_max, shift)!r}.")
    start = time_of_sigma(torch.tensor(sigma_max / shift, dtype=torch.float64))
    times = shift_time(start * torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift)
    return sigma_of_time(times)


def noise_levels(
    schedule: str,
    num_steps: int,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    shift: float = 1.0,
) -> Tensor:
    """The levels of a schedule by name: `karras` (sigma_min, sigma_max, rho) or `flow` (sigma_max, shift), both ending at 0."""
    if schedule == "karras":
        return karras_sigmas(num_steps, sigma_min, sigma_max, rho)
    if schedule == "flow":
        return flow_sigmas(num_steps, sigma_max, shift)
    raise ConfigError(f"Unknown schedule {schedule!r}.", did_you_mean(schedule, ["karras", "flow"]))


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise UsageError(f"num_inference_steps must be at least 1, not {num_steps!r}.")


# --- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LogNormalSigmas:
    """Training noise levels: ln sigma ~ N(mean, std²) (arXiv 2206.00364, section 5). Cosmos' released training: mean 0, std 1."""

    mean: float = 0.0
    std: float = 1.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """[n] in float32, on the generator's device."""
        return (torch.randn(n, generator=generator, device=generator.device) * self.std + self.mean).exp()

    def density(self, sigma: Tensor) -> Tensor:
        """Probability density of sigma."""
        z = (sigma.log() - self.mean) / self.std
        return torch.exp(-(z**2) / 2) / (sigma * self.std * math.sqrt(2 * math.pi))


def shifted_logit_normal(shift: float = 1.0, mean: float = 0.0, std: float = 1.0) -> LogNormalSigmas:
    """Rectified flow's training levels: logit(t) ~ N(mean, std²), then `shift_time(t, shift)` (arXiv 2403.03206, section 3.1).

    logit(t) = ln sigma and the shift multiplies sigma: these are log-normal sigmas about mean + ln(shift), and no draw comes
    out at t = 1. Raises ConfigError for a shift or std that is not positive.
    """
    if not (shift > 0 and std > 0):
        raise ConfigError(f"shift and std must be greater than 0, not {(shift, std)!r}.")
    return LogNormalSigmas(mean=mean + math.log(shift), std=std)
