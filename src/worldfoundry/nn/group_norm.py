"""Normalisation of video frame by frame, so that statistics of later frames cannot reach earlier ones.

Axis legend: B batch, T frames, H height, W width, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrameNorm(nn.GroupNorm):
    """Mean and variance over height, width and channels of each frame; scale and shift per channel.

    This is group normalisation with one group (the paper says layer normalisation; the released networks do this).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(1, channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """[B, T, H, W, C] → the same shape."""
        if input.device.type == "cpu" and input.dtype == torch.float32:
            # The channels-last kernel takes the variance as E[x²] − E[x]², which loses digits where the mean is large.
            input = input - input.mean(dim=(2, 3, 4), keepdim=True)
        pictures_BCHW = input.flatten(0, 1).permute(0, 3, 1, 2)
        out = F.group_norm(pictures_BCHW, 1, self.weight, self.bias, self.eps)
        return out.permute(0, 2, 3, 1).unflatten(0, input.shape[:2])


def norm_silu(norm: FrameNorm, x_BTHWC: Tensor) -> Tensor:
    """silu(norm(x)); without gradients the normalised tensor is overwritten, which saves a pass through memory."""
    h = norm(x_BTHWC)
    return F.silu(h, inplace=not h.requires_grad)
