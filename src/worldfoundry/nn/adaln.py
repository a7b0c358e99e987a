"""Adaptive layer norm whose modulation is one shared vector plus a low-rank correction (arXiv 2501.03575, section 5.1.2).

Legend: B batch, T latent frames, S tokens of a frame, D width, R rank. Modulations are [B or 1, T or 1, 1, D]: one row serves
all samples or frames that share their noise level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdaLNLoRA(nn.Module):
    """Shift, scale (and gate) of one sub-block: up(down(embedding)) + the base that all sub-blocks share. No biases."""

    def __init__(self, width: int, rank: int, chunks: int = 3) -> None:
        super().__init__()
        self.chunks = chunks
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, chunks * width, bias=False)

    def forward(self, embedding_BT1D: Tensor, base_BT1D3: Tensor) -> tuple[Tensor, ...]:
        """`embedding` is the time embedding after SiLU, `base` has 3·D numbers; → `chunks` modulations [.., .., 1, D]."""
        low_rank = self.up(self.down(embedding_BT1D))
        return (low_rank + base_BT1D3[..., : low_rank.shape[-1]]).chunk(self.chunks, dim=-1)


def modulate(x_BTSD: Tensor, shift_BT1D: Tensor, scale_BT1D: Tensor) -> Tensor:
    """Layer norm without affine (eps 1e-6), then · (1 + scale) + shift."""
    width = x_BTSD.shape[-1:]
    if (
        scale_BT1D.numel() == width[0] and scale_BT1D.dtype == x_BTSD.dtype
    ):  # one row for all tokens: the norm's own affine part
        return F.layer_norm(x_BTSD, width, 1 + scale_BT1D.flatten(), shift_BT1D.flatten(), eps=1e-6)
    return torch.addcmul(shift_BT1D, F.layer_norm(x_BTSD, width, eps=1e-6), 1 + scale_BT1D)


def add_gated(x_BTSD: Tensor, gate_BT1D: Tensor, update_BTSD: Tensor) -> Tensor:
    """x + gate · update; without gradients in the memory of `update`, which must then be the caller's own."""
    if torch.is_grad_enabled() or update_BTSD.dtype != x_BTSD.dtype:
        return torch.addcmul(x_BTSD, gate_BT1D, update_BTSD)
    return torch.addcmul(x_BTSD, gate_BT1D, update_BTSD, out=update_BTSD)
