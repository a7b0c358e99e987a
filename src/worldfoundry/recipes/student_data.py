"""What a student is distilled on: the windows of its teacher's training, as latents, with captions and actions.

Axis legend: N windows, F frames, A action numbers, L context rows, D context width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldfoundry.conditioning.text import NullTextEncoder, text_encoder
from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import DataError
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.data.latents import LatentCache
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.latents import LatentSet, Meaning, encode_windows
from worldfoundry.recipes.plan import Group
from worldfoundry.recipes.train_decoder_config import TrainDecoderConfig
from worldfoundry.recipes.train_student_config import TrainStudentConfig
from worldfoundry.recipes.windows import check_window, split
from worldfoundry.tokenizers.tokenizer import Tokenizer

WindowOptions = TrainStudentConfig | TrainDecoderConfig


def student_columns(
    config: TrainStudentConfig, dataset: ClipDataset, world: DiffusionWorld, tokenizer: Tokenizer
) -> tuple[dict[str, Tensor], Tensor]:
    """Columns for a stream, and the contexts [captions, L, D] that their `caption` numbers. Raises DataError."""
    windows = world_windows(config, dataset, world, tokenizer)
    captions = sorted({record.caption for record in windows.records})
    rms = world.config.action_rms
    meaning = Meaning(
        caption_rows={caption: row for row, caption in enumerate(captions)}, rms_A=torch.tensor(rms) if rms else None,
        images=None, temporal_compression=tokenizer.spec.t,
    )  # fmt: skip
    return windows.rows(meaning), _contexts(world, captions)


def world_windows(config: WindowOptions, dataset: ClipDataset, world: DiffusionWorld, tokenizer: Tokenizer) -> LatentSet:
    """The windows of the world's training as latents, taken from a cache or encoded. Raises DataError."""
    find = _cached if config.latents else _encoded
    windows = find(config, dataset, world, tokenizer)
    channels = world.network.config.in_channels
    if windows.latents.shape[1] != channels:
        raise DataError(f"The latents have {windows.latents.shape[1]} channels, but the world takes {channels!r}.")
    return windows


def student_window(config: WindowOptions, world: DiffusionWorld) -> WindowConfig:
    """The window of the world's training where its provenance tells, or one of the world's default size."""
    known, own = training_config(world).get("window"), world.config
    if isinstance(known, dict):
        window = WindowConfig.from_dict(known, where="the world's provenance")
    else:
        window = WindowConfig(num_frames=own.trained_frames or own.num_frames, height=own.height, width=own.width)
    return window if config.stride is None else window.replace(stride=config.stride)


def training_config(world: DiffusionWorld) -> dict[str, Any]:
    """The options that a world of ours was trained with; nothing for others'."""
    known = world.provenance.get("config")
    return known if isinstance(known, dict) else {}


def _encoded(config: WindowOptions, dataset: ClipDataset, world: DiffusionWorld, tokenizer: Tokenizer) -> LatentSet:
    """The training windows of the data, encoded once under OUT/latents. Clips of the teacher's held-out sources stay out."""
    window = student_window(config, world)
    check_window(window, tokenizer.spec)
    held_out = set(world.provenance.get("held_out_sources", ()))
    records = [record for record in split(dataset, window).train if record.source_id not in held_out]
    if not records:
        raise DataError("All clips come from sources that the world holds out.", "Give the clips that it was trained on.")
    group = Group(window=window, records=records, batch_size=config.batch_size, padded=False, images=False)
    made_of = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokenizer), "window": window.to_dict()}
    folder = config.out / "latents"
    windows = encode_windows(dataset, group, tokenizer, folder, stable_hash({**made_of, "group": group.name}))
    return _with_actions(windows, folder)


def _cached(config: WindowOptions, dataset: ClipDataset, world: DiffusionWorld, tokenizer: Tokenizer) -> LatentSet:
    """All windows that another run's cache holds of the data's clips. Raises DataError for latents of another tokenizer."""
    assert config.latents is not None
    with LatentCache.open(config.latents) as cache:
        if cache.identity.get("tokenizer") != tokenizer_identity(tokenizer):
            raise DataError(
                f"The latents in {str(config.latents)!r} are not those of the world's tokenizer.",
                "Leave --latents out to encode the clips.",
            )
        records = [record for record in dataset.records if record.key in cache and "latents" in cache.get(record.key)]
        if not records:
            raise DataError(
                f"{str(config.latents)!r} holds latents of none of the clips.", "Give the data that the world was trained on."
            )
        latents = [cache.get(record.key)["latents"] for record in records]
    window = student_window(config, world)
    group = Group(window=window, records=records, batch_size=config.batch_size, padded=False, images=False)
    windows = LatentSet(
        group=group, latents=torch.cat(latents), actions_NFA=None,
        records=[record for record, z in zip(records, latents, strict=True) for _ in z],
    )  # fmt: skip
    return _with_actions(windows, config.latents)


def _with_actions(windows: LatentSet, folder: Path) -> LatentSet:
    """With the cached actions; zeros for clips that have none where others do (as nothing acts on them)."""
    clips: dict[str, ClipRecord] = {record.key: record for record in windows.records}
    with LatentCache.open(folder) as cache:
        entries = [cache.get(key) for key in clips]
    shape = next((entry["actions"].shape[1:] for entry in entries if "actions" in entry), None)
    if shape is None:
        return windows
    actions = [entry.get("actions", torch.zeros(len(entry["latents"]), *shape)) for entry in entries]
    return replace(windows, actions_NFA=torch.cat(actions))


def _contexts(world: DiffusionWorld, captions: list[str]) -> Tensor:
    rows, width = world.config.context_rows, world.network.config.crossattn_emb_channels
    if world.config.text_encoder == "none":
        return NullTextEncoder(width, rows).encode(captions)
    encoder = world.encoder or text_encoder(world.config.text_encoder, rows)
    return encoder.encode(captions).float().cpu()
