"""Training of a video tokenizer: reconstruct the clip (arXiv 2501.03575, section 4.2; here the pixel terms).

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor

from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.config import TokenizerLossConfig
from worldfoundry.training.method import StepOutput


class TokenizerMethod:
    """Minimise the weighted reconstruction error of decode(encode(x))."""

    def __init__(self, tokenizer: Tokenizer, config: TokenizerLossConfig, *, mirror: bool) -> None:
        self.module, self.config, self.mirror = tokenizer, config, mirror

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`batch["video"]` is uint8 [B, T, H, W, 3]."""
        x_BCTHW = to_float(batch["video"]).to(next(self.module.parameters()).device)
        if self.mirror and torch.rand((), generator=generator) < 0.5:
            x_BCTHW = x_BCTHW.flip(-1)
        error_BCTHW = self.module(x_BCTHW).float() - x_BCTHW
        weight_B1THW = 1 + self.config.moving * moving_pixels(x_BCTHW, self.config.moving_threshold)
        loss = (weight_B1THW * (self.config.l1 * error_BCTHW.abs() + self.config.l2 * error_BCTHW.square())).mean()
        return StepOutput(loss=loss, metrics={"psnr": float(-10 * torch.log10(error_BCTHW.detach().square().mean() / 4))})

    def compile(self) -> None:
        """Convolutions gain nothing from compilation on the machines measured."""


def to_float(video_BTHWC: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] → float32 [B, C, T, H, W] in [-1, 1]."""
    return video_BTHWC.movedim(-1, 1).float().div_(127.5).sub_(1)


def to_uint8(x_BCTHW: Tensor) -> Tensor:
    """The inverse, clamped and rounded."""
    return x_BCTHW.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1)


def moving_pixels(x_BCTHW: Tensor, threshold: float) -> Tensor:
    """1 where a pixel differs from its median over the clip's frames, [B, 1, T, H, W]."""
    still_BC1HW = x_BCTHW.median(dim=2, keepdim=True).values
    return ((x_BCTHW - still_BC1HW).abs().amax(dim=1, keepdim=True) > threshold).to(x_BCTHW.dtype)
