"""Where a token is: rotary tables over latent frame, row and column, and the sin-cos vectors of the text variants.

Legend: P places in a sequence, d head width, e = d/2, D width of the stream.

As published (release "v2" of the rotary code): whole-number positions, whatever the frame rate; YaRN stretches the frequencies
of all three axes, while its attention factor is not applied. A sequence that begins with <bov> has one row of zero angles in
front, so <bov> and the first token of the video share their angles. Rows beyond the clip are zero angles, too.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.autoregressive.config import TransformerConfig, YarnConfig
from worldfoundry.nn.rope import split_head

ABSOLUTE_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class Positions:
    """cos_Pe and sin_Pe in float32; absolute_PD rounded to bfloat16 (as the published tables are), None where there is none."""

    cos_Pe: Tensor
    sin_Pe: Tensor
    absolute_PD: Tensor | None


def position_tables(config: TransformerConfig, device: torch.device) -> Positions:
    """The tables of `config.max_seq_len` rows."""
    with torch.inference_mode(False), torch.no_grad():  # a table made while sampling must also serve training
        if config.rope == "1d":
            positions = torch.arange(config.max_seq_len, device=device, dtype=torch.float32)
            angles_Pe = torch.outer(positions, frequencies(config.head_dim, config.rope_theta).to(device))
        else:
            angles_Pe = _place(
                axis_angles(config.latent_shape, config.head_dim, config.rope_theta, config.yarn).to(device), config
            )
        absolute = _place(absolute_vectors(config.latent_shape, config.dim).to(device), config) if config.abs_pos_emb else None
        return Positions(cos_Pe=angles_Pe.cos(), sin_Pe=angles_Pe.sin(), absolute_PD=absolute)


def frequencies(dim: int, theta: float, yarn: YarnConfig | None = None, original: int = 1) -> Tensor:
    """theta^(-2i/dim) in radians per step, [dim/2]. Under YaRN those that turn seldom within `original` steps are slowed down."""
    plain = theta ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if yarn is None:
        return plain
    high, low = (2 * math.pi * beta / original for beta in (yarn.beta_fast, yarn.beta_slow))
    keep = ((plain - low) / (high - low)).clamp(0, 1)
    return plain * ((1 - keep) / yarn.scale + keep)


def axis_angles(shape: tuple[int, int, int], head_dim: int, theta: float, yarn: YarnConfig | None = None) -> Tensor:
    """Angles [T·H·W, e] in raster order: the time part, then height, then width."""
    frames, rows, _ = yarn.original_latent_shape if yarn else (1, 1, 1)
    parts = [
        positions.reshape(-1, 1) * frequencies(dim, theta, yarn, original)
        for positions, dim, original in zip(_grid(shape), split_head(head_dim), (frames, rows, rows), strict=True)
    ]
    return torch.cat(parts, dim=-1)


def absolute_vectors(shape: tuple[int, int, int], width: int) -> Tensor:
    """[T·H·W, D]: for time, height and width each the sines, then the cosines of its position; rounded to bfloat16."""
    spatial = width // 6 * 2
    parts = []
    for positions, dim in zip(_grid(shape), (width - 2 * spatial, spatial, spatial), strict=True):
        omega = ABSOLUTE_BASE ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
        angles = positions.reshape(-1, 1).double() * omega
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1).float().bfloat16().float()


def _grid(shape: tuple[int, int, int]) -> tuple[Tensor, ...]:
    return torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")


def _place(rows_PX: Tensor, config: TransformerConfig) -> Tensor:
    """The rows of a clip behind one row of zeros for <bov>, if there is one, and zeros up to the table's end."""
    table = rows_PX.new_zeros(config.max_seq_len, rows_PX.shape[1])
    table[config.bov : config.bov + len(rows_PX)] = rows_PX
    return table
