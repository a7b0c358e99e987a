"""Normalisation of video frame by frame, so that statistics of later frames cannot reach earlier ones.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class FrameNorm(nn.GroupNorm):
    """Mean and variance over channels, height and width of each frame; scale and shift per channel.

    This is group normalisation with one group (the paper says layer normalisation; the released networks do this).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(1, channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, T, H, W] → the same shape."""
        frames = input.transpose(1, 2)  # B T C H W
        out = F.group_norm(frames.flatten(0, 1), 1, self.weight, self.bias, self.eps)
        return out.unflatten(0, frames.shape[:2]).transpose(1, 2)
