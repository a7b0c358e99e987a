"""The latents or indices that a world model's training sees: encoded once and kept on disk, or batch by batch when needed.

Axis legend: N windows, B batch, C latent channels, T latent frames, H W latent rows/columns, F frames, A action numbers,
K features.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldfoundry.conditioning.action import action_features
from worldfoundry.core.config import stable_hash
from worldfoundry.core.devices import fast_bfloat16
from worldfoundry.core.files import sole_writer
from worldfoundry.core.progress import progress
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.data.latents import LatentCache
from worldfoundry.data.resize import fit, pad_to, padding_mask
from worldfoundry.data.windows import WindowSampler
from worldfoundry.inference.config import ImageLatents
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.nn.rope import BASE_FPS
from worldfoundry.recipes.plan import Group, Stage
from worldfoundry.recipes.train_tokenizer import encode
from worldfoundry.recipes.windows import Window, iter_windows, spread_windows
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer
from worldfoundry.training.method import Share

BATCH = 16
STATISTICS_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What turns a clip's facts into a batch's numbers: caption → row of the contexts, actions → features, images' scale."""

    caption_rows: Mapping[str, int]
    rms_A: Tensor | None
    images: ImageLatents | None
    temporal_compression: int

    def actions(self, actions_NFA: Tensor) -> Tensor:
        assert self.rms_A is not None
        return action_features(actions_NFA, self.rms_A, self.temporal_compression)


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """All windows of a group in memory: normalised latents [N, C, T, H, W] (half precision), or a discrete tokenizer's indices
    [N, T, H, W] (int32); each one's clip, actions."""

    group: Group
    latents: Tensor
    records: list[ClipRecord]
    actions_NFA: Tensor | None

    def rows(self, meaning: Meaning) -> dict[str, Tensor]:
        """Columns for a stream."""
        z, group = self.latents, self.group
        if group.images and meaning.images is not None:
            z = meaning.images.normalize(z.float()).half()
        columns = {"latents": z, **facts(group, self.records, meaning, z.shape[-2:])}
        if self.actions_NFA is not None and meaning.rms_A is not None:
            columns["actions"] = meaning.actions(self.actions_NFA)
        return columns


def facts(group: Group, records: list[ClipRecord], meaning: Meaning, size: Iterable[int]) -> dict[str, Tensor]:
    """`caption` [N], `fps` [N] (images have no rate and count as 24) and, where clips are padded, `padding` [N, 1, H, W]."""
    columns = {
        "caption": torch.tensor([meaning.caption_rows[record.caption] for record in records]),
        "fps": torch.tensor([record.fps or BASE_FPS for record in records]),
    }
    if group.padded:
        w = group.window
        masks = {r.key: torch.from_numpy(padding_mask(r.height, r.width, w.height, w.width)) for r in records}
        pixels = torch.stack([masks[record.key] for record in records])[:, None]
        columns["padding"] = torch.nn.functional.interpolate(pixels, size=tuple(size), mode="nearest")
    return columns


def encode_dtype(tokenizer: Tokenizer) -> torch.dtype:
    """What `train_tokenizer.encode` computes in on this tokenizer's device."""
    device = next(iter(tokenizer.parameters())).device
    return torch.bfloat16 if fast_bfloat16(device) else tokenizer.dtype


def action_rms(actions_NFA: Tensor) -> Tensor:
    """Root mean square of every action number over windows and frames."""
    return actions_NFA.square().mean(dim=(0, 1)).sqrt()


def image_statistics(latents: list[Tensor]) -> ImageLatents:
    """Mean per channel and one shared deviation of images' latents, each [N, C, 1, H, W] of any size."""
    values_CN = torch.cat([z.float().movedim(1, 0).flatten(1) for z in latents], dim=1)
    mean_C = values_CN.mean(dim=1)
    return ImageLatents(mean=tuple(mean_C.tolist()), std=float((values_CN - mean_C[:, None]).std()))


# --- cached ----------------------------------------------------------------------------------------------------------


def encode_stages(dataset: ClipDataset, stages: list[Stage], tokenizer: Tokenizer, folder: Path) -> dict[str, LatentSet]:
    """The windows of every group by its name; groups of stages that differ in batch size alone share them."""
    groups = {group.name: group for stage in stages for group in stage.groups}
    common = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokenizer)}
    sets = {}
    for name, group in groups.items():
        identity = stable_hash({**common, "window": group.window.to_dict(), "group": name})
        sets[name] = encode_windows(dataset, group, tokenizer, folder if len(groups) == 1 else folder / name, identity)
    return sets


