"""The transformer for decoding: the same function in fewer operations, made once from a network whose weights then stay.

Legend: B batch, L tokens of this call, P places, D width, h query heads, g key and value heads, d head width, n = h + g.

One token asks little arithmetic of each weight, so two things cost time: reading the weights, and the number of operations.
Hence q, k and v are one product; SiLU, the gate's product and the additions to the stream ride along with products (oneDNN, on a
CPU); queries and keys are normalised and rotated together; a norm is 4 operations: x · w√D / hypot(|x|, √(D · eps)); tables and
the places of the cache are cut once for all layers.
"""

import copy

import torch
from torch import Tensor, nn

from worldfoundry.autoregressive.cache import KVCache, Places
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Block, SelfAttention, TextContext, Transformer
from worldfoundry.nn.attention import grouped_attention
from worldfoundry.nn.int8 import Int8Linear
from worldfoundry.nn.memo import Memo
from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.packed import PackedLinear


class LeanTransformer(Transformer):
    """A network with the same outputs as `network`, whose embedding it shares; of the other weights it has packed copies.

    For inference without gradients on the device where it was made; not to be trained, saved or moved. Its caches and the
    original's are interchangeable.
    """

    cos_P1d: Tensor
    sin_P1d: Tensor

    @torch.no_grad()
    def __init__(self, network: Transformer) -> None:
        nn.Module.__init__(self)  # everything below is the network's own: no new weights
        self.config, self.embed = network.config, network.embed
        blocks = (LeanBlock(block, network.config) for block in network.blocks if isinstance(block, Block))
        self.blocks, self.norm = nn.ModuleList(blocks), _lean(network.norm)
        self.unembed, self.medusa = PackedLinear(network.unembed.weight), None
        if network.medusa is not None:
            self.medusa = copy.copy(network.medusa)
            self.medusa._modules = {"merged": PackedLinear(network.medusa.merged.weight)}
        device = network.embed.weight.device
        tables = network.positions(device)
        self._positions = {device: tables}
        self.register_buffer("cos_P1d", torch.cat([tables.cos_Pe, tables.cos_Pe], dim=-1)[:, None], persistent=False)
        self.register_buffer("sin_P1d", torch.cat([-tables.sin_Pe, tables.sin_Pe], dim=-1)[:, None], persistent=False)
        self.train(network.training)

    def hidden(self, tokens_BL: Tensor, text: TextContext | None = None, cache: KVCache | None = None) -> Tensor:
        """As the original's."""
        start = self._start(tokens_BL, text, cache)
        stop, x_BLD = start + tokens_BL.shape[1], self.embed(tokens_BL)
        cos_L1d, sin_L1d = self.cos_P1d[start:stop], self.sin_P1d[start:stop]
        absolute_PD = self.positions(tokens_BL.device).absolute_PD
        absolute_LD = None if absolute_PD is None else absolute_PD[start:stop].to(x_BLD.dtype)
        places = cache.places(start, stop) if cache is not None else [None] * len(self.blocks)
        memo = cache.memo if cache is not None else None
        for block, cached in zip(self.blocks, places, strict=True):
            x_BLD = block(x_BLD if absolute_LD is None else x_BLD + absolute_LD, cos_L1d, sin_L1d, text, cached, memo)
        if cache is not None:
            cache.length = stop
        return self.norm(x_BLD).to(x_BLD.dtype)


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
    """What a `Block` computes."""

    def __init__(self, block: Block, config: TransformerConfig) -> None:
        super().__init__()
        attention = block.attention
        self.head_dim, self.heads = config.head_dim, [config.num_heads, config.num_kv_heads]
        self.attention_norm, self.ffn_norm = (_lean(norm) for norm in (block.attention_norm, block.ffn_norm))
        self.to_qkv = _joined(attention.to_q, attention.to_k, attention.to_v)
        self.head_norm = _head_norm(attention, config) if config.qk_norm else None
        self.to_out = _joined(attention.to_out)
        self.cross_attention_norm, self.cross_attention = block.cross_attention_norm, block.cross_attention
        self.gate, self.up, self.down = (_joined(part) for part in (block.ffn.gate, block.ffn.up, block.ffn.down))

    def forward(
        self,
        x_BLD: Tensor,
        cos_L1d: Tensor,
        sin_L1d: Tensor,
        text: TextContext | None = None,
        cached: Places | None = None,
        memo: Memo | None = None,
    ) -> Tensor:
        dtype = x_BLD.dtype
        mixed_BLD = self._attend(self.attention_norm(x_BLD).to(dtype), cos_L1d, sin_L1d, cached)
        x_BLD = self.to_out.plus(mixed_BLD, x_BLD)
        if self.cross_attention is not None and self.cross_attention_norm is not None and text is not None:
            x_BLD = x_BLD + self.cross_attention(self.cross_attention_norm(x_BLD), text, memo)
        normed_BLD = self.ffn_norm(x_BLD).to(dtype)
        return self.down.plus(self.up.times(normed_BLD, self.gate.silu(normed_BLD)), x_BLD)

    def _attend(self, x_BLD: Tensor, cos_L1d: Tensor, sin_L1d: Tensor, cached: Places | None) -> Tensor:
        """[B, L, h · d], the heads' outputs side by side."""
        (B, L, _), (h, g) = x_BLD.shape, self.heads
        heads_BLnd = self.to_qkv(x_BLD).view(B, L, h + 2 * g, self.head_dim)
        qk_BLnd, v_BLgd = heads_BLnd.split_with_sizes([h + g, g], dim=2)
        qk_BLnd = self.head_norm(qk_BLnd) if self.head_norm is not None else qk_BLnd.float()
        qk_BnLd = _rotated(qk_BLnd, cos_L1d, sin_L1d).transpose(1, 2)
        q, k = qk_BnLd.split_with_sizes(self.heads, dim=1)
        v = v_BLgd.transpose(1, 2)
        if cached is None:
            k = k.to(v.dtype)
        else:
            cached.new_keys.copy_(k)
            cached.new_values.copy_(v)
            k, v = cached.keys, cached.values
        return grouped_attention(q.to(v.dtype), k, v, causal=True).transpose(1, 2).reshape(B, L, h * self.head_dim)


def _rotated(x_BLnd: Tensor, cos_L1d: Tensor, sin_L1d: Tensor) -> Tensor:
    """`apply_rope` for tokens before heads; the first half of `sin` has the other sign."""
    return (x_BLnd * cos_L1d).addcmul_(x_BLnd.roll(x_BLnd.shape[-1] // 2, -1), sin_L1d)


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
