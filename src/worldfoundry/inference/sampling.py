"""One pass of a sampler: noise from seeds, noise levels, guidance, and the estimate after every step.

Axis legend: B batch, C latent channels, T latent frames, H latent rows, W latent columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.contracts import Denoiser
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.samplers import Denoise, initial_noise, sampler
from worldfoundry.diffusion.schedule import noise_levels
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.nn.memo import Memo

StepCallback = Callable[[int, int, Tensor], None]
"""(finished step, steps in all, the present estimate of the latents with deviation sigma_data)."""


def sampling_levels(scheduler: SchedulerConfig, steps: int) -> Tensor:
    """The falling noise levels that are visited, [steps + 1] or, where sampling ends at sigma_min, [steps]."""
    sigmas = noise_levels(
        scheduler.schedule, steps, sigma_min=scheduler.sigma_min, sigma_max=scheduler.sigma_max,
        rho=scheduler.rho, shift=scheduler.shift,
    )  # fmt: skip
    # The published sampler's last step goes from sigma_min to sigma_min: it changes nothing.
    return sigmas[:-1] if scheduler.final_sigmas_type == "sigma_min" else sigmas


def seeded(seed: int, batch: int) -> list[torch.Generator]:
    """A generator per sample, on the CPU whatever the world runs on; sample i has seed + i."""
    return [torch.Generator().manual_seed(seed + i) for i in range(batch)]


@torch.inference_mode()
def sample_window(
    denoiser: Denoiser,
    scheduler: SchedulerConfig,
    sigmas: Tensor,
    condition: Condition,
    unconditional: Condition | None,
    guidance_scale: float,
    shape_CTHW: tuple[int, int, int, int],
    generators: Sequence[torch.Generator],
    device: torch.device,
    *,
    split: bool = False,
    tell: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Latents of deviation 1, [B, C, T, H, W] in float32. `tell(step, x0)` is called after every step."""
    noise = [initial_noise(shape_CTHW, scheduler.sigma_max, g, sigma_data=scheduler.sigma_data) for g in generators]
    guide = _Guide(denoiser, condition, unconditional, guidance_scale, scheduler, generators, split)
    callback = None if tell is None else lambda i, x, x0: tell(i, x0)
    x_BCTHW = sampler(scheduler.sampler)(guide.denoise, torch.stack(noise).to(device), sigmas, callback)
    return x_BCTHW.float() / scheduler.sigma_data


class _Guide:
    """The guided denoiser of one window; where given frames carry noise it is drawn anew at every evaluation."""

    def __init__(
        self, denoiser: Denoiser, condition: Condition, unconditional: Condition | None, scale: float,
        scheduler: SchedulerConfig, generators: Sequence[torch.Generator], split: bool,
    ) -> None:  # fmt: skip
        self.denoiser, self.condition, self.unconditional, self.scale = denoiser, condition, unconditional, scale
        self.interval, self.split, self.generators = scheduler.guidance_interval, split, generators
        given = condition.prefix_BCTHW is not None or condition.suffix_BCTHW is not None
        self.draws = scheduler.augment_noise and given
        self._memos: dict[tuple[str, torch.Size], Memo] = {}  # only the augmentation noise differs between bindings
        self._fixed = self._bind(condition, unconditional)

    def denoise(self, x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        if not self.draws:
            return self._fixed(x_BCTHW, sigma_B)
        condition, unconditional = self._with_noise(self.condition, x_BCTHW), self.unconditional
        if unconditional is not None:  # the published code draws for each branch
            unconditional = self._with_noise(unconditional, x_BCTHW)
        return self._bind(condition, unconditional)(x_BCTHW, sigma_B)

    def _bind(self, condition: Condition, unconditional: Condition | None) -> Denoise:
        return guided(
            self.denoiser, condition, unconditional, self.scale, interval=self.interval, split=self.split, memos=self._memos
        )

    def _with_noise(self, condition: Condition, x_BCTHW: Tensor) -> Condition:
        noise = torch.stack([torch.randn(x_BCTHW.shape[1:], generator=g) for g in self.generators])
        return replace(condition, augment_noise_BCTHW=noise.to(x_BCTHW))
