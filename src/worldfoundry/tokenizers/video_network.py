"""The causal video encoder and decoder of the Cosmos tokenizers (arXiv 2501.03575, section 4.1, figure 8).

    encoder: Haar patch → conv_in → levels [blocks (+ attention), downsample] → middle → norm, SiLU, conv_out
    decoder: conv_in → middle → levels [blocks (+ attention), upsample] → norm, SiLU, conv_out → inverse Haar patch
    middle:  block → attention over the picture, then over past frames → block

Notable: no layer looks at a later frame, so latents of a prefix are the prefix of the latents, and one frame is an image;
convolutions are factorised (1x3x3, then 3x1x1); normalisation is per frame; samplers add a convolution to what average
pooling or repetition gives. Levels run in list order: fine to coarse in the encoder, coarse to fine in the decoder.
A clip may come in chunks: each call is handed a FrameCache with what its layers saw before, and temporal attention sees
at most `window` frames, so memory does not grow with the clip.

Axis legend: B batch, C channels, T frames, H height, W width, K channels of the Haar bands, N M tokens of query and key.
Inside, channels come last (BTHWC): see nn.causal_conv.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.nn.causal_conv import (
    CausalTimeConv,
    FactorizedConv3d,
    FrameConv,
    enlarged_frames_conv,
    repeated_frames_conv,
)
from worldfoundry.nn.frame_cache import FrameCache
from worldfoundry.nn.group_norm import FrameNorm, norm_silu
from worldfoundry.nn.haar import patchify_video, unpatchify_video
from worldfoundry.tokenizers.config import Level, TokenizerConfig


class VideoEncoder(nn.Module):
    """Video [B, 3, 1 + t·k, H, W] → features [B, 1 + k, H/s, W/s, z_channels]; later chunks have t·k frames and give k."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.conv_in = FactorizedConv3d(config.in_channels * config.patch_size**3, config.channels)
        levels = config.encoder_levels()
        self.levels = nn.ModuleList(EncoderLevel(level, config, config.num_res_blocks) for level in levels)
        width = levels[-1].out_channels
        self.middle = Middle(width, config.window)
        self.norm_out = FrameNorm(width)
        self.conv_out = FactorizedConv3d(width, config.z_channels)

    def forward(self, x_BCTHW: Tensor, cache: FrameCache) -> Tensor:
        bands_BKTHW = patchify_video(x_BCTHW, self.patch_size, is_first=cache.is_first)
        h = self.conv_in(bands_BKTHW.movedim(1, -1), cache)
        for level in self.levels:
            h = level(h, cache)
        return self.conv_out(norm_silu(self.norm_out, self.middle(h, cache)), cache)


class VideoDecoder(nn.Module):
    """Features [B, 1 + k, H/s, W/s, z_channels] → video [B, 3, 1 + t·k, H, W]; later chunks have k frames and give t·k."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        levels = config.decoder_levels()
        width = levels[0].in_channels
        self.conv_in = FactorizedConv3d(config.z_channels, width)
        self.middle = Middle(width, config.window)
        self.levels = nn.ModuleList(DecoderLevel(level, config, config.num_res_blocks + 1) for level in levels)
        self.norm_out = FrameNorm(levels[-1].out_channels)
        self.conv_out = FactorizedConv3d(levels[-1].out_channels, config.in_channels * config.patch_size**3)

    def forward(self, z_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        h = self.middle(self.conv_in(z_BTHWC, cache), cache)
        for level in self.levels:
            h = level(h, cache)
        bands_BTHWK = self.conv_out(norm_silu(self.norm_out, h), cache)
        return unpatchify_video(bands_BTHWK.movedim(-1, 1), self.patch_size, is_first=cache.is_first)


class Blocks(nn.Module):
    """The residual blocks of one level, each followed by attention if the level has it."""

    def __init__(self, level: Level, config: TokenizerConfig, num_blocks: int) -> None:
        super().__init__()
        width, window = level.out_channels, 1 + (config.window - 1) * level.frames_per_latent
        self.blocks = nn.ModuleList(ResBlock(*pair) for pair in pairwise([level.in_channels] + [width] * num_blocks))
        self.attentions = nn.ModuleList(SpaceTimeAttention(width, window) for _ in range(num_blocks * level.attention))

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        for i, block in enumerate(self.blocks):
            x_BTHWC = block(x_BTHWC, cache)
            if len(self.attentions):
                x_BTHWC = self.attentions[i](x_BTHWC, cache)
        return x_BTHWC


class EncoderLevel(Blocks):
    def __init__(self, level: Level, config: TokenizerConfig, num_blocks: int) -> None:
        super().__init__(level, config, num_blocks)
        self.downsample = Downsample(level, unused=config.unused_samplers and not level.last)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        return self.downsample(super().forward(x_BTHWC, cache), cache)


class DecoderLevel(Blocks):
    def __init__(self, level: Level, config: TokenizerConfig, num_blocks: int) -> None:
        super().__init__(level, config, num_blocks)
        self.upsample = Upsample(level, unused=config.unused_samplers and not level.last)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        return self.upsample(super().forward(x_BTHWC, cache), cache)


class Sampler(nn.Module):
    """The three convolutions of a sampler; those that the level does not run exist only with `unused`."""

    def __init__(self, level: Level, *, unused: bool, stride: int) -> None:
        super().__init__()
        self.runs_temporal, self.runs_spatial = level.temporal, level.spatial
        width = level.out_channels
        if level.spatial or unused:
            self.spatial = FrameConv(width, width, 3, stride=stride)
        if level.temporal or unused:
            self.temporal = CausalTimeConv(width, width, stride=stride)
        if level.spatial or level.temporal or unused:
            self.mix = FrameConv(width, width)


class Downsample(Sampler):
    """Halves height and width, then frames (the first frame keeps a latent frame of its own), then mixes channels."""

    def __init__(self, level: Level, *, unused: bool) -> None:
        super().__init__(level, unused=unused, stride=2)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        x = x_BTHWC
        if self.runs_spatial:
            x = self.spatial(x) + mean_of_four(x)
        if self.runs_temporal:
            x = self.temporal(x, cache) + mean_of_pairs(x, is_first=cache.is_first)
        return self.mix(x) if self.runs_spatial or self.runs_temporal else x


class Upsample(Sampler):
    """Doubles all frames but the first, then height and width, then mixes channels."""

    def __init__(self, level: Level, *, unused: bool) -> None:
        super().__init__(level, unused=unused, stride=1)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        x = x_BTHWC
        if self.runs_temporal:
            x = repeated_frames_conv(x, self.temporal, cache)
        if self.runs_spatial:
            x = enlarged_frames_conv(x, self.spatial)
        return self.mix(x) if self.runs_spatial or self.runs_temporal else x


def mean_of_four(x_BTHWC: Tensor) -> Tensor:
    """2x2 average pooling: H, W → H/2, W/2."""
    pictures_BCHW = x_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    return F.avg_pool2d(pictures_BCHW, 2).permute(0, 2, 3, 1).unflatten(0, x_BTHWC.shape[:2])


def mean_of_pairs(x_BTHWC: Tensor, *, is_first: bool) -> Tensor:
    """The clip's first frame, then the mean of each pair of frames: 1 + 2k → 1 + k (later chunks 2k → k)."""
    pairs = x_BTHWC[:, 1:] if is_first else x_BTHWC
    means = (pairs[:, ::2] + pairs[:, 1::2]) / 2
    return torch.cat((x_BTHWC[:, :1], means), dim=1) if is_first else means


