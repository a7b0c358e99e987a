"""The Cosmos autoregressive transformer (arXiv 2501.03575, section 5.2), exactly as the published networks compute.

Legend: B batch, L tokens of this call, P all tokens so far, M text rows, D width, V vocabulary, h query heads, g key and value
heads, d head width, e = d/2.

What is notable:
- tokens are codes of the discrete tokenizer in raster order: latent frame, then row, then column; each predicts the next
- grouped-query attention: query head j reads key head j // (h/g); queries and keys are RMS-normalised per head, then rotated
- rotary positions over frame, row and column (`positions.py`); the text variants also add sin-cos vectors before every block
- the text variants begin with <bov> and attend to T5 rows under a mask; no rotation there, but the same per-head normalisation
- SwiGLU, RMSNorm, no biases anywhere; the unembedding has weights of its own and no rows for <bov> and padding
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.medusa import MedusaHeads
from worldfoundry.autoregressive.positions import Positions, position_tables
from worldfoundry.core.errors import UsageError
from worldfoundry.nn.attention import grouped_attention
from worldfoundry.nn.memo import Memo, remembered
from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.rope import apply_rope


@dataclass(frozen=True, kw_only=True)
class TextContext:
    """Text for cross-attention: rows_BMD from the text encoder, mask_BM boolean, True = attend."""

    rows_BMD: Tensor
    mask_BM: Tensor


class SelfAttention(nn.Module):
    """Each token attends to itself and those before it."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.to_q = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.to_k = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.to_v = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.to_out = nn.Linear(config.num_heads * config.head_dim, config.dim, bias=False)
        self.norm_q, self.norm_k = _head_norm(config), _head_norm(config)

    def forward(self, x_BLD: Tensor, cos_Le: Tensor, sin_Le: Tensor, cached: "tuple[Tensor, Tensor, int] | None") -> Tensor:
        """`cached`: keys and values [B, g, room, d] to write to, and how many tokens they hold already."""
        q, k, v = (_heads(project(x_BLD), self.head_dim) for project in (self.to_q, self.to_k, self.to_v))
        q = apply_rope(self.norm_q(q), cos_Le, sin_Le).to(v.dtype)
        k = apply_rope(self.norm_k(k), cos_Le, sin_Le).to(v.dtype)
        if cached is not None:
            keys, values, held = cached
            total = held + k.shape[2]
            keys[:, :, held:total], values[:, :, held:total] = k, v
            k, v = keys[:, :, :total], values[:, :, :total]
        return self.to_out(grouped_attention(q, k, v, causal=True).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Each token attends to the text rows that the mask admits."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.to_q = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.to_k = nn.Linear(config.context_dim, config.num_kv_heads * config.head_dim, bias=False)
        self.to_v = nn.Linear(config.context_dim, config.num_kv_heads * config.head_dim, bias=False)
        self.to_out = nn.Linear(config.num_heads * config.head_dim, config.dim, bias=False)
        self.norm_q, self.norm_k = _head_norm(config), _head_norm(config)

    def forward(self, x_BLD: Tensor, text: TextContext, memo: Memo | None) -> Tensor:
        """`memo` keeps the keys and values of a text from one call to the next."""
        q = self.norm_q(_heads(self.to_q(x_BLD), self.head_dim))
        k, v = remembered(memo, self, lambda: self.keys_values(text.rows_BMD.to(x_BLD.dtype)))
        mixed = grouped_attention(q.to(v.dtype), k, v, mask_BM=text.mask_BM)
        return self.to_out(mixed.transpose(1, 2).flatten(2))

    def keys_values(self, rows_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Each [B, g, M, d], keys normalised."""
        v = _heads(self.to_v(rows_BMD), self.head_dim)
        return self.norm_k(_heads(self.to_k(rows_BMD), self.head_dim)).to(v.dtype), v


class SwiGLU(nn.Module):
    """down(SiLU(gate x) · up x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_D: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_D)) * self.up(x_D))


