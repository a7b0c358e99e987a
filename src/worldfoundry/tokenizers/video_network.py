"""The causal video encoder and decoder of the Cosmos tokenizers (arXiv 2501.03575, section 4.1, figure 8).

    encoder: Haar patch → conv_in → levels [blocks (+ attention), downsample] → middle → norm, SiLU, conv_out
    decoder: conv_in → middle → levels [blocks (+ attention), upsample] → norm, SiLU, conv_out → inverse Haar patch
    middle:  block → attention over the picture, then over past frames → block

Notable: no layer looks at a later frame, so latents of a prefix are the prefix of the latents, and one frame is an image;
convolutions are factorised (1x3x3, then 3x1x1); normalisation is per frame; samplers add a convolution to what average
pooling or repetition gives. Levels run in list order: fine to coarse in the encoder, coarse to fine in the decoder.

Axis legend: B batch, C channels, T frames, H height, W width, K channels of the Haar bands, N tokens, A one attention head.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldfoundry.nn.causal_conv import CausalConv3d, FactorizedConv3d
from worldfoundry.nn.group_norm import FrameNorm
from worldfoundry.nn.haar import patchify_video, unpatchify_video
from worldfoundry.tokenizers.config import Level, TokenizerConfig


class VideoEncoder(nn.Module):
    """Video [B, 3, 1 + t·k, H, W] → features [B, z_channels, 1 + k, H/s, W/s]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.conv_in = FactorizedConv3d(config.in_channels * config.patch_size**3, config.channels)
        levels = config.encoder_levels()
        self.levels = nn.ModuleList(
            EncoderLevel(level, config.num_res_blocks, unused_sampler=config.unused_samplers) for level in levels
        )
        width = levels[-1].out_channels
        self.middle = Middle(width)
        self.norm_out = FrameNorm(width)
        self.conv_out = FactorizedConv3d(width, config.z_channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h = self.conv_in(patchify_video(x_BCTHW, self.patch_size))
        for level in self.levels:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.middle(h))))


