"""What a diffusion decoder is trained on: a world's training windows as latents, and the same windows as tokens.

Axis legend: N windows, C channels, T H W latent frames/rows/columns, r c token rows/columns.
"""

from dataclasses import replace

import torch
from torch import Tensor

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.latents import encode_windows
from worldfoundry.recipes.student_data import student_window, world_windows
from worldfoundry.recipes.train_decoder_config import TrainDecoderConfig
from worldfoundry.recipes.windows import check_window
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer


def decoder_columns(
    config: TrainDecoderConfig, dataset: ClipDataset, world: DiffusionWorld, latents: Tokenizer, tokens: DiscreteTokenizer
) -> dict[str, Tensor]:
    """Columns for a stream: `latents` [N, C, T, H, W], `tokens` [N, T, r, c], `fps` and `caption` (all 0: there is no text).

    Tokens are cached under OUT/tokens. Raises DataError where cached latents are not those of the same windows.
    """
    windows, window = world_windows(config, dataset, world, latents), student_window(config, world)
    check_window(window, tokens.spec)
    clips = list({record.key: record for record in windows.records}.values())
    group = replace(windows.group, window=window, records=clips)
    made_of = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokens), "window": window.to_dict(), "group": group.name}
    coarse = encode_windows(dataset, group, tokens, config.out / "tokens", stable_hash(made_of))
    if [record.key for record in coarse.records] != [record.key for record in windows.records]:
        raise DataError(
            f"The clips have {len(coarse.records)} windows, but there are latents of {len(windows.records)!r}.",
            "Give the --stride that the latents were made with, or leave --latents out.",
        )
    return {
        "latents": windows.latents,
        "tokens": coarse.latents,
        "fps": torch.tensor([record.fps for record in windows.records]),
        "caption": torch.zeros(len(windows.records), dtype=torch.long),
    }
