"""What a diffusion decoder is shown of the video that it refines: discrete tokens, or coarse latents (arXiv 2501.03575, section 5.2.4).

The published network concatenates it to the noisy latents, [x, coarse, masks], before the one projection to patches. A
projection of concatenated channels is the sum of the parts' projections, so here the coarse part has a layer of its own: a world
that gets one keeps its weights, and what comes of it is computed once for all steps of a sampler.

Legend: B batch, C channels, T H W latent frames/rows/columns, r c rows and columns of the token grid, t h w patches, S = h·w,
D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.nn.patch import patchify


class CoarseInput(nn.Module):
    """Tokens or coarse latents → what they add to the patches of the noisy latents, [B, t, S, D]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.patch_temporal * config.patch_spatial**2
        self.codes = nn.Embedding(config.token_codes, config.token_channels) if config.token_codes else None
        self.embed = nn.Linear(config.coarse_channels * patch, config.model_channels, bias=False)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Embeddings start at zero: a world that gets them goes on as it was."""
        if self.codes is not None:
            nn.init.zeros_(self.codes.weight)

    def forward(self, coarse: Tensor | None, shape_BTHW: tuple[int, int, int, int]) -> Tensor:
        """`coarse`: integer tokens [B, T, r, c], or [B, C + 1, T, H, W] of latents with the map of their sigma as the last channel.

        Token embeddings are resized to H, W bilinearly. None is what guidance moves away from: token 0 everywhere, as where
        training drops the tokens. Raises UsageError for another shape.
        """
        codes = self.codes
        coarse_BCTHW = self._latents(coarse, shape_BTHW) if codes is None else self._embedded(codes, coarse, shape_BTHW)
        return self.embed(patchify(coarse_BCTHW, self.config.patch_temporal, self.config.patch_spatial))

    def _embedded(self, codes: nn.Embedding, tokens_BTrc: Tensor | None, shape_BTHW: tuple[int, int, int, int]) -> Tensor:
        B, T, H, W = shape_BTHW
        if tokens_BTrc is None:
            tokens_BTrc = torch.zeros(B, T, 1, 1, dtype=torch.long, device=codes.weight.device)
        if tokens_BTrc.ndim != 4 or tuple(tokens_BTrc.shape[:2]) != (B, T):
            raise UsageError(
                f"Tokens must be [batch, frames, rows, columns] = [{B}, {T}, …] here, not {list(tokens_BTrc.shape)!r}.",
                "Tokens have as many frames as the latents that are made from them.",
            )
        embedded_BTrcC = codes(tokens_BTrc.long())
        pictures = embedded_BTrcC.flatten(0, 1).movedim(-1, 1)
        resized = F.interpolate(pictures, size=(H, W), mode="bilinear", align_corners=False)
        return resized.unflatten(0, (B, T)).movedim(1, 2)

    def _latents(self, coarse_BCTHW: Tensor | None, shape_BTHW: tuple[int, int, int, int]) -> Tensor:
        B, *size = shape_BTHW
        wanted = [B, self.config.coarse_channels, *size]
        if coarse_BCTHW is None or list(coarse_BCTHW.shape) != wanted:
            found = None if coarse_BCTHW is None else list(coarse_BCTHW.shape)
            raise UsageError(
                f"This decoder refines latents with a map of their noise level, {wanted!r}; it was given {found!r}."
            )
        return coarse_BCTHW.to(self.embed.weight.dtype)
