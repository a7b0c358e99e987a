"""How a network's output becomes an estimate of the clean latents: EDM and rectified flow, and the denoiser made with either.

Legend: B batch, C latent channels, T H W latent frames/rows/columns. x = x0 + sigma · noise for both parametrisations, with x0
of deviation sigma_data. Rectified flow is usually written with x_t = (1 - t)·x0 + t·noise; that is x / (1 + sigma) at
t = sigma / (1 + sigma), so schedules, samplers, guidance and prefix frames need no second form.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from worldfoundry.conditioning.condition import Condition, fill_frames
from worldfoundry.core.errors import ConfigError, did_you_mean
from worldfoundry.diffusion.schedule import time_of_sigma
from worldfoundry.nn.memo import Memo


@dataclass(frozen=True, kw_only=True)
class Parametrization(ABC):
    """x0 = c_skip·x + c_out·network(c_in·x, c_noise): four functions of sigma (arXiv 2206.00364, eq. 7)."""

    sigma_data: float
    """Deviation of the clean latents."""

    @abstractmethod
    def c_skip(self, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def c_out(self, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def c_in(self, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def c_noise(self, sigma: Tensor) -> Tensor: ...

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """1 / c_out²: the squared error of x0, so weighted, is the squared error of the network's output."""
        return self.c_out(sigma) ** -2

    def denoise(self, network_output_BCTHW: Tensor, x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        """The raw network output at (x, sigma) → the estimate of x0."""
        sigma = per_sample(sigma_B, x_BCTHW)
        return self.c_skip(sigma) * x_BCTHW + self.c_out(sigma) * network_output_BCTHW


@dataclass(frozen=True, kw_only=True)
class EDM(Parametrization):
    """Input and training target have unit variance at every sigma (arXiv 2206.00364, table 1; arXiv 2501.03575, section 5.1.1).

    c_skip = d²/(sigma² + d²), c_out = sigma·d/√(sigma² + d²), c_in = 1/√(sigma² + d²), c_noise = ln(sigma)/4, d = sigma_data.
    """

    sigma_data: float = 0.5

    def c_skip(self, sigma: Tensor) -> Tensor:
        return self.sigma_data**2 / (sigma**2 + self.sigma_data**2)

    def c_out(self, sigma: Tensor) -> Tensor:
        return sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()

    def c_in(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2).rsqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(Parametrization):
    """The network sees x_t and t and predicts the velocity v = dx_t/dt = noise - x0 (arXiv 2209.03003), so x0 = x_t - t·v.

    c_skip = c_in = 1/(1 + sigma) = 1 - t, c_out = -sigma/(1 + sigma) = -t, c_noise = t, as in Cosmos-Predict2. `sigma_data`
    does not enter; the published latents have deviation 1.
    """

    sigma_data: float = 1.0

    def c_skip(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        return -time_of_sigma(sigma)

    def c_in(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return time_of_sigma(sigma)


PARAMETRIZATIONS: dict[str, type[EDM] | type[RectifiedFlow]] = {"edm": EDM, "rectified_flow": RectifiedFlow}


def parametrization(name: str, sigma_data: float) -> Parametrization:
    """A parametrisation by name. Raises ConfigError with a suggestion for an unknown name."""
    if name not in PARAMETRIZATIONS:
        raise ConfigError(f"Unknown parametrization {name!r}.", did_you_mean(name, list(PARAMETRIZATIONS)))
    return PARAMETRIZATIONS[name](sigma_data=sigma_data)


class NetworkDenoiser:
    """A DiT-like network as a `core.contracts.Denoiser`, with given frames kept by replacement.

    Given frames of x (prefix, suffix) are replaced by their latents with a little noise (`Condition.augment_sigma`, never more
    than sigma itself), scaled as the network expects at that little noise; its mask channel tells the network which they are.
    With `frame_levels` (Cosmos-Predict2) it is also told augment_sigma as the noise level of those frames, and sees them unscaled.
    `prefix_rule` says what comes out there:
    `x0`: the prefix itself, at every step;
    `published`: what NVIDIA's inference code computes. It solves for a network output whose x0 would be the prefix, but
    with a misplaced division, so that x0 = prefix + c_skip·(1 - c_out)·x; and it replaces nothing once sigma has come down
    to augment_sigma. Kept so that the published samples can be reproduced (their sampler also steps from the replaced x,
    see `with_prefix`).
    """

    def __init__(
        self,
        network: nn.Module,
        parametrization: Parametrization | None = None,
        *,
        prefix_rule: Literal["x0", "published"] = "x0",
        frame_levels: bool = False,
    ) -> None:
        """`parametrization`: None = EDM(). Raises ConfigError for the published rule of another one."""
        self.network, self.parametrization, self.prefix_rule = network, parametrization or EDM(), prefix_rule
        self.frame_levels = frame_levels
        if prefix_rule == "published" and not isinstance(self.parametrization, EDM):
            raise ConfigError("prefix_rule 'published' belongs to EDM.", "Use 'x0' for other parametrisations.")

    def __call__(self, x_BCTHW: Tensor, sigma_B: Tensor, condition: Condition, memo: Memo | None = None) -> Tensor:
        """x0 for noisy latents x at noise levels sigma [B] (> 0). `memo`: see `nn.memo`; one per condition and shape of x."""
        condition = condition.batched(len(x_BCTHW))
        x_in_BCTHW = self.with_prefix(x_BCTHW, sigma_B, condition)
        x0_BCTHW = self.parametrization.denoise(self._network(x_in_BCTHW, sigma_B, condition, memo), x_in_BCTHW, sigma_B)
        replaced = self._replaced(x_BCTHW, sigma_B, condition)
        given_BCTHW = condition.given_latents(x_BCTHW)
        if replaced is None or given_BCTHW is None:
            return x0_BCTHW
        return torch.where(replaced, self._prefix_out(given_BCTHW, x_in_BCTHW, sigma_B), x0_BCTHW)

    def with_prefix(self, x_BCTHW: Tensor, sigma_B: Tensor, condition: Condition) -> Tensor:
        """x as the network sees it before c_in: given frames replaced by (prefix + s·noise)·c_in(s)/c_in(sigma).

        s = min(augment_sigma, sigma); after c_in(sigma) those frames look like noise level s. With `frame_levels` c_in(s) is
        left out.
        """
        replaced = self._replaced(x_BCTHW, sigma_B, condition)
        given_BCTHW = condition.given_latents(x_BCTHW)
        if replaced is None or given_BCTHW is None:
            return x_BCTHW
        level_B = sigma_B.clamp(max=condition.augment_sigma)
        if condition.augment_noise_BCTHW is not None:
            noise_BCTHW = fill_frames(condition.augment_noise_BCTHW, x_BCTHW)
            given_BCTHW = given_BCTHW + per_sample(level_B, x_BCTHW) * noise_BCTHW
        scale_B = (1.0 if self.frame_levels else self.parametrization.c_in(level_B)) / self.parametrization.c_in(sigma_B)
        return torch.where(replaced, given_BCTHW * per_sample(scale_B, x_BCTHW), x_BCTHW)

    def _replaced(self, x_BCTHW: Tensor, sigma_B: Tensor, condition: Condition) -> Tensor | None:
        """Where x is replaced, [B or 1, 1, T, 1, 1] of bool; None where nothing is given."""
        mask_B1T11 = condition.condition_mask(x_BCTHW.shape[2])
        if mask_B1T11 is None or self.prefix_rule == "x0":
            return None if mask_B1T11 is None else mask_B1T11.bool()
        return mask_B1T11.bool() & (sigma_B > condition.augment_sigma).view(-1, 1, 1, 1, 1)

    def _network(self, x_BCTHW: Tensor, sigma_B: Tensor, condition: Condition, memo: Memo | None) -> Tensor:
        """The raw output at x as it stands; the mask channel marks given frames whether or not x was replaced there."""
        prefix_BCTHW, mask_B1T11 = condition.prefix_BCTHW, condition.condition_mask(x_BCTHW.shape[2])
        return self.network(
            x_BCTHW * per_sample(self.parametrization.c_in(sigma_B), x_BCTHW),
            self._c_noise(sigma_B, condition, mask_B1T11, shared=memo is not None),
            condition.context_BLD,
            fps_B=condition.fps_B,
            padding_mask_B1HW=condition.padding_mask_B1HW,
            condition_mask_B1THW=mask_B1T11,
            actions_BTA=condition.actions_BTA,
            prefix_BCTHW=None if prefix_BCTHW is None else prefix_BCTHW / self.parametrization.sigma_data,
            **({} if condition.coarse is None else {"coarse": condition.coarse}),
            **({} if memo is None else {"memo": memo}),
        ).to(x_BCTHW.dtype)

    def _c_noise(self, sigma_B: Tensor, condition: Condition, mask_B1T11: Tensor | None, *, shared: bool) -> Tensor:
        """[B]; [B, T] where given frames have their own level; [1] where all samples are at one level (asked on a CPU only)."""
        if shared and sigma_B.device.type == "cpu" and bool((sigma_B == sigma_B[0]).all()):
            sigma_B = sigma_B[:1]
        c_noise_B = self.parametrization.c_noise(sigma_B)
        if not self.frame_levels or mask_B1T11 is None:
            return c_noise_B
        given = self.parametrization.c_noise(torch.full_like(sigma_B[:1], condition.augment_sigma))
        return torch.where(mask_B1T11[:, 0, :, 0, 0].bool(), given, c_noise_B[:, None])

    def _prefix_out(self, prefix_BCTHW: Tensor, x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        if self.prefix_rule == "x0":
            return prefix_BCTHW
        sigma = per_sample(sigma_B, x_BCTHW)
        return prefix_BCTHW + self.parametrization.c_skip(sigma) * (1 - self.parametrization.c_out(sigma)) * x_BCTHW


def per_sample(value_B: Tensor, like: Tensor) -> Tensor:
    """[B] → [B, 1, …] in the dtype of `like`, for broadcasting over its other axes."""
    return value_B.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))
