"""What decoding remembers: keys and values of all tokens so far, in memory that is taken once.

Legend: N layers, B batch, g key and value heads, M places, L places of this call, P places up to its last, d head width.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.core.errors import UsageError
from worldfoundry.nn.memo import Memo


class Places(NamedTuple):
    """Views of one layer: keys and values [B, g, P, d] so far and, as the last of them, those [B, g, L, d] to be written."""

    keys: Tensor
    values: Tensor
    new_keys: Tensor
    new_values: Tensor


@dataclass(kw_only=True)
class KVCache:
    """Per layer the keys (normalised and rotated) and values of `length` tokens; the same number for the whole batch.

    The network appends; `truncate` forgets. `memo` holds what the text gave (keys and values of the cross-attention).
    """

    stored_2NBgMd: Tensor
    length: int = 0
    text: object = None
    memo: Memo = field(default_factory=dict)
    keys: tuple[Tensor, ...] = field(init=False)
    values: tuple[Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.keys, self.values = (part.unbind() for part in self.stored_2NBgMd)

    @classmethod
    def empty(
        cls, config: TransformerConfig, batch_size: int, max_len: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Self:
        """Room for `max_len` tokens. Raises UsageError where that is more than the position tables hold."""
        if max_len > config.max_seq_len:
            raise UsageError(
                f"This model's context holds {config.max_seq_len} tokens, not {max_len!r}.",
                "Ask for fewer tokens, or slide the window over whole latent frames.",
            )
        shape = (2, config.num_layers, batch_size, config.num_kv_heads, max_len, config.head_dim)
        return cls(stored_2NBgMd=torch.zeros(shape, dtype=dtype, device=device))

    @property
    def max_len(self) -> int:
        return self.keys[0].shape[2]

    @property
    def batch_size(self) -> int:
        return self.keys[0].shape[0]

    def places(self, start: int, stop: int) -> list[Places]:
        """Each layer's views of the places up to `stop`, of which those from `start` on are new: a few cuts for all layers."""
        known, new = self.stored_2NBgMd.narrow(4, 0, stop), self.stored_2NBgMd.narrow(4, start, stop - start)
        layers = len(self.keys)
        known, new = known.flatten(0, 1).unbind(), new.flatten(0, 1).unbind()
        return [Places(*four) for four in zip(known[:layers], known[layers:], new[:layers], new[layers:], strict=True)]

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on (guesses that were not accepted). Raises UsageError beyond what is held."""
        if not 0 <= length <= self.length:
            raise UsageError(f"A cache of {self.length} tokens cannot be cut to {length!r}.")
        self.length = length

    def room(self, num_tokens: int, batch_size: int) -> None:
        """Whether `num_tokens` more of `batch_size` sequences fit. Raises UsageError."""
        if batch_size != self.batch_size:
            raise UsageError(f"This cache is for a batch of {self.batch_size}, not of {batch_size!r}.")
        if self.length + num_tokens > self.max_len:
            raise UsageError(
                f"The cache holds {self.max_len} tokens; {self.length} are in it and {num_tokens!r} more do not fit.",
                "Make the cache longer, or slide the window over whole latent frames.",
            )
