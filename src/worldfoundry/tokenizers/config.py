"""What a tokenizer is made of: one frozen config, the plan of levels that follows from it, and the table of official sizes.

The schedule of what each level halves is the released code's (the paper gives only the totals): the encoder halves as early
as possible, the decoder doubles time one level later than a mirror image would. Weights fit only this schedule.
"""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of an encoder or decoder: residual blocks at `out_channels`, then what its sampler halves or doubles.

    `frames_per_latent` is the rate at which its blocks run.
    """

    in_channels: int
    out_channels: int
    attention: bool
    temporal: bool
    spatial: bool
    last: bool
    frames_per_latent: int


class TokenizerConfig(Config):
    """A Cosmos tokenizer. The defaults are Cosmos-Tokenize1-CV8x8x8-720p."""

    modality: Literal["video", "image"] = "video"
    """Causal 3-D network, or the 2-D network that takes each frame alone."""
    patch_size: Positive = 4
    """Side of the Haar patch, a power of two: log2 of it wavelet levels before the first convolution."""
    spatial_compression: Positive = 8
    """Pixels per latent along height and width: a power of two, at least the patch size."""
    temporal_compression: Positive = 8
    """Frames per latent after the first frame: a power of two, at least the patch size; 1 for images."""
    in_channels: Positive = 3
    """Colour channels of the video, in and out."""
    channels: Positive = 128
    """Base width."""
    channels_mult: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2, 4, 4)
    """Width of each level, in units of `channels`, from fine to coarse."""
    decoder_channels_mult: tuple[Positive, ...] = ()
    """The same for the decoder where it differs (one generation of CV4x8x8 has a level less); empty = like the encoder."""
    num_res_blocks: Positive = 2
    """Residual blocks per encoder level; decoder levels have one more."""
    z_channels: Positive = 16
    """Width between the networks and the 1x1x1 convolutions around the bottleneck."""
    latent_channels: Positive = 16
    """Channels of a latent; with `levels`, their number."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Values per latent channel for finite scalar quantisation (FSQ); empty = continuous latents."""
    attn_resolutions: tuple[Positive, ...] = (32,)
    """Nominal resolutions whose levels get attention besides the middle block (none does in any released size)."""
    resolution: Positive = 1024
    """Nominal picture side that `attn_resolutions` counts down from; it does not limit the input."""
    num_groups: Positive = 1
    """Groups of the image network's group normalisation (32 in all released ones); video normalises each frame whole."""
    attention_window: Positive | None = None
    """Latent frames, its own included, that the temporal attention of a frame sees (as much time at levels with more frames);
    None = as many as the last published generation was trained on (121 frames if continuous, 49 if discrete). Shorter clips
    give the published numbers."""
    unused_samplers: bool = False
    """Keep the sampler convolutions that Cosmos-0.1 checkpoints store but never run."""
    statistics_frames: Positive = 1
    """Latent frames for which a mean and a deviation are stored; later frames use the last one's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("patch_size", "spatial_compression", "temporal_compression"):
            if getattr(self, name).bit_count() != 1:
                raise ValueError(f"{name} must be a power of two, not {getattr(self, name)}")
        if self.modality == "image" and self.temporal_compression != 1:
            raise ValueError(f"an image tokenizer has temporal_compression 1, not {self.temporal_compression}")
        if self.modality == "video" and self.num_groups != 1:
            raise ValueError(f"a video tokenizer normalises each frame in one group, so num_groups is 1, not {self.num_groups}")
        if self.levels and self.latent_channels != len(self.levels):
            raise ValueError(f"{len(self.levels)} levels need latent_channels {len(self.levels)}, not {self.latent_channels}")
        if self.codebook_size >= 2**31:
            raise ValueError(f"levels make {self.codebook_size} codes, more than an int32 index can count")
        self._check_groups()
        self._check_halvings()
        return self

    def _check_groups(self) -> None:
        widths = {level.out_channels for level in self.encoder_levels() + self.decoder_levels()} | {self.channels}
        for width in sorted(widths):
            if width % self.num_groups:
                raise ValueError(f"every width must be a multiple of num_groups {self.num_groups}, and one is {width}")

    def _check_halvings(self) -> None:
        if min(self.halvings) < 0:
            raise ValueError(f"compression must be at least the patch size {self.patch_size}")
        for part, levels in (("encoder", self.encoder_levels()), ("decoder", self.decoder_levels())):
            found = sum(level.temporal for level in levels), sum(level.spatial for level in levels)
            if found != self.halvings:
                raise ValueError(
                    f"after a patch of {self.patch_size}, temporal_compression {self.temporal_compression} and "
                    f"spatial_compression {self.spatial_compression} need {self.halvings[0]} and {self.halvings[1]} samplers, "
                    f"but the {part} of {len(levels)} levels has {found[0]} and {found[1]}; change channels_mult"
                )

    @property
    def halvings(self) -> tuple[int, int]:
        """How often the network, after the patch, halves time and space."""
        patch = self.patch_size.bit_length()
        temporal = self.temporal_compression.bit_length() - patch if self.modality == "video" else 0
        return temporal, self.spatial_compression.bit_length() - patch

    def encoder_levels(self) -> list[Level]:
        """From fine to coarse. Each halves what is left to halve."""
        temporal, spatial = self.halvings
        widths = [self.channels * mult for mult in self.channels_mult]
        slots = self._sampler_slots(len(widths))
        return [
            Level(
                in_channels=widths[i - 1] if i else self.channels,
                out_channels=width,
                attention=self._nominal(i if self.modality == "video" else min(i, spatial)) in self.attn_resolutions,
                temporal=i < min(temporal, slots),
                spatial=i < min(spatial, slots),
                last=i == len(widths) - 1,
                frames_per_latent=2 ** max(temporal - i, 0),
            )
            for i, width in enumerate(widths)
        ]

    def decoder_levels(self) -> list[Level]:
        """From coarse to fine, the order in which they run. Time is doubled from the second level on, and space with it."""
        temporal, spatial = self.halvings
        widths = [self.channels * mult for mult in reversed(self.decoder_channels_mult or self.channels_mult)]
        slots = self._sampler_slots(len(widths))
        coarsest = self._nominal(len(widths) - 1)
        levels = []
        for i, width in enumerate(widths):
            doubles_time = 0 < i <= temporal and i < slots
            doublings = i if self.modality == "video" else min(i, spatial)
            levels.append(
                Level(
                    in_channels=widths[max(i - 1, 0)],
                    out_channels=width,
                    attention=coarsest * 2**doublings in self.attn_resolutions,
                    temporal=doubles_time,
                    spatial=doubles_time or (i < min(spatial, slots) and spatial > temporal),
                    last=i == len(widths) - 1,
                    frames_per_latent=2 ** max(min(i - 1, temporal), 0),
                )
            )
        return levels

    def _sampler_slots(self, num_levels: int) -> int:
        """How many levels may have a sampler: a video network has none at its last level, an image network may."""
        return num_levels if self.modality == "image" else num_levels - 1

    def _nominal(self, halvings: int) -> int:
        """The nominal resolution that decides on attention. Released video networks count every level as a halving."""
        return self.resolution // self.patch_size // 2**halvings

    @property
    def spec(self) -> TokenizerSpec:
        """What this tokenizer does to shapes."""
        return TokenizerSpec(
            t=self.temporal_compression,
            h=self.spatial_compression,
            w=self.spatial_compression,
            channels=self.latent_channels,
            causal=True,
            levels=self.levels,
        )

    @property
    def window(self) -> int:
        """Latent frames that the temporal attention of a frame sees."""
        trained_frames = 49 if self.levels else 121
        return self.attention_window or self.spec.latent_frames(trained_frames)

    @property
    def codebook_size(self) -> int:
        """Number of codes; 0 if continuous."""
        return prod(self.levels) if self.levels else 0


_LEVELS_64K = (8, 8, 8, 5, 5, 5)
_LEVELS_1K = (8, 5, 5, 5)


def _video(spatial: int, temporal: int, **fields: object) -> TokenizerConfig:
    return TokenizerConfig.from_dict({"spatial_compression": spatial, "temporal_compression": temporal, **fields})


def _image(spatial: int, **fields: object) -> TokenizerConfig:
    fixed = {"modality": "image", "spatial_compression": spatial, "temporal_compression": 1, "num_groups": 32}
    return TokenizerConfig.from_dict({**fixed, **fields})


def _discrete(z_channels: int) -> dict[str, object]:
    return {"z_channels": z_channels, "latent_channels": len(_LEVELS_64K), "levels": _LEVELS_64K}


_NANO_DISCRETE = {
    "channels": 24,
    "channels_mult": (2, 3, 3),
    "num_res_blocks": 1,
    "latent_channels": len(_LEVELS_1K),
    "levels": _LEVELS_1K,
}
_DEBUG = {"channels": 32, "channels_mult": (1, 2), "num_res_blocks": 1}

# Every published tokenizer by its official name, the nano sizes that ship with weights, and the debug sizes that tests and
# laptop trainings use.
# z_channels of the discrete Cosmos-0.1 video tokenizers is the default of their code; no config of theirs was seen.
# A Cosmos-0.1 CV4x8x8 may come with a decoder of two levels: conversion recognises it by its weights.
NAMED: dict[str, TokenizerConfig] = {
    "Cosmos-0.1-Tokenizer-CI8x8": _image(8),
    "Cosmos-0.1-Tokenizer-CI16x16": _image(16),
    "Cosmos-0.1-Tokenizer-DI8x8": _image(8, **_discrete(256)),
    "Cosmos-0.1-Tokenizer-DI16x16": _image(16, **_discrete(256)),
    "Cosmos-0.1-Tokenizer-CV4x8x8": _video(8, 4),
    "Cosmos-0.1-Tokenizer-CV8x8x8": _video(8, 8),
    "Cosmos-0.1-Tokenizer-CV8x16x16": _video(16, 8),
    "Cosmos-0.1-Tokenizer-DV4x8x8": _video(8, 4, **_discrete(16)),
    "Cosmos-0.1-Tokenizer-DV8x8x8": _video(8, 8, **_discrete(16)),
    "Cosmos-0.1-Tokenizer-DV8x16x16": _video(16, 8, **_discrete(16)),
    "Cosmos-1.0-Tokenizer-CV8x8x8": _video(8, 8, statistics_frames=16),
    "Cosmos-1.0-Tokenizer-DV8x16x16": _video(16, 8, **_discrete(16)),
    "Cosmos-Tokenize1-CI8x8-360p": _image(8, patch_size=2),
    "Cosmos-Tokenize1-CI16x16-360p": _image(16, patch_size=2),
    "Cosmos-Tokenize1-DI8x8-360p": _image(8, patch_size=2, **_discrete(256)),
    "Cosmos-Tokenize1-DI16x16-360p": _image(16, patch_size=2, **_discrete(256)),
    "Cosmos-Tokenize1-CV4x8x8-360p": _video(8, 4, patch_size=2),
    "Cosmos-Tokenize1-CV8x8x8-720p": _video(8, 8, statistics_frames=16),
    "Cosmos-Tokenize1-DV4x8x8-360p": _video(8, 4, patch_size=2, **_discrete(256)),
    "Cosmos-Tokenize1-DV8x16x16-720p": _video(16, 8, **_discrete(16)),
    "nano-cv8x8x8": _video(8, 8, channels=24),
    "nano-dv8x16x16": _video(16, 8, **_NANO_DISCRETE),
    "debug": _video(8, 4, channels=8, channels_mult=(1, 2), num_res_blocks=1, z_channels=8, latent_channels=4),
    "debug-cv4x4x4": _video(4, 4, **{**_DEBUG, "channels": 64, "channels_mult": (1,)}, latent_channels=12),
    "debug-cv4x8x8": _video(8, 4, **_DEBUG, z_channels=32, latent_channels=32),
    "debug-cv8x8x8": _video(8, 8, **{**_DEBUG, "channels_mult": (1, 2, 2)}),
    "debug-dv4x8x8": _video(8, 4, **_DEBUG, z_channels=32, latent_channels=4, levels=_LEVELS_1K),
    "debug-ci8x8": _image(8, **_DEBUG, num_groups=8),
    "debug-di8x8": _image(8, **_DEBUG, num_groups=8, latent_channels=4, levels=_LEVELS_1K),
}


def named_config(name: str) -> TokenizerConfig:
    """The config of an official or debug size. Raises ConfigError with the closest names."""
    if name not in NAMED:
        raise ConfigError(f"Unknown tokenizer {name!r}.", did_you_mean(name, list(NAMED)))
    return NAMED[name]
