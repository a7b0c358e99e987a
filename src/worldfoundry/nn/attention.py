"""Attention with per-head RMS-normalised queries and keys (arXiv 2501.03575, section 5.1.2).

Legend: B batch, L query tokens, M key tokens, D width, h heads, d head width, e = d/2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.rope import apply_rope

# In bfloat16 on a CPU, forward + backward by explicit products took a quarter to a half of the fused kernel's time at 80 and
# 320 tokens, and the same time at 1 280 (52 MB of scores), where it also costs that memory.
EXPLICIT_SCORE_BYTES = 32 << 20


def attention(q_BhLd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v → [B, h, L, d] in v's dtype. The one place where a kernel is chosen.

    On a CPU in bfloat16, explicit products use matrix instructions that the fused kernel does not: faster for short clips.
    """
    q_BhLd, k_BhMd = q_BhLd.to(v_BhMd.dtype), k_BhMd.to(v_BhMd.dtype)
    B, h, L, d = q_BhLd.shape
    small = B * h * L * k_BhMd.shape[2] * 2 <= EXPLICIT_SCORE_BYTES
    if v_BhMd.device.type == "cpu" and v_BhMd.dtype == torch.bfloat16 and small:
        scores_BhLM = (q_BhLd * d**-0.5) @ k_BhMd.transpose(-1, -2)
        return scores_BhLM.softmax(dim=-1) @ v_BhMd
    return F.scaled_dot_product_attention(q_BhLd, k_BhMd, v_BhMd)


class SelfAttention(nn.Module):
    """Every token attends to every token; queries and keys are normalised, then rotated. No biases."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)  # rows: all of q, then k, then v
        self.norm_q = RMSNorm(width // num_heads)
        self.norm_k = RMSNorm(width // num_heads)
        self.to_out = nn.Linear(width, width, bias=False)
        self.attend = attention  # replaced where the tokens of a clip lie on several ranks

    def forward(self, x_BLD: Tensor, cos_B1Le: Tensor, sin_B1Le: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x_BLD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q = apply_rope(self.norm_q(q), cos_B1Le, sin_B1Le)
        k = apply_rope(self.norm_k(k), cos_B1Le, sin_B1Le)
        return self.to_out(self.attend(q, k, v).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Every token attends to all context rows, padding included (as published: there is no mask). No biases, no rotation."""

    def __init__(self, width: int, context_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(context_width, 2 * width, bias=False)  # rows: all of k, then v
        self.norm_q = RMSNorm(width // num_heads)
        self.norm_k = RMSNorm(width // num_heads)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x_BLD: Tensor, context_BMC: Tensor) -> Tensor:
        q = self.to_q(x_BLD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.to_kv(context_BMC).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.to_out(attention(self.norm_q(q), self.norm_k(k), v).transpose(1, 2).flatten(2))
