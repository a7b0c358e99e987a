"""Large pictures in overlapping tiles: each is encoded or decoded alone and blended into its neighbours.

Memory then depends on the tile, not on the picture. It is an approximation: normalisation and attention see one tile at
a time. Where the whole picture fits, do without.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from worldfoundry.core.contracts import TokenizerSpec, VideoTokenizer
from worldfoundry.core.errors import ConfigError


class TiledTokenizer:
    """A tokenizer that works in square tiles of `tile` pixels, neighbours sharing `overlap` pixels. Keeps the contract.

    Raises ConfigError if the two are not multiples of the compression or the overlap is more than half a tile, and for a
    discrete tokenizer, whose codes cannot be blended.
    """

    def __init__(self, tokenizer: VideoTokenizer, *, tile: int = 512, overlap: int = 64) -> None:
        self.tokenizer, self.tile, self.overlap = tokenizer, tile, overlap
        side = self.spec.h
        if self.spec.discrete:
            raise ConfigError("Codes of a discrete tokenizer cannot be blended.", "Encode the whole picture.")
        if tile <= 0 or overlap < 0 or tile % side or overlap % side or 2 * overlap > tile:
            raise ConfigError(
                f"Tiles of {tile!r} pixels with an overlap of {overlap!r} do not fit a compression of {side}.",
                f"Both must be multiples of {side}, and the overlap at most half a tile.",
            )

    @property
    def spec(self) -> TokenizerSpec:
        """That of the tokenizer inside."""
        return self.tokenizer.spec

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        """As the tokenizer's."""
        return _in_tiles(self.tokenizer.encode, x_BCTHW, self.tile, self.overlap, (1, self.spec.h))

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """As the tokenizer's."""
        tile, overlap = self.tile // self.spec.h, self.overlap // self.spec.h
        return _in_tiles(self.tokenizer.decode, z_BCTHW, tile, overlap, (self.spec.h, 1))

    def normalize(self, z_BCTHW: Tensor) -> Tensor:
        """As the tokenizer's."""
        return self.tokenizer.normalize(z_BCTHW)

    def denormalize(self, z_BCTHW: Tensor) -> Tensor:
        """As the tokenizer's."""
        return self.tokenizer.denormalize(z_BCTHW)


def _in_tiles(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, scale: tuple[int, int]) -> Tensor:
    """Rows of tiles, blended from left to right and then from top to bottom. `scale` is output over input size."""
    grown = overlap * scale[0] // scale[1]
    rows = []
    for top in _starts(x.shape[3], tile, overlap):
        tiles = [network(x[..., top : top + tile, left : left + tile]) for left in _starts(x.shape[4], tile, overlap)]
        rows.append(_blend(tiles, grown, dim=4))
    return _blend(rows, grown, dim=3)


def _starts(length: int, tile: int, overlap: int) -> range:
    """Where tiles begin so that each but the first shares `overlap` with the one before and the last reaches the end."""
    return range(0, max(length - overlap, 1), tile - overlap)


def _blend(parts: list[Tensor], overlap: int, dim: int) -> Tensor:
    """Join parts along `dim`; in the shared stretch the weight passes linearly from the one to the next."""
    joined = parts[0]
    for part in parts[1:]:
        shared = min(overlap, joined.shape[dim], part.shape[dim])
        ramp = (torch.arange(1, shared + 1, device=part.device) / (shared + 1)).to(part.dtype)
        ramp = ramp.view([-1 if axis == dim else 1 for axis in range(part.ndim)])
        kept, before = joined.split([joined.shape[dim] - shared, shared], dim)
        after, new = part.split([shared, part.shape[dim] - shared], dim)
        joined = torch.cat((kept, before + (after - before) * ramp, new), dim)
    return joined
