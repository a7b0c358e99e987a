"""From the plan of a diffusion training to the stream of its batches, and the scales that the trained world must know."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.data.buckets import bucket_size, nearest_aspect
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.config import ImageLatents
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.recipes.latents import (
    LatentSet,
    Meaning,
    OnlineStream,
    action_rms,
    encode_stages,
    image_statistics,
    recorded_action_rms,
    sampled_image_statistics,
)
from worldfoundry.recipes.plan import Group, Stage, joined_stream
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.streams import SharedStream, TensorStream


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
    sets = {} if online else encode_stages(dataset, stages, tokenizer, config.out / "latents")
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

    joined = joined_stream(stages, stream, image_share=config.image_share, seed=config.loop.seed)
    return DiffusionData(stream=joined, captions=captions, rms_A=meaning.rms_A, images=meaning.images)


def trained_shapes(config: TrainDiffusionConfig, stages: list[Stage], multiple: int) -> dict[str, tuple[int, int]]:
    """Height and width that clips of each aspect were padded to in the last stage; none where clips are cropped to the window."""
    records = [record for group in stages[-1].groups if group.padded for record in group.records]
    found = {nearest_aspect(record.width, record.height, config.aspects) for record in records}
    return {a: bucket_size(a, config.window.height, config.window.width, multiple) for a in config.aspects if a in found}


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
