"""The transformer for decoding: the same function in fewer operations, made once from a network whose weights then stay.

Legend: B batch, L tokens of this call, D width, h query heads, g key and value heads, d head width, e = d/2, n = h + g.

One token asks little arithmetic of each weight, so two things cost time: reading the weights, and the number of operations.
Hence q, k and v are one product; SiLU, the gate's product and the additions to the stream ride along with products (oneDNN, on a
CPU); queries and keys are normalised and rotated together; a norm is 4 operations: x · w√D / hypot(|x|, √(D · eps)).
"""

import copy

import torch
from torch import Tensor, nn

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Block, SelfAttention, TextContext, Transformer
from worldfoundry.nn.attention import grouped_attention
from worldfoundry.nn.int8 import Int8Linear
from worldfoundry.nn.memo import Memo
from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.packed import PackedLinear


def for_decoding(network: Transformer) -> Transformer:
    """A network with the same outputs that shares the embedding and holds its own packed copies of the other weights.

    For inference without gradients on the device where it was made; not to be trained, saved or moved. Its caches and the
    original's are interchangeable.
    """
    lean = copy.copy(network)
    lean._modules = dict(network._modules)
    with torch.no_grad():
        blocks = (LeanBlock(block, network.config) for block in network.blocks if isinstance(block, Block))
        lean.blocks = nn.ModuleList(blocks)
        lean.unembed = PackedLinear(network.unembed.weight)
        if network.medusa is not None:
            lean.medusa = copy.copy(network.medusa)
            lean.medusa._modules = {"merged": PackedLinear(network.medusa.merged.weight)}
    return lean


class LeanNorm(nn.Module):
    """RMSNorm in float32 over the last axis; one weight vector, or one for every head."""

    weight: Tensor
    floor: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        width = weight.shape[-1]
        self.register_buffer("weight", weight.float() * width**0.5)
        self.register_buffer("floor", torch.tensor((width * eps) ** 0.5, device=weight.device))

    def forward(self, x_D: Tensor) -> Tensor:
        """→ float32."""
        x_D = x_D.float()  # at once: operations on two dtypes convert again and again
        length = torch.linalg.vector_norm(x_D, dim=-1, keepdim=True)
        return (x_D * self.weight).div_(torch.hypot(length, self.floor))


class LeanBlock(nn.Module):
    """Stands in for a `Block`: called alike, with the same outputs."""

    def __init__(self, block: Block, config: TransformerConfig) -> None:
        super().__init__()
        attention = block.attention
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.attention_norm, self.ffn_norm = (_lean(norm) for norm in (block.attention_norm, block.ffn_norm))
        self.to_qkv = _joined(attention.to_q, attention.to_k, attention.to_v)
        self.head_norm = _head_norm(attention, config) if config.qk_norm else None
        self.to_out = _joined(attention.to_out)
        self.cross_attention_norm, self.cross_attention = block.cross_attention_norm, block.cross_attention
        self.gate, self.up, self.down = (_joined(part) for part in (block.ffn.gate, block.ffn.up, block.ffn.down))

    def forward(
        self,
        x_BLD: Tensor,
        cos_Le: Tensor,
        sin_Le: Tensor,
        text: TextContext | None = None,
        cached: tuple[Tensor, Tensor, int] | None = None,
        memo: Memo | None = None,
    ) -> Tensor:
        dtype = x_BLD.dtype
        mixed_BLD = self._attend(self.attention_norm(x_BLD).to(dtype), cos_Le, sin_Le, cached)
        x_BLD = self.to_out.plus(mixed_BLD, x_BLD)
        if self.cross_attention is not None and self.cross_attention_norm is not None and text is not None:
            x_BLD = x_BLD + self.cross_attention(self.cross_attention_norm(x_BLD), text, memo)
        normed_BLD = self.ffn_norm(x_BLD).to(dtype)
        return self.down.plus(self.up.times(normed_BLD, self.gate.silu(normed_BLD)), x_BLD)

    def _attend(self, x_BLD: Tensor, cos_Le: Tensor, sin_Le: Tensor, cached: tuple[Tensor, Tensor, int] | None) -> Tensor:
        """[B, L, h · d], the heads' outputs side by side."""
        heads_BLnd = self.to_qkv(x_BLD).unflatten(-1, (-1, self.head_dim))
        qk_BLnd, v_BLgd = heads_BLnd.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=2)
        qk_BLnd = self.head_norm(qk_BLnd) if self.head_norm is not None else qk_BLnd.float()
        qk_BnLd = _rotated(qk_BLnd, cos_Le, sin_Le).transpose(1, 2)
        q, k = qk_BnLd.split([self.num_heads, self.num_kv_heads], dim=1)
        v = v_BLgd.transpose(1, 2)
        if cached is None:
            k = k.to(v.dtype)
        else:
            keys, values, held = cached
            total = held + k.shape[2]
            keys[:, :, held:total], values[:, :, held:total] = k, v
            k, v = keys[:, :, :total], values[:, :, :total]
        return grouped_attention(q.to(v.dtype), k, v, causal=True).transpose(1, 2).flatten(2)


def _rotated(x_BLnd: Tensor, cos_Le: Tensor, sin_Le: Tensor) -> Tensor:
    """`apply_rope` in three operations and views, for tokens before heads."""
    x_BLn2e, sin_L1e = x_BLnd.unflatten(-1, (2, -1)), sin_Le[:, None]
    turned = x_BLn2e * cos_Le[:, None, None]
    (first, second), (one, two) = x_BLn2e.unbind(-2), turned.unbind(-2)
    one.addcmul_(second, sin_L1e, value=-1)
    two.addcmul_(first, sin_L1e)
    return turned.flatten(-2)


def _joined(*layers: nn.Linear | Int8Linear) -> PackedLinear | Int8Linear:
    """One layer for the rows of several; where weights are 8-bit integers they stay so."""
    rounded = [layer for layer in layers if isinstance(layer, Int8Linear)]
    return Int8Linear.joined(rounded) if rounded else PackedLinear(torch.cat([layer.weight for layer in layers]))


def _lean(norm: RMSNorm) -> LeanNorm:
    return LeanNorm(norm.weight, norm.eps)


def _head_norm(attention: SelfAttention, config: TransformerConfig) -> LeanNorm:
    """One norm for all query heads and, behind them, all key heads."""
    q, k = (norm.weight for norm in (attention.norm_q, attention.norm_k) if isinstance(norm, RMSNorm))
    return LeanNorm(torch.cat([q.expand(config.num_heads, -1), k.expand(config.num_kv_heads, -1)]), config.norm_eps)
