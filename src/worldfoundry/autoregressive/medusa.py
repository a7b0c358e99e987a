"""Medusa heads (arXiv 2401.10774; arXiv 2501.03575, section 5.2.3): guesses at the tokens after the next one.

Legend: B batch, L tokens, D width, K heads. Head k of the hidden vector at place p guesses the token at p + 2 + k through the
transformer's own unembedding.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class MedusaHeads(nn.Module):
    """hidden + SiLU(W_k hidden) for every head k; all W_k lie in one matrix, so that all heads are one product.

    Zero at the start: every head then gives the backbone's own hidden vector.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.merged = nn.Linear(width, num_heads * width, bias=False)  # rows: all of head 0, then head 1, …
        nn.init.zeros_(self.merged.weight)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """→ [B, L, K, D]."""
        return hidden_BLD[..., None, :] + F.silu(self.merged(hidden_BLD).unflatten(-1, (self.num_heads, -1)))
