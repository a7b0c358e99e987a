"""Training of a diffusion world model on cached latents (arXiv 2501.03575, section 5.1): denoise what follows a prefix.

Axis legend: B batch, C latent channels, T H W latent frames/rows/columns, L context rows, D context width, K action features.
"""

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.loss import denoising_loss
from worldfoundry.diffusion.parametrization import NetworkDenoiser, parametrization
from worldfoundry.diffusion.schedule import LogNormalSigmas
from worldfoundry.training.config import DiffusionLossConfig
from worldfoundry.training.method import Share, StepOutput


class DiffusionMethod:
    """Minimise the denoising loss of the frames after a randomly long prefix."""

    def __init__(self, network: DiT, config: DiffusionLossConfig, contexts_NLD: Tensor, *, fps: float) -> None:
        """`contexts` are the embeddings of the distinct captions; a batch names its rows by index. `fps` of the clips."""
        self.module, self.config, self.contexts_NLD = network, config, contexts_NLD
        self.fps_B, self.prefix_weights = torch.tensor([fps]), torch.tensor(config.prefix_weights)
        self.denoiser = NetworkDenoiser(network, parametrization(config.parametrization, config.sigma_data))
        self.sigmas = LogNormalSigmas(mean=config.sigma_mean, std=config.sigma_std)
        self.share = Share()

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`latents` [B, C, T, H, W] normalised; `caption` [B] row numbers; optionally `actions` [B, T, K]."""
        device = next(self.module.parameters()).device
        x0_BCTHW = batch["latents"].float() * self.config.sigma_data
        everyones, mine = len(x0_BCTHW) * self.share.count, self.share.of
        keep_B = mine(torch.rand(everyones, generator=generator)) >= self.config.text_dropout
        context_BLD = self.contexts_NLD[batch["caption"]] * keep_B.float()[:, None, None]
        given_B = mine(torch.multinomial(self.prefix_weights, everyones, replacement=True, generator=generator))
        condition = Condition(
            context_BLD=context_BLD,
            fps_B=self.fps_B,
            prefix_BCTHW=x0_BCTHW,
            num_prefix_B=given_B,
            actions_BTA=batch.get("actions"),
        )
        sigma_B = mine(self.sigmas.sample(everyones, generator))
        noise_BCTHW = mine(torch.randn((everyones, *x0_BCTHW.shape[1:]), generator=generator))
        loss = denoising_loss(
            self.denoiser,
            x0_BCTHW.to(device),
            sigma_B.to(device),
            noise_BCTHW.to(device),
            condition.to(device),
            weight_B1THW=self._change_weight(x0_BCTHW, given_B).to(device),
            uncertainty=self.config.uncertainty,
        )
        return StepOutput(loss=loss.loss, metrics={"error": float(loss.error_B.mean())})

    def _change_weight(self, x0_BCTHW: Tensor, given_B: Tensor) -> Tensor:
        """1 where nothing changed since the last given latent frame, up to 1 + change_weight where much did."""
        last = (given_B - 1).clamp(min=0)
        last_BC1HW = x0_BCTHW[torch.arange(len(last)), :, last][:, :, None]
        rms_B1THW = (x0_BCTHW - last_BC1HW).square().mean(dim=1, keepdim=True).sqrt() / self.config.sigma_data
        return 1 + self.config.change_weight * (2 * rms_B1THW).clamp(max=1)

    def compile(self) -> None:
        """Compile block by block: one graph serves all blocks, at every noise level."""
        for block in self.module.blocks:
            block.compile(dynamic=False)
