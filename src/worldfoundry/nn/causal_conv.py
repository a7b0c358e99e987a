"""3-D convolutions that never look at a later frame (arXiv 2501.03575, 4.1).

The past of the first frame is that frame itself, repeated; outside the picture is zero.
Axis legend: B batch, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor, nn


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution with kt − 1 + (1 − stride_t) copies of the first frame in front and zeros around the picture.

    `kernel` and `stride` are (time, height, width); `pad_hw` zeros go on each side of height and width.
    Frames: T → (T − stride_t) // stride_t + 1, so a stride of 1 keeps them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        pad_hw: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=(0, pad_hw, pad_hw))
        self.pad_t = kernel[0] - 1 + (1 - stride[0])

    def forward(self, input: Tensor) -> Tensor:
        """[B, C_in, T, H, W] → [B, C_out, T', H', W']."""
        if self.pad_t > 0:
            first = input[:, :, :1].expand(-1, -1, self.pad_t, -1, -1)
            input = torch.cat((first, input), dim=2)
        return super().forward(input)


class FactorizedConv3d(nn.Module):
    """A causal 3x3x3 convolution in two factors: 1x3x3 over the picture, then 3x1x1 over time, nothing in between."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.spatial = CausalConv3d(in_channels, out_channels, (1, 3, 3), pad_hw=1)
        self.temporal = CausalConv3d(out_channels, out_channels, (3, 1, 1))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """[B, C_in, T, H, W] → [B, C_out, T, H, W]."""
        return self.temporal(self.spatial(x_BCTHW))
