"""Factorised 3-D convolutions that never look at a later frame (arXiv 2501.03575, 4.1).

The past of the first frame is that frame itself, repeated; outside the picture is zero. Frames lie channels-last in memory, so a
convolution over the picture and one over time are both plain 2-D convolutions over views of the same numbers: pictures
[B·T, C, H, W], or time against place [B, C, T, H·W]. Kernels keep the five axes of the published weights.

Axis legend: B batch, T frames, H height, W width, C channels, O I output and input channels, h w t kernel sides.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.nn.frame_cache import FrameCache


class FrameConv(nn.Conv3d):
    """A 1 x k x k convolution of each frame. With stride 2 the zeros lie to the right and below only."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, (1, kernel, kernel), stride=(1, stride, stride))

    def forward(self, input: Tensor) -> Tensor:
        """[B, T, H, W, C_in] → [B, T, H/stride, W/stride, C_out]."""
        stride = self.stride[1]
        if stride == 2:
            input = F.pad(input, (0, 0, 0, 1, 0, 1))
        return conv_frames(input, self.weight[:, :, 0], self.bias, stride, 0 if stride == 2 else self.kernel_size[1] // 2)


class CausalTimeConv(nn.Conv3d):
    """A 3 x 1 x 1 convolution over this frame and the two before it.

    With stride 2 the first frame stands for itself and each pair after it becomes one frame: 1 + 2k → 1 + k.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), stride=(stride, 1, 1))

    def forward(self, input: Tensor, cache: FrameCache | None = None) -> Tensor:
        """[B, T, H, W, C_in] → [B, T', H, W, C_out]. Without a cache the input is a whole clip."""
        cache = cache or FrameCache()
        stride = self.stride[0]
        return conv_time(cache.extend(self, input, 3 - stride, first=2), self.weight[..., 0], self.bias, stride)


class FactorizedConv3d(nn.Module):
    """A causal 3x3x3 convolution in two factors: 1x3x3 over the picture, then 3x1x1 over time, nothing in between."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.spatial = FrameConv(in_channels, out_channels, 3)
        self.temporal = CausalTimeConv(out_channels, out_channels)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        """[B, T, H, W, C_in] → [B, T, H, W, C_out]."""
        return self.temporal(self.spatial(x_BTHWC), cache)


def conv_frames(x_BTHWC: Tensor, weight_OIhw: Tensor, bias_O: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """The same 2-D convolution on every frame."""
    pictures_BCHW = x_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    out = F.conv2d(pictures_BCHW, weight_OIhw, bias_O, stride, padding)
    return out.permute(0, 2, 3, 1).unflatten(0, x_BTHWC.shape[:2])


def conv_time(x_BTHWC: Tensor, weight_OIt1: Tensor, bias_O: Tensor | None, stride: int = 1) -> Tensor:
    """The same convolution over the frames at every place, without padding."""
    out = F.conv2d(x_BTHWC.flatten(2, 3).permute(0, 3, 1, 2), weight_OIt1, bias_O, (stride, 1))
    return out.permute(0, 2, 3, 1).unflatten(2, x_BTHWC.shape[2:4])


def repeated_frames_conv(x_BTHWC: Tensor, conv: CausalTimeConv, cache: FrameCache) -> Tensor:
    """y + conv(y), where y has every frame twice, but the clip's first once: 1 + k → 1 + 2k (later chunks k → 2k).

    A repeated frame meets two taps at once, so taps add up: both copies are two-tap convolutions over the frames before
    repetition, two thirds of the work.
    """
    second_copy, first_copy = _two_taps(conv.weight[..., 0], dim=2)
    extended = cache.extend(conv, x_BTHWC, 1)
    copies = [conv_time(extended, weight, conv.bias) + x_BTHWC for weight in (first_copy, second_copy)]
    frames = torch.stack(copies, dim=2).flatten(1, 2)
    return frames[:, 1:] if cache.is_first else frames


def enlarged_frames_conv(x_BTHWC: Tensor, conv: FrameConv) -> Tensor:
    """y + conv(y), where y has every pixel as 2x2 equal ones and the convolution is 3x3: H, W → 2H, 2W.

    Of the nine taps, each of the four new pixels meets 2x2 old ones: four 2x2 convolutions over the small picture, 4/9 of
    the work.
    """
    height, width = x_BTHWC.shape[2:4]
    padded = F.pad(x_BTHWC, (0, 0, 1, 1, 1, 1))
    lines = []
    for y, rows in enumerate(_two_taps(conv.weight[:, :, 0], dim=2)):
        pixels = []
        for x, weight in enumerate(_two_taps(rows, dim=3)):
            window = padded[:, :, y : y + height + 1, x : x + width + 1]
            pixels.append(conv_frames(window, weight, conv.bias) + x_BTHWC)
        lines.append(torch.stack(pixels, dim=4).flatten(3, 4))
    return torch.stack(lines, dim=3).flatten(2, 3)


def _two_taps(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps over values of which the last two, or the first two, are the same value."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)