class ResBlock(nn.Module):
    """norm → SiLU → conv, twice, around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = FactorizedConv3d(in_channels, out_channels)
        self.norm2 = FrameNorm(out_channels)
        self.conv2 = FactorizedConv3d(out_channels, out_channels)
        self.shortcut = FrameConv(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        h = self.conv1(norm_silu(self.norm1, x_BTHWC), cache)
        h = self.conv2(norm_silu(self.norm2, h), cache)
        return self.shortcut(x_BTHWC) + h


class Middle(nn.Module):
    """What both networks do at the coarsest resolution."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels)
        self.attention = SpaceTimeAttention(channels, window)
        self.block2 = ResBlock(channels, channels)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        return self.block2(self.attention(self.block1(x_BTHWC, cache), cache), cache)


class SpaceTimeAttention(nn.Module):
    """Attention over the pixels of each frame, then over this and earlier frames of each pixel."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.space = SpatialAttention(channels)
        self.time = TemporalAttention(channels, window)

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        return self.time(self.space(x_BTHWC), cache)


class Attention(nn.Module):
    """Single-head attention with a norm before and a residual around; subclasses say which tokens see which."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels)
        self.q = FrameConv(channels, channels)
        self.k = FrameConv(channels, channels)
        self.v = FrameConv(channels, channels)
        self.out = FrameConv(channels, channels)


class SpatialAttention(Attention):
    def forward(self, x_BTHWC: Tensor) -> Tensor:
        h = self.norm(x_BTHWC)
        q, k, v = (f(h).flatten(2, 3) for f in (self.q, self.k, self.v))  # frames are the heads of a clip: [B, T, N, C]
        a_BTNC = F.scaled_dot_product_attention(q, k, v)
        return x_BTHWC + self.out(a_BTNC.unflatten(2, x_BTHWC.shape[2:4]))


class TemporalAttention(Attention):
    """A frame sees itself and the `window` − 1 frames before it."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__(channels)
        self.window = window

    def forward(self, x_BTHWC: Tensor, cache: FrameCache) -> Tensor:
        h = self.norm(x_BTHWC)
        k, v = (cache.join((self, name), f(h), self.window - 1) for name, f in (("k", self.k), ("v", self.v)))
        q, k, v = (y.flatten(2, 3).transpose(1, 2) for y in (self.q(h), k, v))  # places are the heads: [B, H·W, T, C]
        if q.shape[2] == k.shape[2] <= self.window:
            a_BNTC = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            a_BNTC = F.scaled_dot_product_attention(q, k, v, attn_mask=banded(q.shape[2], k.shape[2], self.window, q.device))
        return x_BTHWC + self.out(a_BNTC.transpose(1, 2).unflatten(2, x_BTHWC.shape[2:4]))


def banded(num_queries: int, num_keys: int, window: int, device: torch.device) -> Tensor:
    """True where a query may look, [N, M]: the last key belongs to the last query, and each sees `window` keys up to its own."""
    position_N1 = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    position_M = torch.arange(num_keys, device=device)
    return (position_M <= position_N1) & (position_M > position_N1 - window)
