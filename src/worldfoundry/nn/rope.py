"""Rotary position embedding over time, height and width (arXiv 2501.03575, section 5.1.2), aware of the frame rate.

Legend: B batch (1 when all samples share their positions), L = T·H·W tokens in raster order, h heads, d head width, e = d/2.

The head width is split into three parts (time, height, width); every pair (i, i + d/2) turns by its part's angle. Time
counts in steps of 1/24 s, so the same motion gets the same angles at any frame rate. An axis' NTK `ratio` stretches its
wavelengths: the base becomes 10000 · ratio^(n / (n - 2)) for a part of n numbers.
"""

from functools import lru_cache

import torch
from torch import Tensor

BASE_FPS = 24.0
THETA = 10000.0


def split_head(head_dim: int) -> tuple[int, int, int]:
    """How many of the `head_dim` numbers turn with time, height and width. Published: 128 → 44, 42, 42."""
    spatial = head_dim // 6 * 2
    return head_dim - 2 * spatial, spatial, spatial


def rope_tables(
    shape: tuple[int, int, int],
    head_dim: int,
    ratios: tuple[float, float, float],
    fps_B: Tensor | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """cos and sin, each [B or 1, 1, L, d/2] in float32, for a grid of `shape` = (T, H, W) patches.

    `fps_B` None means 24 frames per second, which is also right for single images.
    """
    time_LE, space_LE = _angles(shape, head_dim, ratios, device)
    fps_B = torch.full((1,), BASE_FPS, device=device) if fps_B is None else fps_B.to(device, torch.float32)
    time_BLE = time_LE * (BASE_FPS / fps_B).view(-1, 1, 1)
    angles_BLE = torch.cat([time_BLE, space_LE.expand(len(time_BLE), -1, -1)], dim=-1)[:, None]
    return angles_BLE.cos(), angles_BLE.sin()


@lru_cache(maxsize=32)
def _angles(
    shape: tuple[int, int, int], head_dim: int, ratios: tuple[float, float, float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Angles at 24 fps of every token: the time part [L, ·] and the height and width parts [L, ·]. Kept per shape."""
    with torch.inference_mode(False), torch.no_grad():  # a table made while sampling must also serve training
        grid = torch.meshgrid(*(torch.arange(n, device=device, dtype=torch.float32) for n in shape), indexing="ij")
        parts = []
        for positions, dim, ratio in zip(grid, split_head(head_dim), ratios, strict=True):
            base = THETA * ratio ** (dim / (dim - 2))
            exponents = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
            parts.append(positions.reshape(-1, 1) / base**exponents)
        return parts[0], torch.cat(parts[1:], dim=-1)


def apply_rope(x_BhLd: Tensor, cos_B1Le: Tensor, sin_B1Le: Tensor) -> Tensor:
    """Turn every pair (i, i + d/2) of the last axis by its angle; in the wider dtype of x and the tables."""
    first, second = x_BhLd.chunk(2, dim=-1)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.cat([first * cos_B1Le - second * sin_B1Le, second * cos_B1Le + first * sin_B1Le], dim=-1)
    turned = torch.empty_like(x_BhLd, dtype=torch.promote_types(x_BhLd.dtype, cos_B1Le.dtype))
    one, two = turned.chunk(2, dim=-1)  # the same numbers, written where they belong: no copies of halves
    torch.mul(first, cos_B1Le, out=one).addcmul_(second, sin_B1Le, value=-1)
    torch.mul(second, cos_B1Le, out=two).addcmul_(first, sin_B1Le)
    return turned
