"""Tokens one after the other, or several at a time where a draft guesses them: prefill, decode, blocks as they complete.

Every pass is the same: the network reads the last token and the K tokens that a draft guesses after it (K = 0 without a draft),
and a token is drawn at each of these K + 1 positions. Guesses that equal what was drawn before them are thereby confirmed, and
the first token that was drawn after them is new: between 1 and K + 1 tokens per pass.

This is speculative decoding (arXiv 2211.17192) with the acceptance test of arXiv 2408.07978: a guess is accepted if it is the
token that the position's own random numbers choose under the network's distribution. What is chosen never depends on the
guesses, so the distribution is the network's, exactly, and a seed gives the same video with any draft and without one (where
several positions at a time and one at a time round alike). For a guess that is one certain token, a copy, this accepts exactly
as often as rejection sampling does, with probability p(guess). For a guess that was drawn from a distribution of its own,
`Race` draws it with the same random numbers; it agrees at least (1 - d) / (1 + d) of the time at total variation d, where
rejection sampling has 1 - d and gives another video.

Samples of a batch advance together, by the fewest confirmed guesses among them: a cache has one length for all. What a sample
had confirmed beyond that is drawn again in the next pass, by the same random numbers.

Axis legend: B batch, L positions, K guesses, V tokens of the vocabulary, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.drafts import Draft
from worldfoundry.autoregressive.sampling import Race, Sampling
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.core.errors import UsageError


@dataclass
class Tally:
    """What decoding took: passes of the network (prefill included), new tokens of one sample, guesses and those confirmed."""

    forwards: int = 0
    tokens: int = 0
    guessed: int = 0
    confirmed: int = 0
    duration_s: float = 0.0

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / max(self.forwards, 1)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.duration_s if self.duration_s else 0.0


def generate(
    network: Transformer,
    prefix_BL: Tensor,
    num_new: int,
    *,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    text: TextContext | None = None,
    cache: KVCache | None = None,
    draft: Draft | None = None,
    stop_multiple: int = 1,
    tally: Tally | None = None,
) -> Iterator[Tensor]:
    """`num_new` tokens after `prefix_BL`, handed out as int64 [B, stop_multiple] as soon as a block is complete.

    The prefix holds tokens of video; <bov> is put before them where the network has it. A `cache` has room for prefix and new
    tokens, and is begun anew: it saves taking memory again. `generators` are one per sample, on the CPU. `tally` is added to.
    Raises UsageError, before anything is computed, for tokens outside the vocabulary, for more tokens than the context holds,
    and if `num_new` is no multiple of `stop_multiple`.
    """
    check_tokens(network.config, prefix_BL, num_new, stop_multiple)
    if len(generators) != len(prefix_BL):
        raise UsageError(f"{len(prefix_BL)} samples need a generator each, but {len(generators)} were given.")
    race, tally = Race(sampling, generators), tally if tally is not None else Tally()
    return _decode(network, prefix_BL, num_new, race, text, cache, draft, stop_multiple, tally)


@torch.inference_mode()
def _decode(
    network: Transformer, prefix_BL: Tensor, num_new: int, race: Race, text: TextContext | None, cache: KVCache | None,
    draft: Draft | None, block: int, tally: Tally,
) -> Iterator[Tensor]:  # fmt: skip
    known_BL = _with_bov(network.config, prefix_BL)
    bov, given = known_BL.shape[1] - prefix_BL.shape[1], known_BL.shape[1]
    if cache is None:
        weight = next(network.parameters())
        cache = KVCache.empty(network.config, len(known_BL), given + num_new, weight.dtype, weight.device)
    cache.truncate(0)
    unread_BL, guesses_BK, handed = known_BL, known_BL[:, :0], given
    while known_BL.shape[1] < given + num_new:
        started_s = perf_counter()
        hidden_BLD = network.hidden(torch.cat([unread_BL, guesses_BK], dim=1), text, cache)
        hidden_BLD = hidden_BLD[:, unread_BL.shape[1] - 1 :]
        drawn_BL = race.draw(network.logits(hidden_BLD))
        confirmed = confirmed_by_all(guesses_BK, drawn_BL)
        unread_BL, known_BL = drawn_BL[:, confirmed : confirmed + 1], torch.cat([known_BL, drawn_BL[:, : confirmed + 1]], dim=1)
        cache.truncate(known_BL.shape[1] - 1)
        race.advance(confirmed + 1)
        tally.forwards, tally.tokens = tally.forwards + 1, tally.tokens + confirmed + 1
        tally.guessed, tally.confirmed = tally.guessed + guesses_BK.shape[1], tally.confirmed + confirmed
        if draft is not None and (room := given + num_new - known_BL.shape[1] - 1) > 0:
            guesses_BK = draft.propose(known_BL[:, bov:], hidden_BLD[:, confirmed], race, room)
        else:
            guesses_BK = known_BL[:, :0]
        tally.duration_s += perf_counter() - started_s
        while known_BL.shape[1] - handed >= block:
            yield known_BL[:, handed : handed + block].clone()
            handed += block


def confirmed_by_all(guesses_BK: Tensor, drawn_BL: Tensor) -> int:
    """How many first guesses equal what was drawn, in every sample of the batch."""
    same_BK = guesses_BK == drawn_BL[:, : guesses_BK.shape[1]]
    return int(same_BK.all(0).cumprod(0).sum())


def context_length(config: TransformerConfig) -> int:
    """Tokens of video that fit the positions of a network."""
    held = config.tokens_per_clip if config.rope == "3d" else config.max_seq_len
    return min(held, config.max_seq_len - config.bov)


def check_tokens(config: TransformerConfig, prefix_BL: Tensor, num_new: int, stop_multiple: int = 1) -> None:
    """Raises UsageError for what cannot be continued; the conditions are those of `generate`."""
    if prefix_BL.ndim != 2 or prefix_BL.is_floating_point():
        raise UsageError(f"Tokens are integers [batch, positions], not {prefix_BL.dtype} {list(prefix_BL.shape)!r}.")
    if not prefix_BL.shape[1] and not config.bov:
        raise UsageError(
            "This network continues tokens, but the prefix is empty.", "Give at least one token, or use a network with <bov>."
        )
    if prefix_BL.numel():
        low, high = (int(value) for value in prefix_BL.aminmax())
        if low < 0 or high >= config.vocab_size:
            raise UsageError(
                f"Token {low if low < 0 else high!r} is outside the vocabulary of {config.vocab_size!r} tokens.",
                "Encode the prefix with the tokenizer that the network was trained with.",
            )
    context, length = context_length(config), prefix_BL.shape[1]
    if length + num_new > context:
        raise UsageError(
            f"A prefix of {length!r} tokens and {num_new!r} new ones are more than the context of {context!r} tokens.",
            "Shorten the prefix, or continue its last frames in a new context.",
        )
    if num_new < 1 or num_new % stop_multiple:
        raise UsageError(
            f"{num_new!r} new tokens are no whole number of blocks of {stop_multiple!r}.",
            f"Ask for a multiple of {stop_multiple!r}: a latent frame is handed out whole.",
        )


def _with_bov(config: TransformerConfig, tokens_BL: Tensor) -> Tensor:
    tokens_BL = tokens_BL.long()
    return torch.nn.functional.pad(tokens_BL, (1, 0), value=config.vocab_size) if config.bov else tokens_BL
