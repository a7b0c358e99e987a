"""Haar wavelet packets as patchify and unpatchify: one product with a Hadamard matrix (arXiv 2501.03575, 4.1).

One level halves every axis and makes 2 bands per axis: low = (even + odd)/2 and high = (even − odd)/2, so a constant keeps
its value in the all-low band. A patch of p takes log2(p) levels, and each level splits *all* bands of the one before. So a
band is a row of signs over the p^n values of a patch: the Hadamard matrix of that size, if values and bands are both
counted by their binary digits, coarsest level slowest. Its square is a multiple of the identity, which is the inverse.

Axis legend: B batch, C channels, T frames, H height, W width, K channels after the transform (band · C + c, band slowest),
P values of one patch and channel.
Within a level, digits of a band of video count (T, H, W), T slowest; those of images (W, H), W slowest. 1 = high.
"""

import torch
from einops import rearrange
from torch import Tensor

# Axes in the order of their digits within a level.
VIDEO_DIGITS = "thw"
IMAGE_DIGITS = "wh"


def patchify_video(x_BCTHW: Tensor, patch_size: int, *, is_first: bool = True) -> Tensor:
    """Video [B, C, 1 + p·k, H, W] → bands [B, C·p³, 1 + k, H/p, W/p]; the first frame fills a temporal patch of its own.

    With `is_first=False` the video goes on from frames that were patchified before: p·k frames → k.
    The bands lie channels-last in memory.
    """
    if is_first:
        first = x_BCTHW[:, :, :1].expand(-1, -1, patch_size, -1, -1)
        x_BCTHW = torch.cat((first, x_BCTHW[:, :, 1:]), dim=2)
    return _split(x_BCTHW, "thw", VIDEO_DIGITS, patch_size)


def unpatchify_video(x_BKTHW: Tensor, patch_size: int, *, is_first: bool = True) -> Tensor:
    """The inverse of `patchify_video`: drops the p − 1 repetitions of the first frame."""
    frames = _merge(x_BKTHW, "thw", VIDEO_DIGITS, patch_size)
    return frames[:, :, patch_size - 1 :] if is_first else frames


def patchify_image(x_BCHW: Tensor, patch_size: int) -> Tensor:
    """Images [B, C, H, W] → bands [B, C·p², H/p, W/p]."""
    return _split(x_BCHW, "hw", IMAGE_DIGITS, patch_size)


def unpatchify_image(x_BKHW: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patchify_image`."""
    return _merge(x_BKHW, "hw", IMAGE_DIGITS, patch_size)


def _split(x: Tensor, axes: str, digits: str, patch_size: int) -> Tensor:
    apart, together, sizes = _patterns(axes, digits, patch_size)
    values = rearrange(x, f"b c {apart} -> b {' '.join(axes)} (c {together})", **sizes)
    count = patch_size ** len(axes)
    matrix_KP = _for_channels(hadamard(count, like=values) / count, x.shape[1])
    return (values @ matrix_KP.mT).movedim(-1, 1)


def _merge(x: Tensor, axes: str, digits: str, patch_size: int) -> Tensor:
    apart, together, sizes = _patterns(axes, digits, patch_size)
    count = patch_size ** len(axes)
    matrix_KP = _for_channels(hadamard(count, like=x), x.shape[1] // count)
    values = x.movedim(1, -1) @ matrix_KP
    return rearrange(values, f"b {' '.join(axes)} (c {together}) -> b c {apart}", **sizes)


def _patterns(axes: str, digits: str, patch_size: int) -> tuple[str, str, dict[str, int]]:
    """Where the binary digits of places in a patch stand: axis by axis, and level by level. einops' patterns and sizes."""
    levels = list(reversed(range(patch_size.bit_length() - 1)))
    apart = " ".join(f"({' '.join([axis, *(f'{axis}{level}' for level in levels)])})" for axis in axes)
    together = " ".join(f"{digit}{level}" for level in levels for digit in digits)
    return apart, together, {f"{axis}{level}": 2 for axis in axes for level in levels}


def _for_channels(matrix: Tensor, channels: int) -> Tensor:
    """The matrix of each channel alone: [bands, P] → [bands · C, C · P]."""
    every = torch.einsum("kp,cd->kcdp", matrix, torch.eye(channels, dtype=matrix.dtype, device=matrix.device))
    return every.flatten(0, 1).flatten(1, 2)


def hadamard(size: int, *, like: Tensor) -> Tensor:
    """Sylvester's matrix of ±1, [size, size], in the dtype and on the device of `like`; size is a power of two."""
    matrix = like.new_ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix
