"""From the plan of a diffusion training to the stream of its batches, and the scales that the trained world must know."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.core.config import stable_hash
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.config import ImageLatents
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.recipes.diffusion_plan import Group, Stage
from worldfoundry.recipes.latents import (
    LatentSet,
    Meaning,
    OnlineStream,
    action_rms,
    encode_windows,
    image_statistics,
    recorded_action_rms,
    sampled_image_statistics,
)
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.streams import MixedStream, SharedStream, StagedStream, TensorStream


@dataclass(frozen=True, kw_only=True)
class DiffusionData:
    """The stream, the captions that its batches name by row, and what the world must be told of actions and images."""

    stream: SharedStream
    captions: list[str]
    rms_A: Tensor | None
    images: ImageLatents | None


def diffusion_data(
    config: TrainDiffusionConfig, dataset: ClipDataset, stages: list[Stage], tokenizer: Tokenizer, *,
    with_actions: bool, known_rms_A: Tensor | None = None,
) -> DiffusionData:  # fmt: skip
    """Encode what is to be cached (under OUT/latents) and set up the stream. `known_rms` are the actions' scales of a base."""
    groups = [group for stage in stages for group in stage.groups]
    captions = sorted({record.caption for group in groups for record in group.records})
    online = config.latents == "online"
    sets = {} if online else _encode(config, dataset, stages, tokenizer)
    last = stages[-1].groups
    meaning = Meaning(
        caption_rows={caption: row for row, caption in enumerate(captions)},
        rms_A=(known_rms_A if known_rms_A is not None else _rms(dataset, last, sets)) if with_actions else None,
        images=_images(dataset, last, sets, tokenizer),
        temporal_compression=tokenizer.spec.t,
    )

    def stream(group: Group) -> SharedStream:
        if online:
            return OnlineStream(dataset, group, tokenizer, meaning, config.loop.seed)
        return TensorStream(sets[group.name].rows(meaning), group.batch_size, config.loop.seed)

    streams = [_stage_stream(config, stage, [stream(group) for group in stage.groups]) for stage in stages]
    ends = torch.tensor([stage.share for stage in stages], dtype=torch.float64).cumsum(0).tolist()
    joined = streams[0] if len(streams) == 1 else StagedStream(streams, ends)
    return DiffusionData(stream=joined, captions=captions, rms_A=meaning.rms_A, images=meaning.images)


def _encode(
    config: TrainDiffusionConfig, dataset: ClipDataset, stages: list[Stage], tokenizer: Tokenizer
) -> dict[str, LatentSet]:
    """The latents of every group by its name; groups of stages that differ in batch size alone share them."""
    groups = {group.name: group for stage in stages for group in stage.groups}
    common = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokenizer)}
    sets = {}
    for name, group in groups.items():
        folder = config.out / "latents" if len(groups) == 1 else config.out / "latents" / name
        identity = stable_hash({**common, "window": group.window.to_dict(), "group": name})
        sets[name] = encode_windows(dataset, group, tokenizer, folder, identity)
    return sets


def _rms(dataset: ClipDataset, groups: list[Group], sets: dict[str, LatentSet]) -> Tensor | None:
    """Scales of the actions over the windows of the last stage."""
    videos = [group for group in groups if not group.images]
    if not sets:
        return recorded_action_rms(dataset, [record for group in videos for record in group.records])
    actions = [found for group in videos if (found := sets[group.name].actions_NFA) is not None]
    return action_rms(torch.cat(actions)) if actions else None


def _images(dataset: ClipDataset, groups: list[Group], sets: dict[str, LatentSet], tokenizer: Tokenizer) -> ImageLatents | None:
    images = [group for group in groups if group.images]
    if not images:
        return None
    if not sets:
        return sampled_image_statistics(dataset, images, tokenizer)
    return image_statistics([sets[group.name].latents for group in images])


def _stage_stream(config: TrainDiffusionConfig, stage: Stage, streams: list[SharedStream]) -> SharedStream:
    """One stream, or a mixture in which images have their share and sizes count by their clips."""
    if len(streams) == 1:
        return streams[0]
    weights = {}
    for images, share in ((False, 1 - config.image_share), (True, config.image_share)):
        groups = [group for group in stage.groups if group.images is images]
        clips = sum(len(group.records) for group in groups)
        weights |= {group.name: share * len(group.records) / clips for group in groups}
    named = {group.name: stream for group, stream in zip(stage.groups, streams, strict=True)}
    return MixedStream(named, weights, config.loop.seed)
