"""The training loss, for every parametrisation, with the option that the network weighs its own noise levels.

Legend: B batch, C latent channels, T H W latent frames/rows/columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.parametrization import NetworkDenoiser, per_sample


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """`loss` is what is minimised; `error_B` the weighted squared error per sample, to watch (EDM: 1 = no better than c_skip·x)."""

    loss: Tensor
    error_B: Tensor


def denoising_loss(
    denoiser: NetworkDenoiser,
    x0_BCTHW: Tensor,
    sigma_B: Tensor,
    noise_BCTHW: Tensor,
    condition: Condition,
    *,
    weight_B1THW: Tensor | None = None,
    uncertainty: bool = False,
) -> DiffusionLoss:
    """Squared error of x0 over the frames that are not given, weighted by 1 / c_out² (arXiv 2501.03575, eq. 7 to 9).

    So weighted it is the squared error of the network's own output: with `EDM` that of a unit-variance target, with
    `RectifiedFlow` that of the velocity, |v^ - (noise - x0)|² at t = sigma / (1 + sigma) (arXiv 2209.03003, eq. 1). What x0
    leaves uncertain cannot be learnt: Gaussian data of deviation s has Var[x0|x] = s²·sigma²/(s² + sigma²), so the least
    loss is 1 at every sigma for EDM with sigma_data = s, and s² / (s²·(1 - t)² + t²) for rectified flow.

    `weight` multiplies the error per position (any shape that broadcasts to x0), None = 1. With `uncertainty` the network
    also predicts u(c_noise) and the loss is exp(-u)·error + u (Kendall and Gal, arXiv 1703.04977), whose best u is the log
    of the expected error: noise levels then count alike. Raises ConfigError if the network has no such head.
    """
    x_BCTHW = x0_BCTHW + per_sample(sigma_B, x0_BCTHW) * noise_BCTHW
    error_BCTHW = (denoiser(x_BCTHW, sigma_B, condition) - x0_BCTHW).square()
    if weight_B1THW is not None:
        error_BCTHW = error_BCTHW * weight_B1THW
    error_B = mean_over_made_frames(error_BCTHW, condition) * denoiser.parametrization.loss_weight(sigma_B)
    if not uncertainty:
        return DiffusionLoss(loss=error_B.mean(), error_B=error_B.detach())
    head = getattr(denoiser.network, "uncertainty", None)
    if head is None:
        raise ConfigError("Uncertainty weighting needs a network with the uncertainty head.", "Set dit.uncertainty to true.")
    u_B = head(denoiser.parametrization.c_noise(sigma_B))
    return DiffusionLoss(loss=(torch.exp(-u_B) * error_B + u_B).mean(), error_B=error_B.detach())


def mean_over_made_frames(error_BCTHW: Tensor, condition: Condition) -> Tensor:
    """The mean per sample, [B], over the frames that are not given."""
    given = condition.batched(len(error_BCTHW)).condition_mask(error_BCTHW.shape[2])
    share = torch.ones_like(error_BCTHW[:, :1, :, :1, :1]) if given is None else 1 - given
    frames_B = share.sum(dim=(1, 2, 3, 4)).clamp(min=1)
    return (error_BCTHW.mean(dim=(1, 3, 4), keepdim=True) * share).sum(dim=(1, 2, 3, 4)) / frames_B
