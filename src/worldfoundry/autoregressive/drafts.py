"""Guesses at the next tokens, which `decoding.py` verifies: by heads that were trained for it, or by looking at the frame before.

Axis legend: B batch, L known tokens, K guesses, D width.
"""

from typing import Protocol

from torch import Tensor

from worldfoundry.autoregressive.sampling import Race
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.errors import UsageError


class Draft(Protocol):
    """Guesses tokens. A bad guess costs time, and never changes what is generated."""

    def propose(self, known_BL: Tensor, hidden_BD: Tensor, race: Race, most: int) -> Tensor:
        """Tokens [B, K] that may follow the known ones, 0 <= K <= `most`.

        `hidden_BD` is the network's last layer where it predicted the last known token; `race` draws the positions that are
        guessed, for a draft that has a distribution.
        """
        ...


class MedusaDraft:
    """Heads on the last layer, the k-th of which predicts k tokens further than the network (arXiv 2401.10774; here without tree).

    Raises UsageError for a network without such heads.
    """

    def __init__(self, network: Transformer, heads: int | None = None) -> None:
        self.network, self.heads = network, heads
        if network.medusa is None:
            raise UsageError("This network has no Medusa heads.", "Train them, or speculate by copying.")

    def propose(self, known_BL: Tensor, hidden_BD: Tensor, race: Race, most: int) -> Tensor:
        assert self.network.medusa is not None
        count = most if self.heads is None else min(self.heads, most)
        hidden_BKD = self.network.medusa(hidden_BD[:, None])[:, 0, :count]
        return race.draw(self.network.logits(hidden_BKD))


class CopyDraft:
    """The tokens at the same places of the latent frame before: most of a picture stands still. Needs no training."""

    def __init__(self, frame_tokens: int, length: int = 8) -> None:
        if not 1 <= length <= frame_tokens:
            raise UsageError(
                f"A draft copies between 1 and {frame_tokens!r} tokens, the size of a latent frame, not {length!r}."
            )
        self.frame_tokens, self.length = frame_tokens, length

    def propose(self, known_BL: Tensor, hidden_BD: Tensor, race: Race, most: int) -> Tensor:
        start = known_BL.shape[1] - self.frame_tokens
        return known_BL[:, start : start + min(self.length, most)] if start >= 0 else known_BL[:, :0]
