"""How much memory a request takes, by formula, and what would fit where it does not.

Axis legend: B batch, T latent frames, H W latent rows and columns, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.core.errors import ResourceError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.inference.config import Request
from worldfoundry.tokenizers.chunks import latent_frame_bytes
from worldfoundry.tokenizers.tokenizer import Tokenizer

GIB = 2**30
TILE = 512
"""Pixels along a side of what is decoded at a time where the whole picture is too much."""


def module_bytes(module: nn.Module) -> int:
    """Weights and buffers."""
    return sum(t.numel() * t.element_size() for part in (module.parameters(), module.buffers()) for t in part)


def denoise_bytes(config: DiTConfig, batch: int, latent_THW: tuple[int, int, int], dtype: torch.dtype) -> int:
    """The most that one evaluation holds besides the weights: the widest moment of a block, and the latents in float32.

    Per token: the stream and its modulated copy (2·D), then either q, k, v, rotated q and k, the result (6·D), or the MLP's
    hidden layer before and after its activation (2·ratio·D). Attention is fused, so scores are not held.
    """
    T, H, W = latent_THW
    tokens = batch * (T // config.patch_temporal) * (H // config.patch_spatial) * (W // config.patch_spatial)
    widest = 2 + max(6.0, 2 * config.mlp_ratio)
    latents = 8 * batch * config.in_channels * T * H * W * 4
    return int(tokens * config.model_channels * widest * dtype.itemsize) + latents


def decode_bytes(tokenizer: VideoTokenizer, height: int, width: int, batch: int = 1, *, tile: int | None = None) -> int:
    """The least that decoding can hold at a time: one latent frame, or a tile of it. 0 for a tokenizer that is not ours."""
    if not isinstance(tokenizer, Tokenizer):
        return 0
    if tile is not None:
        height, width = min(height, tile), min(width, tile)
    return latent_frame_bytes(tokenizer.config, batch, height, width, tokenizer.dtype)


def video_bytes(request: Request, batch: int = 1) -> int:
    """The frames that go out, as bytes and once more while they are put together."""
    return 2 * batch * request.num_frames * request.height * request.width * 3


def what_fits(request: Request, fits: Callable[[Request], bool]) -> str:
    """A hint: the most frames of this size, and the largest smaller picture at this length, where there are such."""
    found = []
    if most := _most(request.num_frames, lambda n: fits(request.replace(num_frames=n))):
        found.append(f"{most} frames of {request.width}x{request.height}")
    for percent in (75, 50, 37, 25, 12):
        height, width = (max(16, side * percent // 1600 * 16) for side in (request.height, request.width))
        smaller = height <= request.height and width <= request.width and (height, width) != (request.height, request.width)
        if smaller and fits(request.replace(height=height, width=width)):
            found.append(f"{request.num_frames} frames of {width}x{height}")
            break
    if found:
        return f"{' or '.join(found)} would fit."
    return "Use fewer and smaller frames, a smaller world, --weights int8, or a machine with more memory."


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, where all smaller ones do as well; 0 if none does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


@contextmanager
def memory_errors_explained(explain: Callable[[], ResourceError]) -> Iterator[None]:
    """Turns torch's and Python's ways of running out of memory into one ResourceError."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise explain() from error
    except RuntimeError as error:
        if "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        raise explain() from error
