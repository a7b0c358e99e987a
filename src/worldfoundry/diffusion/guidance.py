"""Classifier-free guidance as Cosmos and diffusers define it: cond + g · (cond - uncond), so g = 0 is the conditional alone."""

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition, join
from worldfoundry.core.contracts import Denoiser
from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.samplers import Denoise


def guided(denoiser: Denoiser, condition: Condition, unconditional: Condition | None = None, scale: float = 0.0) -> Denoise:
    """Bind a denoiser to its conditions: (x, sigma_B) → x0.

    With g > 0 both branches run as ONE pass over a doubled batch. x0 is affine in the network's output, so guiding x0 is
    guiding the output. Raises UsageError for g < 0 or for g > 0 without an unconditional branch.
    """
    if scale < 0:
        raise UsageError(f"guidance_scale must be at least 0, not {scale!r}.", "0 runs the condition alone.")
    if scale == 0:
        return lambda x_BCTHW, sigma_B: denoiser(x_BCTHW, sigma_B, condition)
    if unconditional is None:
        raise UsageError(f"guidance_scale {scale!r} needs an unconditional branch.", "Pass condition.unconditional(...), or 0.")

    def denoise(x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        n = len(x_BCTHW)
        both = join([condition.batched(n), unconditional.batched(n)])
        cond, uncond = denoiser(torch.cat([x_BCTHW, x_BCTHW]), torch.cat([sigma_B, sigma_B]), both).chunk(2)
        return cond + scale * (cond - uncond)

    return denoise
