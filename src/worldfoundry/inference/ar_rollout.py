"""Latent frames of tokens, one after the other, for as long as is asked.

A network holds the latent frames that it was trained on. When they are full, the last few of them become the first ones of a new
context, whole frames at positions from 0, and decoding goes on from there: the window slides over the clip.

Axis legend: B batch, T latent frames, H W latent rows/columns, L tokens.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.decoding import Tally, generate
from worldfoundry.autoregressive.drafts import CopyDraft, Draft, MedusaDraft
from worldfoundry.autoregressive.sampling import Sampling
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.inference.ar_config import Speculation


def make_draft(network: Transformer, speculate: Speculation, length: int) -> Draft | None:
    """What guesses tokens. Raises UsageError for heads that the network does not have."""
    if speculate == "medusa":
        return MedusaDraft(network, length)
    frame_tokens = network.config.tokens_per_frame
    return CopyDraft(frame_tokens, min(length, frame_tokens)) if speculate == "copy" else None


def kept_frames(network: Transformer, asked: int | None) -> int:
    """Latent frames that a new context begins with: as asked, or half of the context, and at least one less than it holds."""
    frames = network.config.latent_shape[0]
    return max(1, min(asked or (frames + 1) // 2, frames - 1))


def roll_out(
    network: Transformer,
    prefix_BTHW: Tensor,
    latent_frames: int,
    *,
    kept: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    text: TextContext | None = None,
    draft: Draft | None = None,
    tally: Tally | None = None,
) -> Iterator[Tensor]:
    """`latent_frames` frames after the prefix, int64 [B, 1, H, W] each, as soon as each is complete.

    The prefix has fewer latent frames than the context, and may have none where the network begins with <bov>. Raises UsageError
    for tokens outside the vocabulary.
    """
    config = network.config
    (held, *_), per_frame, window_BL, left = config.latent_shape, config.tokens_per_frame, prefix_BTHW.flatten(1), latent_frames
    room = min(held, prefix_BTHW.shape[1] + latent_frames) * per_frame + config.bov
    weight = next(network.parameters())
    cache = KVCache.empty(config, len(prefix_BTHW), room, weight.dtype, weight.device)
    while left:
        count = min(left, held - window_BL.shape[1] // per_frame)
        blocks = generate(
            network, window_BL, count * per_frame, sampling=sampling, generators=generators, text=text, cache=cache, draft=draft,
            stop_multiple=per_frame, tally=tally,
        )  # fmt: skip
        for block_BL in blocks:
            window_BL = torch.cat([window_BL, block_BL], dim=1)
            yield block_BL.unflatten(1, (1, *config.latent_shape[1:]))
        left -= count
        window_BL = window_BL[:, -kept * per_frame :]
