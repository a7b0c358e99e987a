"""What decoding remembers: keys and values of all tokens so far, in memory that is taken once.

Legend: B batch, g key and value heads, M places, d head width.
"""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.core.errors import UsageError
from worldfoundry.nn.memo import Memo


@dataclass(kw_only=True)
class KVCache:
    """Per layer the keys (normalised and rotated) and values of `length` tokens; the same number for the whole batch.

    The network appends; `truncate` forgets. `memo` holds what the text gave (keys and values of the cross-attention).
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: int = 0
    text: object = None
    memo: Memo = field(default_factory=dict)

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
        shape = (batch_size, config.num_kv_heads, max_len, config.head_dim)
        keys, values = ([torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)] for _ in range(2))
        return cls(keys=keys, values=values)

    @property
    def max_len(self) -> int:
        return self.keys[0].shape[2]

    @property
    def batch_size(self) -> int:
        return self.keys[0].shape[0]

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
