"""What a world model's training sees, and when: stages, and in each stage groups of windows of one size, videos or images."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import DataError
from worldfoundry.data.buckets import bucket_size, nearest_aspect
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.recipes.config import StageConfig, WindowConfig
from worldfoundry.recipes.windows import Split, check_window
from worldfoundry.training.streams import MixedStream, SharedStream, StagedStream


class Planned(Protocol):
    """The options that decide it."""

    @property
    def window(self) -> WindowConfig: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def stages(self) -> tuple[StageConfig, ...]: ...
    @property
    def image_share(self) -> float: ...
    @property
    def image_batch_size(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class Group:
    """Windows that can share a batch. `padded`: clips are padded to the size, not cropped. Images are windows of one frame."""

    window: WindowConfig
    records: list[ClipRecord]
    batch_size: int
    padded: bool
    images: bool

    @property
    def name(self) -> str:
        """Names its cache: what decides the windows besides the data."""
        w = self.window
        kind = f"{'-padded' if self.padded else ''}{'-images' if self.images else ''}"
        return f"{w.num_frames}x{w.height}x{w.width}-every{w.stride}{kind}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A share of the budget and what is seen in it."""

    share: float
    groups: list[Group]


def plan(
    config: Planned, dataset: ClipDataset, parts: Split, spec: TokenizerSpec, *,
    aspects: Sequence[str] = (), patch: int = 1, need_actions: bool = False,
) -> list[Stage]:  # fmt: skip
    """The stages in order. Held-out sources are those of `parts` in all of them.

    Clips are cropped to the window, or padded to the nearest of `aspects`, whose sizes are multiples of `patch` latents.
    Raises DataError for a stage without clips, ConfigError for a window that the tokenizer cannot take.
    """
    held_out = {record.source_id for record in parts.held_out}
    usable = [record for record in dataset.records if record.source_id not in held_out]
    left, stages = 1.0, []
    for number, (share, window, batch_size) in enumerate(_windows(config), 1):
        check_window(window, spec)
        videos = [r for r in usable if r.num_frames >= window.num_frames and (r.has_actions or not need_actions)]
        if not videos:
            raise DataError(
                f"Stage {number} has no clip of {window.num_frames!r} frames.", "Shorten it, or curate longer clips."
            )
        groups = _groups(aspects, videos, window, batch_size, spec.h * patch, images=False)
        if config.image_share:
            still = window.replace(num_frames=1, mirror_action=None)
            images = config.image_batch_size or batch_size * spec.latent_frames(window.num_frames)
            groups += _groups(aspects, usable, still, images, spec.h * patch, images=True)
        share = left if share is None else share
        stages.append(Stage(share=share, groups=groups))
        left -= share
    return stages


def joined_stream(
    stages: list[Stage], stream: Callable[[Group], SharedStream], *, image_share: float, seed: int
) -> SharedStream:
    """The streams of all groups made one: after each other by stage, and within one images by their share, sizes by their clips."""
    streams = [_stage_stream(stage, [stream(group) for group in stage.groups], image_share, seed) for stage in stages]
    ends = torch.tensor([stage.share for stage in stages], dtype=torch.float64).cumsum(0).tolist()
    return streams[0] if len(streams) == 1 else StagedStream(streams, ends)


def _stage_stream(stage: Stage, streams: list[SharedStream], image_share: float, seed: int) -> SharedStream:
    if len(streams) == 1:
        return streams[0]
    weights = {}
    for images, share in ((False, 1 - image_share), (True, image_share)):
        groups = [group for group in stage.groups if group.images is images]
        clips = sum(len(group.records) for group in groups)
        weights |= {group.name: share * len(group.records) / clips for group in groups}
    named = {group.name: stream for group, stream in zip(stage.groups, streams, strict=True)}
    return MixedStream(named, weights, seed)


def _windows(config: Planned) -> list[tuple[float | None, WindowConfig, int]]:
    """Share, window and batch size of every stage; the last one takes what is left."""
    rows: list[tuple[float | None, WindowConfig, int]] = []
    for stage in config.stages:
        changes = {name: value for name in ("num_frames", "height", "width") if (value := getattr(stage, name)) is not None}
        rows.append((stage.share, config.window.replace(**changes), stage.batch_size or config.batch_size))
    return [*rows, (None, config.window, config.batch_size)]


def _groups(
    aspects: Sequence[str],
    records: list[ClipRecord],
    window: WindowConfig,
    batch_size: int,
    multiple: int,
    *,
    images: bool,
) -> list[Group]:
    """One group, or one per size that the clips' nearest aspects lead to."""
    if not aspects:
        return [Group(window=window, records=records, batch_size=batch_size, padded=False, images=images)]
    by_size: Mapping[tuple[int, int], list[ClipRecord]] = defaultdict(list)
    for record in records:
        aspect = nearest_aspect(record.width, record.height, aspects)
        by_size[bucket_size(aspect, window.height, window.width, multiple)].append(record)
    return [
        Group(window=window.replace(height=h, width=w), records=members, batch_size=batch_size, padded=True, images=images)
        for (h, w), members in sorted(by_size.items())
    ]
