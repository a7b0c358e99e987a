"""Adaptive layer norm whose modulation is one shared vector plus a low-rank correction (arXiv 2501.03575, section 5.1.2).

Legend: B batch, T latent frames (1 when the modulation is the same for all), S tokens of a frame, D width, R rank.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class AdaLNLoRA(nn.Module):
    """Shift, scale (and gate) of one sub-block: up(down(embedding)) + the base that all sub-blocks share. No biases."""

    def __init__(self, width: int, rank: int, chunks: int = 3) -> None:
        super().__init__()
        self.chunks = chunks
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, chunks * width, bias=False)

    def forward(self, embedding_BD: Tensor, base_BT1D3: Tensor) -> tuple[Tensor, ...]:
        """`embedding` is the time embedding after SiLU, `base` [B, T or 1, 1, 3·D]; → `chunks` times [B, T or 1, 1, D]."""
        low_rank = self.up(self.down(embedding_BD))[:, None, None]
        return (low_rank + base_BT1D3[..., : low_rank.shape[-1]]).chunk(self.chunks, dim=-1)


def modulate(x_BTSD: Tensor, shift_BT1D: Tensor, scale_BT1D: Tensor) -> Tensor:
    """Layer norm without affine (eps 1e-6), then · (1 + scale) + shift."""
    return F.layer_norm(x_BTSD, x_BTSD.shape[-1:], eps=1e-6) * (1 + scale_BT1D) + shift_BT1D
