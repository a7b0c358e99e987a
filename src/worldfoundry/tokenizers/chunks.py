"""Long clips in chunks: how a clip is cut so that the memory of one pass is bounded, and streams of chunks.

A causal video tokenizer gives the same latents and frames in chunks as at once (its temporal attention looks back a bounded
window, see TokenizerConfig.window). Cutting a clip into clips of their own, as the released code does, gives others: each
begins anew with an image. `encode_windows` and `decode_windows` do that, for comparison.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldfoundry.core.errors import UsageError
from worldfoundry.tokenizers.config import TokenizerConfig

if TYPE_CHECKING:
    from worldfoundry.tokenizers.tokenizer import Tokenizer

ACTIVATION_BYTES = 512 << 20  # aimed at; a chunk is never less than one latent frame
LIVE_TENSORS = 6  # of the widest layer's size, at the same time


def latent_frame_bytes(config: TokenizerConfig, batch: int, height: int, width: int, dtype: torch.dtype) -> int:
    """Activations of one latent frame of so large a picture (in pixels): the least that a pass can hold."""
    widest = max(level.in_channels for level in config.decoder_levels())
    positions = config.temporal_compression * height * width // config.patch_size ** (3 if config.modality == "video" else 2)
    return batch * positions * widest * dtype.itemsize * LIVE_TENSORS


def latent_frames_per_chunk(config: TokenizerConfig, batch: int, height: int, width: int, dtype: torch.dtype) -> int:
    """How many latent frames of so large a picture (in pixels) fit the activation budget, at least 1."""
    return max(1, ACTIVATION_BYTES // max(latent_frame_bytes(config, batch, height, width, dtype), 1))


def frame_chunks(config: TokenizerConfig, x_BCTHW: Tensor, dtype: torch.dtype) -> Sequence[Tensor]:
    """A clip as chunks of 1 + t·k, t·k, … frames."""
    count = latent_frames_per_chunk(config, len(x_BCTHW), x_BCTHW.shape[3], x_BCTHW.shape[4], dtype)
    t = config.temporal_compression
    return _cut(x_BCTHW, 1 + t * (count - 1), t * count)


def latent_chunks(config: TokenizerConfig, z_BCTHW: Tensor, dtype: torch.dtype) -> Sequence[Tensor]:
    """The latents of a clip as chunks, in the same way."""
    height, width = (side * config.spatial_compression for side in z_BCTHW.shape[3:])
    count = latent_frames_per_chunk(config, len(z_BCTHW), height, width, dtype)
    return _cut(z_BCTHW, count, count)


def encode_stream(tokenizer: "Tokenizer", chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Latents of a clip whose frames [B, 3, T, H, W] arrive in chunks of any length, as soon as they are determined.

    Frames that do not yet fill a latent wait for the next chunk. At the end they must have filled it: UsageError says how
    many are left over.
    """
    t, cache, waiting = tokenizer.spec.t, None, None
    for chunk in chunks:
        waiting = chunk if waiting is None else torch.cat((waiting, chunk), dim=2)
        ready = waiting.shape[2] - (waiting.shape[2] - (cache is None)) % t
        if ready > 0 and (cache is not None or waiting.shape[2] > 0):
            z, cache = tokenizer.encode_chunk(waiting[:, :, :ready], cache)
            waiting = waiting[:, :, ready:]
            yield z
    if waiting is not None and waiting.shape[2]:
        raise UsageError(
            f"The stream ended with {waiting.shape[2]!r} frames that do not fill a latent of {t}.", "Repeat its last frame."
        )


def decode_stream(tokenizer: "Tokenizer", chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Frames of a clip whose latents [B, C, T, H, W] arrive in chunks of any length."""
    cache = None
    for chunk in chunks:
        x, cache = tokenizer.decode_chunk(chunk, cache)
        yield x


def encode_windows(tokenizer: "Tokenizer", x_BCTHW: Tensor, frames: int) -> list[Tensor]:
    """Latents of windows of `frames` = 1 + t·k frames, each encoded as a clip of its own; what is left over is dropped."""
    return [tokenizer.encode(window) for window in x_BCTHW.split(frames, dim=2) if window.shape[2] == frames]


def decode_windows(tokenizer: "Tokenizer", windows: Iterable[Tensor]) -> Tensor:
    """The windows' frames, one after the other."""
    return torch.cat([tokenizer.decode(z) for z in windows], dim=2)


def _cut(x: Tensor, first: int, later: int) -> Sequence[Tensor]:
    if x.shape[2] <= first:
        return [x]
    return [x[:, :, :first], *x[:, :, first:].split(later, dim=2)]
