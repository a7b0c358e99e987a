"""Finite scalar quantisation: each channel is squashed and rounded to a few values, no learned codebook (arXiv 2309.15505).

Axis legend: B batch, C channels (one per entry of `levels`), ... any axes after it (T, H, W).
"""

from dataclasses import dataclass
from itertools import accumulate
from math import atanh, prod
from operator import mul

import torch
from torch import Tensor

from worldfoundry.core.errors import DataError

# The squashing reaches this much beyond the outermost value, so that tanh need not saturate to get there.
MARGIN = 1e-3


@dataclass(frozen=True)
class FSQ:
    """A grid of prod(levels) codes. Codes lie in [-1, 1]; an index counts with the first channel fastest."""

    levels: tuple[int, ...]

    @property
    def codebook_size(self) -> int:
        return prod(self.levels)

    def quantize(self, z_BC: Tensor) -> Tensor:
        """Any reals [B, C, ...] → the nearest codes, in the same dtype; the gradient is that of the squashing alone."""
        offsets = [0.5 if level % 2 == 0 else 0.0 for level in self.levels]  # an even grid has no middle value
        reaches = [(level - 1) * (1 + MARGIN) / 2 for level in self.levels]
        shifts = [atanh(offset / reach) for offset, reach in zip(offsets, reaches, strict=True)]
        offset, reach, shift = (self._per_channel(values, z_BC) for values in (offsets, reaches, shifts))
        squashed = torch.tanh(z_BC.float() + shift) * reach - offset
        rounded = squashed + (torch.round(squashed) - squashed).detach()  # straight-through
        return (rounded / self._half_widths(z_BC)).to(z_BC.dtype)

    def codes_to_indices(self, codes_BC: Tensor) -> Tensor:
        """Codes [B, C, ...] → int32 indices [B, ...] in [0, codebook_size)."""
        half = self._half_widths(codes_BC)
        digits = torch.round(codes_BC.detach().float() * half + half).to(torch.int32)
        return (digits * self._basis(codes_BC)).sum(dim=1, dtype=torch.int32)

    def indices_to_codes(self, indices_B: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Integer indices [B, ...] → codes [B, C, ...]. Raises DataError for an index outside the codebook."""
        self._check(indices_B)
        levels = self._per_channel(self.levels, indices_B.unsqueeze(1), torch.int64)
        half = levels // 2
        digits = indices_B.long().unsqueeze(1) // self._basis(indices_B.unsqueeze(1)) % levels
        return ((digits - half) / half).to(dtype)

    def _check(self, indices: Tensor) -> None:
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise DataError(f"Codebook indices are integers, not {indices.dtype}.")
        if indices.numel() == 0:
            return
        low, high = (int(value) for value in indices.aminmax())
        if low < 0 or high >= self.codebook_size:
            raise DataError(
                f"Indices from {low} to {high} do not fit a codebook of {self.codebook_size} codes (levels {self.levels!r}).",
                "They were made with other levels, or hold something other than tokens.",
            )

    def _half_widths(self, like: Tensor) -> Tensor:
        return self._per_channel([level // 2 for level in self.levels], like)

    def _basis(self, like: Tensor) -> Tensor:
        """What each channel's digit counts: 1, then the product of the levels before."""
        return self._per_channel([1, *accumulate(self.levels[:-1], mul)], like, torch.int32)

    def _per_channel(
        self, values: list[float] | list[int] | tuple[int, ...], like: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """One number per channel, shaped to broadcast against `like` [B, C, ...]."""
        return torch.tensor(values, dtype=dtype, device=like.device).view(-1, *[1] * (like.ndim - 2))
