"""Pixel errors of a reconstruction, with more weight where something moves.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

from torch import Tensor

from worldfoundry.training.config import TokenizerLossConfig


def pixel_loss(x_BCTHW: Tensor, reconstruction_BCTHW: Tensor, config: TokenizerLossConfig) -> Tensor:
    """l1 |e| + l2 e², averaged with weight 1 + `moving` at moving pixels. Pixels in [-1, 1]."""
    error_BCTHW = reconstruction_BCTHW - x_BCTHW
    loss_BCTHW = config.l1 * error_BCTHW.abs() + config.l2 * error_BCTHW.square()
    if config.moving and x_BCTHW.shape[2] > 1:
        loss_BCTHW = loss_BCTHW * (1 + config.moving * moving_pixels(x_BCTHW, config.moving_threshold))
    return loss_BCTHW.mean()


def moving_pixels(x_BCTHW: Tensor, threshold: float) -> Tensor:
    """1 where a pixel differs from its median over the clip's frames, [B, 1, T, H, W]."""
    still_BC1HW = x_BCTHW.median(dim=2, keepdim=True).values
    return ((x_BCTHW - still_BC1HW).abs().amax(dim=1, keepdim=True) > threshold).to(x_BCTHW.dtype)