class Block(nn.Module):
    """Self-attention, cross-attention where this block has one, SwiGLU; each reads a normalised stream and adds to it."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = SelfAttention(config)
        crosses = config.context_dim > 0 and index % config.cross_attn_every == 0
        self.cross_attention_norm = RMSNorm(config.dim, config.norm_eps) if crosses else None
        self.cross_attention = CrossAttention(config) if crosses else None
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = SwiGLU(config.dim, config.ffn_hidden_size)

    def forward(
        self,
        x_BLD: Tensor,
        cos_Le: Tensor,
        sin_Le: Tensor,
        text: TextContext | None = None,
        cached: tuple[Tensor, Tensor, int] | None = None,
        memo: Memo | None = None,
    ) -> Tensor:
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), cos_Le, sin_Le, cached)
        if self.cross_attention is not None and self.cross_attention_norm is not None and text is not None:
            x_BLD = x_BLD + self.cross_attention(self.cross_attention_norm(x_BLD), text, memo)
        return x_BLD + self.ffn(self.ffn_norm(x_BLD))


class Transformer(nn.Module):
    """Tokens so far → logits of the next. `config` says which variant; `medusa` is None where it has no such heads."""

    def __init__(self, config: TransformerConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.embedding_rows, config.dim)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.unembed = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.medusa = MedusaHeads(config.dim, config.medusa_heads) if config.medusa_heads else None
        self._positions: dict[torch.device, Positions] = {}
        device = self.embed.weight.device
        if device.type != "meta":
            self.init_weights(torch.Generator(device).manual_seed(seed))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Normal of deviation 0.02; what adds to the stream is scaled down by the number of additions; Medusa heads are zero."""
        additions = sum(3 if block.cross_attention is not None else 2 for block in self.blocks)  # type: ignore[union-attr]
        for name, parameter in self.named_parameters():
            if name.startswith("medusa."):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                adds = name.endswith(("to_out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 * (additions**-0.5 if adds else 1), generator=generator)

    def forward(self, tokens_BL: Tensor, text: TextContext | None = None, cache: KVCache | None = None) -> Tensor:
        """logits [B, L, V] of the tokens that follow each of `tokens_BL`; see `hidden`."""
        return self.logits(self.hidden(tokens_BL, text, cache))

    def hidden(self, tokens_BL: Tensor, text: TextContext | None = None, cache: KVCache | None = None) -> Tensor:
        """The stream after the final normalisation, [B, L, D].

        tokens: integers below `config.embedding_rows`. Without a cache they are the places 0 … L-1. With one they follow the
        tokens that it holds, and it holds them afterwards: a prefix, one token and several guesses are the same call.
        text: None = cross-attention is left out (its sub-blocks add nothing). Raises UsageError beyond the context.
        """
        start = self._start(tokens_BL, text, cache)
        tables = self.positions(tokens_BL.device)
        places = slice(start, start + tokens_BL.shape[1])
        cos_Le, sin_Le = tables.cos_Pe[places], tables.sin_Pe[places]
        x_BLD = self.embed(tokens_BL)
        absolute_LD = _absolute(tables, places, x_BLD.dtype)
        memo = cache.memo if cache is not None else None
        for index, block in enumerate(self.blocks):
            cached = (cache.keys[index], cache.values[index], start) if cache is not None else None
            x_BLD = block(x_BLD if absolute_LD is None else x_BLD + absolute_LD, cos_Le, sin_Le, text, cached, memo)
        if cache is not None:
            cache.length = places.stop
        return self.norm(x_BLD)

    def positions(self, device: torch.device) -> Positions:
        """The position tables, made once per device."""
        if device not in self._positions:
            self._positions[device] = position_tables(self.config, device)
        return self._positions[device]

    def for_decoding(self) -> "Transformer":
        """The same function in fewer operations, with its own packed copies of the weights as they are now; see `lean.py`."""
        from worldfoundry.autoregressive.lean import LeanTransformer

        return LeanTransformer(self)

    def logits(self, hidden_D: Tensor) -> Tensor:
        """[..., D] → [..., V]."""
        return self.unembed(hidden_D)

    def _start(self, tokens_BL: Tensor, text: TextContext | None, cache: KVCache | None) -> int:
        """The place of the first token. Raises UsageError for what does not fit."""
        batch, length = tokens_BL.shape
        if text is not None and not self.config.context_dim:
            raise UsageError("This model takes no text.", "Use a video2world model, or leave the text out.")
        if text is not None and text.rows_BMD.shape[-1] != self.config.context_dim:
            raise UsageError(
                f"This model takes text rows of width {self.config.context_dim}, not {text.rows_BMD.shape[-1]!r}.",
                "Use the text encoder that it was trained with.",
            )
        if cache is None:
            if length > self.config.max_seq_len:
                raise UsageError(
                    f"This model's context holds {self.config.max_seq_len} tokens, not {length!r}.",
                    "Give a shorter prefix, or slide the window over whole latent frames.",
                )
            return 0
        cache.room(length, batch)
        if cache.text is not text:
            cache.text, cache.memo = text, {}
        return cache.length


def _absolute(tables: Positions, places: slice, dtype: torch.dtype) -> Tensor | None:
    return None if tables.absolute_PD is None else tables.absolute_PD[places].to(dtype)


def _heads(x_BLD: Tensor, head_dim: int) -> Tensor:
    """[B, L, heads · d] → [B, heads, L, d]; as many heads as there are, so that a rank may hold some of them."""
    return x_BLD.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _head_norm(config: TransformerConfig) -> nn.Module:
    return RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
