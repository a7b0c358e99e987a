"""The latent cache of a diffusion training: every window once through the tokenizer, kept on disk, resumed where it stopped.

Axis legend: N windows, C latent channels, T latent frames, H W latent rows/columns, F frames, A action numbers, K features.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldfoundry.conditioning.action import action_features
from worldfoundry.core.devices import fast_bfloat16
from worldfoundry.core.files import sole_writer
from worldfoundry.core.progress import progress
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.data.latents import LatentCache
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.train_tokenizer import encode
from worldfoundry.recipes.windows import Window, iter_windows
from worldfoundry.tokenizers.tokenizer import Tokenizer

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """All training windows in memory: normalised latents [N, C, T, H, W] (half precision), caption number, actions."""

    latents: Tensor
    caption: Tensor
    captions: list[str]
    actions_NFA: Tensor | None

    def rows(self, rms_A: Tensor | None, temporal_compression: int) -> dict[str, Tensor]:
        """Columns for a stream; actions become features."""
        columns = {"latents": self.latents, "caption": self.caption}
        if self.actions_NFA is not None and rms_A is not None:
            columns["actions"] = action_features(self.actions_NFA, rms_A, temporal_compression)
        return columns


def encode_dtype(tokenizer: Tokenizer) -> torch.dtype:
    """What `train_tokenizer.encode` computes in on this tokenizer's device."""
    device = next(iter(tokenizer.parameters())).device
    return torch.bfloat16 if fast_bfloat16(device) else tokenizer.dtype


def action_rms(actions_NFA: Tensor) -> Tensor:
    """Root mean square of every action number over windows and frames."""
    return actions_NFA.square().mean(dim=(0, 1)).sqrt()


def encode_windows(
    dataset: ClipDataset, records: list[ClipRecord], window: WindowConfig, tokenizer: Tokenizer, folder: Path, identity: str
) -> LatentSet:
    """Encode the windows of `records`, one cache entry per clip; entries that `folder` already holds are not made again.

    `identity` names the data and the windows; the tokenizer and the dtype that it computes in are added here. Raises DataError
    if `folder` holds latents of anything else.
    """
    captions = sorted({record.caption for record in records})
    entries = []
    made_of = {
        "content": "training windows",
        "windows": identity,
        "tokenizer": tokenizer_identity(tokenizer),
        "dtype": str(encode_dtype(tokenizer)).removeprefix("torch."),
        "stored": "normalised float16",
    }
    with (
        sole_writer(folder),
        LatentCache(folder, identity=made_of) as cache,
        progress("encoding clips", len(records), "clips") as bar,
    ):
        for record in records:
            if record.key not in cache:
                entry = _encode_clip(dataset, record, window, tokenizer)
                cache.put(record.key, entry, {"windows": len(entry["latents"]), "caption": record.caption})
            entries.append(cache.get(record.key))
            bar.advance()
    number = {caption: i for i, caption in enumerate(captions)}
    caption = [number[record.caption] for record, entry in zip(records, entries, strict=True) for _ in entry["latents"]]
    with_actions = all("actions" in entry for entry in entries)
    return LatentSet(
        latents=torch.cat([entry["latents"] for entry in entries]),
        caption=torch.tensor(caption),
        captions=captions,
        actions_NFA=torch.cat([entry["actions"] for entry in entries]) if with_actions else None,
    )


def _encode_clip(dataset: ClipDataset, record: ClipRecord, window: WindowConfig, tokenizer: Tokenizer) -> dict[str, Tensor]:
    windows: list[Window] = next(iter(iter_windows(dataset, [record], window)))
    batches: Iterable[list[Window]] = (windows[i : i + BATCH] for i in range(0, len(windows), BATCH))
    latents = [encode(tokenizer, torch.from_numpy(np.stack([w.frames for w in batch]))) for batch in batches]
    entry = {"latents": tokenizer.normalize(torch.cat(latents)).half().contiguous()}
    actions = [w.actions for w in windows if w.actions is not None]
    if actions:
        entry["actions"] = torch.from_numpy(np.stack(actions)).float()
    return entry
