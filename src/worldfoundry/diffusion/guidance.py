"""Classifier-free guidance as Cosmos and diffusers define it: cond + g · (cond - uncond), so g = 0 is the conditional alone."""

import math

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition, join
from worldfoundry.core.contracts import Denoiser
from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.parametrization import NetworkDenoiser, per_sample
from worldfoundry.diffusion.samplers import Denoise
from worldfoundry.nn.memo import Memo


def guided(
    denoiser: Denoiser,
    condition: Condition,
    unconditional: Condition | None = None,
    scale: float = 0.0,
    *,
    interval: tuple[float, float] | None = None,
    split: bool = False,
    memos: dict[tuple[str, torch.Size], Memo] | None = None,
) -> Denoise:
    """Bind a denoiser to its conditions: (x, sigma_B) → x0.

    `scale` is g. `unconditional` is what guidance moves away from: no text, or the negative prompt
    (`Condition.unconditional`). With g > 0 both branches run as ONE pass over a doubled batch; `split` runs one after the
    other, for half the memory. `interval` (low, high) guides only where low < sigma <= high, which costs one branch
    elsewhere (arXiv 2404.07724). x0 is affine in the network's output, so guiding x0 is guiding the output.
    `memos` keeps what a `NetworkDenoiser` need not compute again (see `nn.memo`): None = as long as the returned function
    lives. Pass a dict of your own to bind again with conditions that differ in nothing but `augment_noise`.
    Raises UsageError for g < 0, for g > 0 without an unconditional branch, and for an interval that holds nothing.
    """
    if not 0 <= scale < math.inf:
        raise UsageError(f"guidance_scale must be a number of at least 0, not {scale!r}.", "0 runs the condition alone.")
    low, high = interval or (0.0, math.inf)
    if not 0 <= low < high:
        raise UsageError(f"guidance_interval must be (low, high) with 0 <= low < high, not {interval!r}.")
    memos = {} if memos is None else memos

    def ask(name: str, x_BCTHW: Tensor, sigma_B: Tensor, branch: Condition) -> Tensor:
        if not isinstance(denoiser, NetworkDenoiser) or torch.is_grad_enabled():
            return denoiser(x_BCTHW, sigma_B, branch)
        return denoiser(x_BCTHW, sigma_B, branch, memos.setdefault((name, x_BCTHW.shape), {}))

    if scale == 0:
        return lambda x_BCTHW, sigma_B: ask("cond", x_BCTHW, sigma_B, condition)
    if unconditional is None:
        raise UsageError(f"guidance_scale {scale!r} needs an unconditional branch.", "Pass condition.unconditional(...), or 0.")

    def denoise(x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        inside_B = (sigma_B > low) & (sigma_B <= high)
        if interval is not None and not inside_B.any():  # asking a GPU makes it wait, so only where it can be
            return ask("cond", x_BCTHW, sigma_B, condition)
        if split:
            cond, uncond = (ask(n, x_BCTHW, sigma_B, c) for n, c in (("cond", condition), ("uncond", unconditional)))
        else:
            n = len(x_BCTHW)
            both = join([condition.batched(n), unconditional.batched(n)])
            cond, uncond = ask("both", torch.cat([x_BCTHW, x_BCTHW]), torch.cat([sigma_B, sigma_B]), both).chunk(2)
        return cond + per_sample(scale * inside_B, cond) * (cond - uncond)

    return denoise
