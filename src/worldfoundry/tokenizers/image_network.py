"""The image encoder and decoder of the Cosmos tokenizers: the classic convolutional autoencoder on Haar patches.

    encoder: Haar patch → conv_in → levels [blocks (+ attention), downsample] → middle → norm, SiLU, conv_out
    decoder: conv_in → middle → levels [blocks (+ attention), upsample] → norm, SiLU, conv_out → inverse Haar patch
    middle:  block → attention → block

Notable: group normalisation (32 groups in the released sizes), samplers are plain convolutions after zero padding or
nearest-neighbour enlargement. Levels run in list order: fine to coarse in the encoder, coarse to fine in the decoder.

Axis legend: B batch, C channels, H height, W width, K channels of the Haar bands, N tokens, A one attention head.
"""

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldfoundry.nn.haar import patchify_image, unpatchify_image
from worldfoundry.tokenizers.config import Level, TokenizerConfig

EPS = 1e-6


class ImageEncoder(nn.Module):
    """Images [B, 3, H, W] → features [B, z_channels, H/s, W/s]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.conv_in = _conv3x3(config.in_channels * config.patch_size**2, config.channels)
        levels = config.encoder_levels()
        self.levels = nn.ModuleList(EncoderLevel(level, config.num_res_blocks, config.num_groups) for level in levels)
        width = levels[-1].out_channels
        self.middle = Middle(width, config.num_groups)
        self.norm_out = nn.GroupNorm(config.num_groups, width, eps=EPS)
        self.conv_out = _conv3x3(width, config.z_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # Not channels-last as the bands come: there, normalisation in groups loses digits.
        h = self.conv_in(patchify_image(x_BCHW, self.patch_size).contiguous())
        for level in self.levels:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.middle(h))))


class ImageDecoder(nn.Module):
    """Features [B, z_channels, H/s, W/s] → images [B, 3, H, W]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        levels = config.decoder_levels()
        width = levels[0].in_channels
        self.conv_in = _conv3x3(config.z_channels, width)
        self.middle = Middle(width, config.num_groups)
        self.levels = nn.ModuleList(DecoderLevel(level, config.num_res_blocks + 1, config.num_groups) for level in levels)
        self.norm_out = nn.GroupNorm(config.num_groups, levels[-1].out_channels, eps=EPS)
        self.conv_out = _conv3x3(levels[-1].out_channels, config.in_channels * config.patch_size**2)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        h = self.middle(self.conv_in(z_BCHW))
        for level in self.levels:
            h = level(h)
        bands_BKHW = self.conv_out(F.silu(self.norm_out(h)))
        return unpatchify_image(bands_BKHW, self.patch_size)


class Blocks(nn.Module):
    """The residual blocks of one level, each followed by attention if the level has it."""

    def __init__(self, level: Level, num_blocks: int, groups: int) -> None:
        super().__init__()
        widths = [level.in_channels] + [level.out_channels] * num_blocks
        self.blocks = nn.ModuleList(ResBlock(*pair, groups) for pair in pairwise(widths))
        self.attentions = nn.ModuleList(Attention(level.out_channels, groups) for _ in range(num_blocks * level.attention))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x_BCHW = block(x_BCHW)
            if len(self.attentions):
                x_BCHW = self.attentions[i](x_BCHW)
        return x_BCHW


class EncoderLevel(Blocks):
    def __init__(self, level: Level, num_blocks: int, groups: int) -> None:
        super().__init__(level, num_blocks, groups)
        width = level.out_channels
        self.downsample = nn.Conv2d(width, width, 3, stride=2) if level.spatial else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = super().forward(x_BCHW)
        return self.downsample(F.pad(x_BCHW, (0, 1, 0, 1))) if self.downsample is not None else x_BCHW


class DecoderLevel(Blocks):
    def __init__(self, level: Level, num_blocks: int, groups: int) -> None:
        super().__init__(level, num_blocks, groups)
        self.upsample = _conv3x3(level.out_channels, level.out_channels) if level.spatial else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = super().forward(x_BCHW)
        return self.upsample(F.interpolate(x_BCHW, scale_factor=2, mode="nearest")) if self.upsample is not None else x_BCHW


class ResBlock(nn.Module):
    """norm → SiLU → conv, twice, around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=EPS)
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=EPS)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x_BCHW) + h


class Middle(nn.Module):
    """What both networks do at the coarsest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels, groups)
        self.attention = Attention(channels, groups)
        self.block2 = ResBlock(channels, channels, groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x_BCHW)))


class Attention(nn.Module):
    """Single-head attention over all pixels, with a norm before and a residual around."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.norm(x_BCHW)
        q, k, v = (rearrange(f(h), "b c h w -> b 1 (h w) c") for f in (self.q, self.k, self.v))
        a_BANC = F.scaled_dot_product_attention(q, k, v)
        return x_BCHW + self.out(rearrange(a_BANC, "b 1 (h w) c -> b c h w", h=x_BCHW.shape[2]))


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
