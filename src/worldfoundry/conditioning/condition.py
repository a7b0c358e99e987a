"""Everything that a world model is told besides the noise, as one frozen value.

Legend: B batch, C latent channels, T latent frames, H W latent rows/columns, L context rows, D context width, A features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The conditions of a batch of B samples; every tensor has B rows (or one row, which `batched` repeats)."""

    context_BLD: Tensor
    """Text rows, zero past each prompt's length. All rows are attended, so L must be what the model was trained with."""
    fps_B: Tensor | None = None
    """Pixel frames per second; None = 24."""
    padding_mask_B1HW: Tensor | None = None
    """1 where the picture is padding, at any height and width; None = nothing padded."""
    prefix_BCTHW: Tensor | None = None
    """Clean latents of the given frames in the model's scale (standard deviation sigma_data): the first frames, or all."""
    num_prefix_B: Tensor | None = None
    """How many latent frames of the prefix are given, per sample; None = all that `prefix_BCTHW` holds."""
    suffix_BCTHW: Tensor | None = None
    """The same for the last frames: with a prefix the frames between are interpolated."""
    num_suffix_B: Tensor | None = None
    """How many latent frames of the suffix are given, per sample; None = all that `suffix_BCTHW` holds."""
    augment_sigma: float = 0.001
    """Noise level put on the given frames before the network sees them (it then trusts them a little less)."""
    augment_noise_BCTHW: Tensor | None = None
    """The unit noise for that, of the clip's shape or the prefix's; None = none is added."""
    actions_BTA: Tensor | None = None
    """Action features per latent frame (`conditioning.action.group_actions`)."""
    coarse: Tensor | None = None
    """What a diffusion decoder refines: tokens, or coarse latents with a map of their noise level (`diffusion.coarse`)."""

    def condition_mask(self, frames: int) -> Tensor | None:
        """[B, 1, frames, 1, 1], 1 on given frames; None where none are given. Raises UsageError if they do not fit."""
        prefix, suffix = self.prefix_BCTHW, self.suffix_BCTHW
        given = prefix if prefix is not None else suffix
        if given is None:
            return None
        held, ending = (0 if part is None else part.shape[2] for part in (prefix, suffix))
        if max(held, ending) > frames:
            what = "prefix" if held > frames else "suffix"
            raise UsageError(
                f"The {what} has {max(held, ending)} latent frames, more than the {frames!r} that are generated.",
                "Generate more frames, or give fewer.",
            )
        first_B, last_B = (
            torch.full((len(given),), most, device=given.device) if count_B is None else count_B.clamp(max=most)
            for count_B, most in ((self.num_prefix_B, held), (self.num_suffix_B, ending))
        )
        index_T = torch.arange(frames, device=given.device)
        mask_BT = (index_T[None] < first_B[:, None]) | (index_T[None] >= frames - last_B[:, None])
        return mask_BT.to(given.dtype)[:, None, :, None, None]

    def given_latents(self, like_BCTHW: Tensor) -> Tensor | None:
        """Prefix and suffix where they belong in a clip of `like`'s length and dtype, zeros between; None where none are given."""
        prefix, suffix = self.prefix_BCTHW, self.suffix_BCTHW
        if prefix is None and suffix is None:
            return None
        filled = torch.zeros_like(like_BCTHW) if prefix is None else fill_frames(prefix, like_BCTHW)
        if suffix is not None:
            before = like_BCTHW.shape[2] - suffix.shape[2]
            filled = torch.cat([filled[:, :, :before], suffix.to(like_BCTHW).expand_as(filled[:, :, before:])], dim=2)
        return filled

    def batched(self, n: int) -> Condition:
        """The same with n rows. Raises UsageError where a tensor has neither one row nor n."""
        return replace(self, **{name: _rows(name, tensor, n) for name, tensor in self._tensors().items()})

    def unconditional(self, negative_context_BLD: Tensor | None = None) -> Condition:
        """The condition that guidance moves away from: another text (None = zero rows), all else the same."""
        context = self.context_BLD
        if negative_context_BLD is None:
            return replace(self, context_BLD=torch.zeros_like(context))
        if negative_context_BLD.shape[1:] != context.shape[1:]:
            raise UsageError(
                f"The negative prompt has {tuple(negative_context_BLD.shape[1:])!r} (rows, width),"
                f" the prompt {tuple(context.shape[1:])!r}.",
                "Encode both with the same text encoder.",
            )
        return replace(self, context_BLD=negative_context_BLD.to(context).expand_as(context))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """Moved; `dtype` casts floating-point tensors, except the frame rate."""
        moved = {}
        for name, tensor in self._tensors().items():
            cast = dtype if tensor.is_floating_point() and name != "fps_B" else None
            moved[name] = tensor.to(device=device, dtype=cast)
        return replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def join(conditions: Sequence[Condition]) -> Condition:
    """One batch from several: rows are stacked. Raises UsageError where one has something that another lacks."""
    first = conditions[0]
    joined: dict[str, Any] = {}
    for field in fields(Condition):
        values = [getattr(condition, field.name) for condition in conditions]
        if all(isinstance(value, Tensor) for value in values):
            joined[field.name] = torch.cat(values)
        elif any(value != getattr(first, field.name) for value in values if not isinstance(value, Tensor)) or any(
            isinstance(value, Tensor) for value in values
        ):
            raise UsageError(f"Conditions with different {field.name!r} cannot share a batch.", "Run them one after another.")
        else:
            joined[field.name] = values[0]
    return Condition(**joined)


def fill_frames(frames_BCPHW: Tensor, like_BCTHW: Tensor) -> Tensor:
    """The first P frames, zeros after, in the dtype of `like`."""
    missing = like_BCTHW.shape[2] - frames_BCPHW.shape[2]
    return torch.nn.functional.pad(frames_BCPHW.to(like_BCTHW), (0, 0, 0, 0, 0, missing))


def _rows(name: str, tensor: Tensor, n: int) -> Tensor:
    if len(tensor) not in (1, n):
        raise UsageError(
            f"The condition's {name} has {len(tensor)} rows for a batch of {n!r}.", "Give one row, or one per sample."
        )
    return tensor.expand(n, *tensor.shape[1:])
