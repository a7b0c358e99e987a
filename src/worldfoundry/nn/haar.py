"""Haar wavelet packets as patchify and unpatchify: sums and differences of neighbours, no convolutions (arXiv 2501.03575, 4.1).

One level halves every axis and makes 2 bands per axis: low = (even + odd)/2 and high = (even − odd)/2, so a constant keeps
its value in the all-low band. A patch of p takes log2(p) levels, and each level splits *all* bands of the one before.

Axis legend: B batch, C channels, T frames, H height, W width, K channels after the transform (band · C + c, band slowest).
Bands of one level count in binary: of video the digits are (T, H, W), T slowest; of images (W, H), W slowest. 1 = high.
"""

import torch
from torch import Tensor

# The order in which axes are split; the last one becomes the slowest digit of the band number.
VIDEO_AXES = (4, 3, 2)
IMAGE_AXES = (2, 3)


def patchify_video(x_BCTHW: Tensor, patch_size: int, *, is_first: bool = True) -> Tensor:
    """Video [B, C, 1 + p·k, H, W] → bands [B, C·p³, 1 + k, H/p, W/p]; the first frame fills a temporal patch of its own.

    With `is_first=False` the video goes on from frames that were patchified before: p·k frames → k.
    """
    if is_first:
        first = x_BCTHW[:, :, :1].expand(-1, -1, patch_size, -1, -1)
        x_BCTHW = torch.cat((first, x_BCTHW[:, :, 1:]), dim=2)
    return _split(x_BCTHW, VIDEO_AXES, patch_size)


def unpatchify_video(x_BKTHW: Tensor, patch_size: int, *, is_first: bool = True) -> Tensor:
    """The inverse of `patchify_video`: drops the p − 1 repetitions of the first frame."""
    frames = _merge(x_BKTHW, VIDEO_AXES, patch_size)
    return frames[:, :, patch_size - 1 :] if is_first else frames


def patchify_image(x_BCHW: Tensor, patch_size: int) -> Tensor:
    """Images [B, C, H, W] → bands [B, C·p², H/p, W/p]."""
    return _split(x_BCHW, IMAGE_AXES, patch_size)


def unpatchify_image(x_BKHW: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patchify_image`."""
    return _merge(x_BKHW, IMAGE_AXES, patch_size)


def _split(x: Tensor, axes: tuple[int, ...], patch_size: int) -> Tensor:
    for _ in range(patch_size.bit_length() - 1):
        for axis in axes:
            even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
            x = torch.cat((even + odd, even - odd), dim=1)
        x = x * 0.5 ** len(axes)  # once per level; a power of two, so as exact as halving at every sum
    return x


def _merge(x: Tensor, axes: tuple[int, ...], patch_size: int) -> Tensor:
    for _ in range(patch_size.bit_length() - 1):
        for axis in reversed(axes):
            low, high = x.chunk(2, dim=1)
            x = torch.stack((low + high, low - high), dim=axis + 1).flatten(axis, axis + 1)
    return x
