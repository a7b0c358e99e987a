"""Video latents to tokens and back.

Legend: B batch, C channels, T H W latent frames/rows/columns, t h w the same counted in patches, S = h·w tokens of a
frame, D features.
The two orders differ, as in the published Cosmos networks: channels are slowest on the way in and fastest on the way out.
"""

from einops import rearrange
from torch import Tensor


def patchify(x_BCTHW: Tensor, patch_temporal: int, patch_spatial: int) -> Tensor:
    """[B, C, T, H, W] → [B, t, S, C·pt·ph·pw], features ordered (channel, time, row, column)."""
    pattern = "b c (t pt) (h ph) (w pw) -> b t (h w) (c pt ph pw)"
    return rearrange(x_BCTHW, pattern, pt=patch_temporal, ph=patch_spatial, pw=patch_spatial)


def unpatchify(tokens_BtSD: Tensor, rows: int, patch_temporal: int, patch_spatial: int) -> Tensor:
    """[B, t, S, pt·ph·pw·C] → [B, C, T, H, W], features ordered (row, column, time, channel); `rows` = h of S = h·w."""
    pattern = "b t (h w) (ph pw pt c) -> b c (t pt) (h ph) (w pw)"
    return rearrange(tokens_BtSD, pattern, h=rows, pt=patch_temporal, ph=patch_spatial, pw=patch_spatial)
