"""Training of a tokenizer: reconstruct the clip, judged by terms that set in one after another (arXiv 2501.03575, section 4.2).

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor

from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.config import TokenizerLossConfig
from worldfoundry.training.losses.perceptual import VggFeatures, gram_loss, load_features, perceptual_loss, random_frames
from worldfoundry.training.losses.pixel import pixel_loss
from worldfoundry.training.method import StepOutput


class TokenizerMethod:
    """Minimise the staged loss of decode(encode(x)). Networks that no term needs are not loaded."""

    def __init__(self, tokenizer: Tokenizer, config: TokenizerLossConfig, *, mirror: bool) -> None:
        self.module, self.config, self.mirror = tokenizer, config, mirror
        self.device = next(tokenizer.parameters()).device
        self.progress = 0.0
        looks = config.perceptual.weight or config.gram.weight
        self.features: VggFeatures | None = load_features(config.vgg).to(self.device) if looks else None

    def begin_step(self, progress: float) -> None:
        """The share of the budget that is spent decides which terms take part."""
        self.progress = progress

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`batch["video"]` is uint8 [B, T, H, W, 3]."""
        x_BCTHW = to_float(batch["video"]).to(next(self.module.parameters()).device)
        if self.mirror and torch.rand((), generator=generator) < 0.5:
            x_BCTHW = x_BCTHW.flip(-1)
        reconstruction_BCTHW = self.module(x_BCTHW).float()
        loss = pixel_loss(x_BCTHW, reconstruction_BCTHW, self.config)
        terms = self._terms(x_BCTHW, reconstruction_BCTHW, generator)
        for weight, value in terms.values():
            loss = loss + weight * value
        error = (reconstruction_BCTHW.detach() - x_BCTHW).square().mean()
        psnr = float(-10 * torch.log10(error / 4))
        return StepOutput(
            loss=loss, metrics={"psnr": psnr, **{name: float(value.detach()) for name, (_, value) in terms.items()}}
        )

    def _terms(self, x: Tensor, reconstruction: Tensor, generator: torch.Generator) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of every term that takes part now."""
        return self._perceptual_terms(x, reconstruction, generator)

    def _perceptual_terms(
        self, x: Tensor, reconstruction: Tensor, generator: torch.Generator
    ) -> dict[str, tuple[float, Tensor]]:
        perceptual, gram = self.config.perceptual.at(self.progress), self.config.gram.at(self.progress)
        if self.features is None or not (perceptual or gram):
            return {}
        true, made = random_frames([x, reconstruction], self.config.perceptual_frames, generator)
        with torch.no_grad():
            target = self.features(true)
        features = self.features(made)
        terms = {}
        if perceptual:
            terms["perceptual"] = perceptual, perceptual_loss(features, target)
        if gram:
            terms["gram"] = gram, gram_loss(features, target, len(true) // len(x))
        return terms

    def compile(self) -> None:
        """Convolutions gain nothing from compilation on the machines measured."""


def to_float(video_BTHWC: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] → float32 [B, C, T, H, W] in [-1, 1]."""
    return video_BTHWC.movedim(-1, 1).float().div_(127.5).sub_(1)


def to_uint8(x_BCTHW: Tensor) -> Tensor:
    """The inverse, clamped and rounded."""
    return x_BCTHW.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1)