class VideoDecoder(nn.Module):
    """Features [B, z_channels, 1 + k, H/s, W/s] → video [B, 3, 1 + t·k, H, W]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        levels = config.decoder_levels()
        width = levels[0].in_channels
        self.conv_in = FactorizedConv3d(config.z_channels, width)
        self.middle = Middle(width)
        self.levels = nn.ModuleList(
            DecoderLevel(level, config.num_res_blocks + 1, unused_sampler=config.unused_samplers) for level in levels
        )
        self.norm_out = FrameNorm(levels[-1].out_channels)
        self.conv_out = FactorizedConv3d(levels[-1].out_channels, config.in_channels * config.patch_size**3)

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        h = self.middle(self.conv_in(z_BCTHW))
        for level in self.levels:
            h = level(h)
        bands_BKTHW = self.conv_out(F.silu(self.norm_out(h)))
        return unpatchify_video(bands_BKTHW, self.patch_size)


class Blocks(nn.Module):
    """The residual blocks of one level, each followed by attention if the level has it."""

    def __init__(self, level: Level, num_blocks: int) -> None:
        super().__init__()
        widths = [level.in_channels] + [level.out_channels] * num_blocks
        self.blocks = nn.ModuleList(ResBlock(*pair) for pair in pairwise(widths))
        self.attentions = nn.ModuleList(SpaceTimeAttention(level.out_channels) for _ in range(num_blocks * level.attention))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x_BCTHW = block(x_BCTHW)
            if len(self.attentions):
                x_BCTHW = self.attentions[i](x_BCTHW)
        return x_BCTHW


class EncoderLevel(Blocks):
    def __init__(self, level: Level, num_blocks: int, *, unused_sampler: bool) -> None:
        super().__init__(level, num_blocks)
        self.downsample = Downsample(level, unused=unused_sampler and not level.last)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.downsample(super().forward(x_BCTHW))


class DecoderLevel(Blocks):
    def __init__(self, level: Level, num_blocks: int, *, unused_sampler: bool) -> None:
        super().__init__(level, num_blocks)
        self.upsample = Upsample(level, unused=unused_sampler and not level.last)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.upsample(super().forward(x_BCTHW))


class Sampler(nn.Module):
    """The three convolutions of a sampler; those that the level does not run exist only with `unused`."""

    def __init__(self, level: Level, *, unused: bool, spatial_stride: int, temporal_stride: int) -> None:
        super().__init__()
        self.runs_temporal, self.runs_spatial = level.temporal, level.spatial
        width, down = level.out_channels, spatial_stride == 2
        if level.spatial or unused:
            # Downsampling pads right and bottom only, by hand.
            self.spatial = CausalConv3d(
                width, width, (1, 3, 3), stride=(1, spatial_stride, spatial_stride), pad_hw=0 if down else 1
            )
        if level.temporal or unused:
            self.temporal = CausalConv3d(width, width, (3, 1, 1), stride=(temporal_stride, 1, 1))
        if level.spatial or level.temporal or unused:
            self.mix = CausalConv3d(width, width)


class Downsample(Sampler):
    """Halves height and width, then frames (the first frame keeps a latent frame of its own), then mixes channels."""

    def __init__(self, level: Level, *, unused: bool) -> None:
        super().__init__(level, unused=unused, spatial_stride=2, temporal_stride=2)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x = x_BCTHW
        if self.runs_spatial:
            means = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])  # frames as channels
            x = self.spatial(F.pad(x, (0, 1, 0, 1))) + means
        if self.runs_temporal:
            x = torch.cat((x[:, :, :1], x), dim=2)
            x = self.temporal(x) + (x[:, :, ::2] + x[:, :, 1::2]) / 2
        return self.mix(x) if self.runs_spatial or self.runs_temporal else x


class Upsample(Sampler):
    """Doubles all frames but the first, then height and width, then mixes channels."""

    def __init__(self, level: Level, *, unused: bool) -> None:
        super().__init__(level, unused=unused, spatial_stride=1, temporal_stride=1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x = x_BCTHW
        if self.runs_temporal:
            if x.shape[2] > 1:
                x = x.repeat_interleave(2, dim=2)[:, :, 1:]
            x = self.temporal(x) + x
        if self.runs_spatial:
            x = F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")
            x = self.spatial(x) + x
        return self.mix(x) if self.runs_spatial or self.runs_temporal else x


class ResBlock(nn.Module):
    """norm → SiLU → conv, twice, around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = FactorizedConv3d(in_channels, out_channels)
        self.norm2 = FrameNorm(out_channels)
        self.conv2 = FactorizedConv3d(out_channels, out_channels)
        self.shortcut = CausalConv3d(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_BCTHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x_BCTHW) + h


class Middle(nn.Module):
    """What both networks do at the coarsest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels)
        self.attention = SpaceTimeAttention(channels)
        self.block2 = ResBlock(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x_BCTHW)))


class SpaceTimeAttention(nn.Module):
    """Attention over the pixels of each frame, then over this and earlier frames of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.space = SpatialAttention(channels)
        self.time = TemporalAttention(channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.time(self.space(x_BCTHW))


class Attention(nn.Module):
    """Single-head attention with a norm before and a residual around; subclasses say which tokens see which."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels)
        self.q = CausalConv3d(channels, channels)
        self.k = CausalConv3d(channels, channels)
        self.v = CausalConv3d(channels, channels)
        self.out = CausalConv3d(channels, channels)


class SpatialAttention(Attention):
    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h = self.norm(x_BCTHW)
        q, k, v = (rearrange(f(h), "b c t h w -> (b t) 1 (h w) c") for f in (self.q, self.k, self.v))
        a_BANC = F.scaled_dot_product_attention(q, k, v)
        b, _, _, height, width = x_BCTHW.shape
        return x_BCTHW + self.out(rearrange(a_BANC, "(b t) 1 (h w) c -> b c t h w", b=b, h=height, w=width))


class TemporalAttention(Attention):
    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h = self.norm(x_BCTHW)
        q, k, v = (rearrange(f(h), "b c t h w -> (b h w) 1 t c") for f in (self.q, self.k, self.v))
        a_BANC = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        b, _, _, height, width = x_BCTHW.shape
        return x_BCTHW + self.out(rearrange(a_BANC, "(b h w) 1 t c -> b c t h w", b=b, h=height, w=width))
