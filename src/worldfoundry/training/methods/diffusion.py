"""Training of a diffusion world model on latents (arXiv 2501.03575, section 5.1): denoise what follows a prefix, or images.

Axis legend: B batch, C latent channels, T H W latent frames/rows/columns, L context rows, D context width, K action features.
"""

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.flops import training_flops
from worldfoundry.diffusion.loss import denoising_loss
from worldfoundry.diffusion.parametrization import NetworkDenoiser, parametrization
from worldfoundry.diffusion.schedule import LogNormalSigmas
from worldfoundry.training.config import DiffusionLossConfig
from worldfoundry.training.method import Share, StepOutput


class DiffusionMethod:
    """Minimise the denoising loss of the frames after a randomly long prefix."""

    def __init__(
        self,
        network: DiT,
        config: DiffusionLossConfig,
        contexts_NLD: Tensor,
        *,
        fps: float,
        frame_levels: bool = False,
        augment_sigma: float = 0.001,
        token_dropout: float = 0.0,
    ) -> None:
        """`contexts` are the embeddings of the distinct captions; a batch names its rows by index. `fps` where a batch has none.

        `frame_levels`, `augment_sigma`: how given frames are shown to the network (`NetworkDenoiser`), as in sampling.
        `token_dropout`: share of samples of a diffusion decoder whose tokens are dropped.
        """
        self.module, self.config, self.contexts_NLD = network, config, contexts_NLD
        self.fps_B, self.prefix_weights = torch.tensor([fps]), torch.tensor(config.prefix_weights)
        target = parametrization(config.parametrization, config.sigma_data)
        self.denoiser, self.augment_sigma = NetworkDenoiser(network, target, frame_levels=frame_levels), augment_sigma
        self.token_dropout = token_dropout
        self.sigmas = LogNormalSigmas(mean=config.sigma_mean, std=config.sigma_std)
        self.share = Share()

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`latents` [B, C, T, H, W] normalised; `caption` [B] row numbers; optionally `actions` [B, T, K], `fps` [B],
        `padding` [B, 1, H, W] (1 where clips are padded) and, for a decoder, `tokens` [B, T, rows, columns]. With T = 1 it is a
        batch of images: nothing is given."""
        device = next(self.module.parameters()).device
        x0_BCTHW, condition, weight_B1THW = self.draw(batch, generator)
        (B, _, T, H, W), everyones = x0_BCTHW.shape, len(x0_BCTHW) * self.share.count
        sigma_B = self.share.of(self.sigmas.sample(everyones, generator))
        if self.config.adjust_video_noise:
            sigma_B = sigma_B * T**0.5
        noise_BCTHW = self.share.of(torch.randn((everyones, *x0_BCTHW.shape[1:]), generator=generator))
        loss = denoising_loss(
            self.denoiser,
            x0_BCTHW.to(device),
            sigma_B.to(device),
            noise_BCTHW.to(device),
            condition.to(device),
            weight_B1THW=weight_B1THW.to(device),
            uncertainty=self.config.uncertainty,
        )
        flops = training_flops(self.module.config, (B, T, H, W), condition.context_BLD.shape[1])
        return StepOutput(loss=loss.loss, metrics={"error": float(loss.error_B.mean())}, flops=flops)

    def draw(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Condition, Tensor]:
        """A batch's clean latents of deviation sigma_data, what is known of them (text may be dropped, a prefix of random
        length and a share of the ends are given), and each position's weight in the loss."""
        x0_BCTHW = batch["latents"].float() * self.config.sigma_data
        B, T = len(x0_BCTHW), x0_BCTHW.shape[2]
        everyones, mine = B * self.share.count, self.share.of
        keep_B = mine(torch.rand(everyones, generator=generator)) >= self.config.text_dropout
        context_BLD = self.contexts_NLD[batch["caption"]] * keep_B.float()[:, None, None]
        drawn = torch.multinomial(self.prefix_weights, everyones, replacement=True, generator=generator)
        given_B = mine(drawn).clamp(max=T - 1)
        ends_B = None
        if self.config.suffix_share:
            arrives_B = mine(torch.rand(everyones, generator=generator)) < self.config.suffix_share
            ends_B = (arrives_B & (given_B + 1 < T)).long()  # something must be left between
        condition = Condition(
            context_BLD=context_BLD,
            fps_B=batch.get("fps", self.fps_B),
            padding_mask_B1HW=batch["padding"].float() if "padding" in batch else None,
            prefix_BCTHW=x0_BCTHW,
            num_prefix_B=given_B,
            suffix_BCTHW=None if ends_B is None else x0_BCTHW[:, :, -1:],
            num_suffix_B=ends_B,
            augment_sigma=self.augment_sigma,
            actions_BTA=self._actions(batch, B, T),
            coarse=self._tokens(batch, generator),
        )
        return x0_BCTHW, condition, self._change_weight(x0_BCTHW, given_B)

    def _actions(self, batch: dict[str, Tensor], B: int, T: int) -> Tensor | None:
        """Those of the batch; zeros, as the first frame of any clip has, where a network that takes actions is shown images."""
        if "actions" in batch or not self.module.config.action_dim:
            return batch.get("actions")
        return torch.zeros(B, T, self.module.config.action_dim)

    def _tokens(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor | None:
        """Those of the batch; dropped ones become token 0, as in the published training."""
        if "tokens" not in batch:
            return None
        keep_B = self.share.of(torch.rand(len(batch["tokens"]) * self.share.count, generator=generator)) >= self.token_dropout
        return batch["tokens"].long() * keep_B.long()[:, None, None, None]

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
