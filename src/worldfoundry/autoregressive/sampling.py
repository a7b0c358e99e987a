"""From logits to tokens: temperature, top-k, top-p, and a draw whose randomness belongs to a sample and a position.

A token is drawn by an exponential race: with e_i exponential, the i of the smallest e_i / p_i is distributed as p. The times e
of a sample's next positions come from its own generator in the order of positions, whatever is drawn with them and however
often. So a sample's tokens depend neither on the batch that it is in nor on how many positions a pass looks at (`decoding.py`).

Axis legend: B batch, L positions, V tokens of the vocabulary.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from worldfoundry.core.config import Config

SMALLEST = 1e-30  # a time of 0 would win against every other, and be no number over a probability of 0


class Sampling(Config):
    """How tokens are drawn; the defaults are those of the released 4B and 12B examples."""

    temperature: float = Field(default=1.0, ge=0)
    """Above 1 flattens the distribution, below 1 sharpens it; 0 takes the likeliest token (greedy)."""
    top_p: float = Field(default=0.8, gt=0, le=1)
    """Keep the likeliest tokens that together have at least this probability; 1 keeps all."""
    top_k: int = Field(default=0, ge=0)
    """Keep this many of the likeliest tokens; 0 keeps all."""

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def probabilities(logits_BLV: Tensor, sampling: Sampling) -> Tensor:
    """What tokens are drawn from, float32 [B, L, V], each position's sum 1. Greedy puts all of it on one token.

    In this order, as is usual: temperature, top-k, top-p of what is left. Any leading axes will do.
    """
    logits = logits_BLV.float()
    if sampling.greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits / sampling.temperature
    count = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    if count == logits.shape[-1] and sampling.top_p == 1:
        return logits.softmax(-1)
    largest, tokens = logits.topk(count, dim=-1)  # sorted, so that a sum over the likeliest is a running one
    p = largest.softmax(-1)
    p = p * (p.cumsum(-1) - p < sampling.top_p)  # the token that crosses the threshold stays
    return torch.zeros_like(logits).scatter_(-1, tokens, p / p.sum(-1, keepdim=True))


class Race:
    """Draws tokens of a batch's next positions; `advance` goes on to later ones. One generator, on the CPU, per sample."""

    def __init__(self, sampling: Sampling, generators: Sequence[torch.Generator]) -> None:
        self.sampling, self.generators = sampling, generators
        self._times: list[Tensor] = []  # one [B, V] for each of the next positions

    def draw(self, logits_BLV: Tensor) -> Tensor:
        """Tokens [B, L] of the next L positions. Asked again before `advance`, the same times decide."""
        if self.sampling.greedy:
            return logits_BLV.argmax(-1)
        p_BLV = probabilities(logits_BLV, self.sampling)
        while len(self._times) < p_BLV.shape[1]:
            self._times.append(self._run(p_BLV.shape[-1]).to(p_BLV.device))
        times_BLV = torch.stack(self._times[: p_BLV.shape[1]], dim=1)
        return (times_BLV / p_BLV).argmin(-1)

    def advance(self, count: int) -> None:
        """The next `count` positions have their tokens."""
        del self._times[:count]

    def _run(self, size: int) -> Tensor:
        """In float64, whose uniform numbers are fine enough for the rarest of many tokens."""
        uniform = [torch.rand(size, generator=generator, dtype=torch.float64) for generator in self.generators]
        return torch.stack(uniform).neg_().log1p_().neg_().float().clamp_min_(SMALLEST)
