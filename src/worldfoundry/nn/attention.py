"""Attention with per-head RMS-normalised queries and keys (arXiv 2501.03575, section 5.1.2).

Legend: B batch, L query tokens, M key tokens, D width, h heads, d head width, e = d/2, n = B·h.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.nn.memo import Memo, remembered
from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.rope import apply_rope

# In bfloat16 on a CPU explicit products use matrix instructions that the fused kernel does not. With gradients, where all
# scores stay in memory, that pays up to this much of them; without, pieces of the second size are done one after the other.
EXPLICIT_SCORE_BYTES = 32 << 20
SCRATCH_BYTES = 4 << 20


def attention(q_BhLd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v → [B, h, L, d] in v's dtype. The one place where a kernel is chosen."""
    q_BhLd, k_BhMd = q_BhLd.to(v_BhMd.dtype), k_BhMd.to(v_BhMd.dtype)
    if v_BhMd.device.type == "cpu" and v_BhMd.dtype == torch.bfloat16:
        B, h, L, d = q_BhLd.shape
        if not torch.is_grad_enabled() and L * k_BhMd.shape[2] * 2 <= SCRATCH_BYTES:
            return _attention_by_heads(q_BhLd, k_BhMd, v_BhMd)
        if torch.is_grad_enabled() and B * h * L * k_BhMd.shape[2] * 2 <= EXPLICIT_SCORE_BYTES:
            scores_BhLM = (q_BhLd * d**-0.5) @ k_BhMd.transpose(-1, -2)
            return scores_BhLM.softmax(dim=-1) @ v_BhMd
    return F.scaled_dot_product_attention(q_BhLd, k_BhMd, v_BhMd)


def _attention_by_heads(q_BhLd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor) -> Tensor:
    """The same by explicit products, as many heads at a time as fit SCRATCH_BYTES, in one scratch array that stays in cache."""
    q_nLd, k_nMd, v_nMd = (x.flatten(0, 1) for x in (q_BhLd * q_BhLd.shape[-1] ** -0.5, k_BhMd, v_BhMd))
    (n, L, _), M = q_nLd.shape, k_nMd.shape[1]
    step = max(1, min(n, SCRATCH_BYTES // (L * M * 2)))
    scratch, out_nLd = q_nLd.new_empty(step, L, M), torch.empty_like(q_nLd)
    for first in range(0, n, step):
        part = slice(first, min(first + step, n))
        scores = torch.bmm(q_nLd[part], k_nMd[part].transpose(1, 2), out=scratch[: part.stop - first])
        torch.bmm(torch.softmax(scores, dim=-1, out=scores), v_nMd[part], out=out_nLd[part])
    return out_nLd.view(*q_BhLd.shape)


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
        q = apply_rope(self.norm_q(q.float()), cos_B1Le, sin_B1Le)  # in float32 throughout, then rounded once
        k = apply_rope(self.norm_k(k.float()), cos_B1Le, sin_B1Le)
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

    def forward(self, x_BLD: Tensor, context_BMC: Tensor, memo: Memo | None = None) -> Tensor:
        """`memo` keeps the keys and values of a context from one call to the next."""
        q = self.to_q(x_BLD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = remembered(memo, self, lambda: self.keys_values(context_BMC))
        return self.to_out(attention(self.norm_q(q), k, v).transpose(1, 2).flatten(2))

    def keys_values(self, context_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """Each [B, h, M, d], keys normalised."""
        k, v = self.to_kv(context_BMC).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.norm_k(k), v


def grouped_attention(
    q_BhLd: Tensor, k_BgMd: Tensor, v_BgMd: Tensor, *, causal: bool = False, mask_BM: Tensor | None = None
) -> Tensor:
    """softmax(q kᵀ / √d) v → [B, h, L, d], where each key head serves h/g consecutive query heads.

    `causal`: the L queries are the last L of the M keys' places, and see none after their own. `mask_BM`: True = attend.
    """
    (B, h, L, d), (g, M) = q_BhLd.shape, k_BgMd.shape[1:3]
    if L == 1 or not causal:  # no query sees less than another: the group's heads are further queries of one key head
        mask = None if mask_BM is None else mask_BM[:, None, None]
        out = F.scaled_dot_product_attention(q_BhLd.reshape(B, g, h // g * L, d), k_BgMd, v_BgMd, attn_mask=mask)
        return out.view(B, h, L, d)
    mask = None if L == M else torch.ones(L, M, dtype=torch.bool, device=q_BhLd.device).tril(M - L)
    return F.scaled_dot_product_attention(q_BhLd, k_BgMd, v_BgMd, attn_mask=mask, is_causal=mask is None, enable_gqa=h != g)
