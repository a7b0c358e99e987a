"""Which noise levels are visited: when sampling (Karras) and when training (log-normal). Sources: arXiv 2206.00364 eq. 5 and
section 5; the values are Cosmos' (arXiv 2501.03575, section 5.1.1)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.core.errors import UsageError


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, *, end_at_zero: bool = True
) -> Tensor:
    """`num_steps` falling noise levels from sigma_max to sigma_min inclusive, then 0: [num_steps + 1] (float64).

    Evenly spaced in sigma^(1/rho). A sampler takes one network evaluation (Euler) per interval.
    Raises UsageError for fewer than one step or levels out of order.
    """
    if num_steps < 1:
        raise UsageError(f"num_inference_steps must be at least 1, not {num_steps!r}.")
    if not 0 < sigma_min <= sigma_max:
        raise UsageError(f"Noise levels must satisfy 0 < sigma_min <= sigma_max, not {(sigma_min, sigma_max)!r}.")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]) if end_at_zero else sigmas


@dataclass(frozen=True, kw_only=True)
class LogNormalSigmas:
    """Training noise levels: ln sigma ~ N(mean, std²). Cosmos' released training uses mean 0 and std 1."""

    mean: float = 0.0
    std: float = 1.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """[n] in float32, on the generator's device."""
        return (torch.randn(n, generator=generator, device=generator.device) * self.std + self.mean).exp()

    def density(self, sigma: Tensor) -> Tensor:
        """Probability density of sigma."""
        z = (sigma.log() - self.mean) / self.std
        return torch.exp(-(z**2) / 2) / (sigma * self.std * math.sqrt(2 * math.pi))