def encode_windows(dataset: ClipDataset, group: Group, tokenizer: Tokenizer, folder: Path, identity: str) -> LatentSet:
    """Encode the windows of a group, one cache entry per clip; entries that `folder` already holds are not made again.

    `identity` names the data and the windows; the tokenizer and the dtype that it computes in are added here. Raises DataError
    if `folder` holds latents of anything else.
    """
    entries, kind = [], "indices" if tokenizer.spec.discrete else "latents"
    made_of = {
        "content": "training windows",
        "windows": identity,
        "tokenizer": tokenizer_identity(tokenizer),
        "dtype": str(encode_dtype(tokenizer)).removeprefix("torch."),
        "stored": "int32 indices" if tokenizer.spec.discrete else "normalised float16",
    }
    with (
        sole_writer(folder),
        LatentCache(folder, identity=made_of) as cache,
        progress("encoding images" if group.images else "encoding clips", len(group.records), "clips") as bar,
    ):
        for record in group.records:
            if record.key not in cache:
                entry = _encode_clip(dataset, record, group, tokenizer)
                cache.put(record.key, entry, {"windows": len(entry[kind]), "caption": record.caption})
            entries.append(cache.get(record.key))
            bar.advance()
    return LatentSet(
        group=group,
        latents=torch.cat([entry[kind] for entry in entries]),
        records=[record for record, entry in zip(group.records, entries, strict=True) for _ in entry[kind]],
        actions_NFA=_actions(entries, kind, group.window.num_frames),
    )


def _actions(entries: list[dict[str, Tensor]], kind: str, num_frames: int) -> Tensor | None:
    """Every window's actions, zeros for windows of clips without; None if no clip has any."""
    width = next((entry["actions"].shape[-1] for entry in entries if "actions" in entry), None)
    if width is None:
        return None
    return torch.cat([entry.get("actions", torch.zeros(len(entry[kind]), num_frames, width)) for entry in entries])


def _encode_clip(dataset: ClipDataset, record: ClipRecord, group: Group, tokenizer: Tokenizer) -> dict[str, Tensor]:
    windows: list[Window] = next(iter(iter_windows(dataset, [record], group.window, padded=group.padded)))
    batches: Iterable[list[Window]] = (windows[i : i + BATCH] for i in range(0, len(windows), BATCH))
    latents = [encode(tokenizer, torch.from_numpy(np.stack([w.frames for w in batch]))) for batch in batches]
    if isinstance(tokenizer, DiscreteTokenizer):
        return {"indices": tokenizer.quantizer.codes_to_indices(torch.cat(latents))}
    entry = {"latents": tokenizer.normalize(torch.cat(latents)).half().contiguous()}
    actions = [w.actions for w in windows if w.actions is not None and not group.images]
    if actions:
        entry["actions"] = torch.from_numpy(np.stack(actions)).float()
    return entry


# --- online ----------------------------------------------------------------------------------------------------------


class OnlineStream:
    """Random windows of a group, encoded when they are drawn: nothing is kept, and every epoch sees other windows."""

    def __init__(self, dataset: ClipDataset, group: Group, tokenizer: Tokenizer, meaning: Meaning, seed: int) -> None:
        window = group.window
        self.group, self.tokenizer, self.meaning = group, tokenizer, meaning
        self.records, self.share = {record.key: record for record in group.records}, Share()
        self.sampler = WindowSampler(
            dataset, group.records, num_frames=window.num_frames, size=(window.height, window.width),
            batch_size=group.batch_size, seed=seed, resize=pad_to if group.padded else fit,
        )  # fmt: skip

    def next_batch(self) -> dict[str, Tensor]:
        """The columns of a cached row, for the next windows (this rank's share of them)."""
        batch = next(self.sampler)
        video_BTHWC = self.share.of(torch.from_numpy(np.ascontiguousarray(batch["video"])))
        z_BCTHW = self.tokenizer.normalize(encode(self.tokenizer, video_BTHWC))
        if self.group.images and self.meaning.images is not None:
            z_BCTHW = self.meaning.images.normalize(z_BCTHW)
        rows = self.share.of(torch.arange(len(batch["key"]))).tolist()
        records = [self.records[batch["key"][row]] for row in rows]
        columns = {"latents": z_BCTHW, **facts(self.group, records, self.meaning, z_BCTHW.shape[-2:])}
        if self.meaning.rms_A is not None and "actions" in batch and not self.group.images:
            columns["actions"] = self.meaning.actions(torch.from_numpy(batch["actions"][rows]).float())
        return columns

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)


def sampled_image_statistics(dataset: ClipDataset, groups: list[Group], tokenizer: Tokenizer) -> ImageLatents:
    """`image_statistics` of images spread over the clips of the groups, for a training that keeps no latents."""
    count = max(1, STATISTICS_IMAGES // len(groups))
    windows = [window for group in groups for window in spread_windows(dataset, group.records, group.window, count)]
    return image_statistics([tokenizer.normalize(encode(tokenizer, torch.from_numpy(w.frames[None]))) for w in windows])


def recorded_action_rms(dataset: ClipDataset, records: list[ClipRecord]) -> Tensor:
    """`action_rms` over whole clips."""
    actions = [torch.from_numpy(found) for record in records if (found := dataset.actions(record)) is not None]
    return action_rms(torch.cat(actions)[None])
