"""What causal layers remember of earlier frames, so that a clip may come in chunks.

A network that never looks ahead can be run chunk by chunk if every layer that looks back is given the last frames of its
own input again. Layers ask a FrameCache for them; for the first chunk there are none, and the layer's own rule holds.

Axis legend: B batch, T frames, H height, W width, C channels.
"""

from collections.abc import Hashable, Mapping
from typing import Self

import torch
from torch import Tensor

from worldfoundry.core.errors import UsageError


class FrameCache:
    """Handed through one forward pass over one chunk. `FrameCache()` is a pass over a whole clip, which keeps nothing."""

    def __init__(self, past: Mapping[Hashable, Tensor] | None = None, *, keep: bool = False) -> None:
        self.past = dict(past or {})  # emptied as layers take what is theirs, so that it is not held beside the future
        self.keep = keep
        self.is_first = not self.past
        """Whether this chunk begins the clip."""
        self.future: dict[Hashable, Tensor] = {}

    @classmethod
    def following(cls, before: "Self | None") -> Self:
        """The cache for the chunk after `before` (None: the first one). `before` itself stays as it is."""
        return cls(before.future if before is not None else None, keep=True)

    def extend(self, layer: Hashable, x_BTHWC: Tensor, frames: int, *, first: int | None = None) -> Tensor:
        """`x` with the `frames` before it in front; at the clip's start, with `first` (or `frames`) copies of its first frame."""
        past = self.past.pop(layer, None)
        if past is None:
            past = x_BTHWC[:, :1].expand(-1, frames if first is None else first, -1, -1, -1)
        return self._remember(layer, _appended(past, x_BTHWC), frames)

    def join(self, layer: Hashable, x_BTHWC: Tensor, frames: int) -> Tensor:
        """`x` with as many as there are of the `frames` before it in front."""
        past = self.past.pop(layer, None)
        return self._remember(layer, x_BTHWC if past is None else _appended(past, x_BTHWC), frames)

    def _remember(self, layer: Hashable, x_BTHWC: Tensor, frames: int) -> Tensor:
        if self.keep and frames:
            self.future[layer] = x_BTHWC[:, -frames:].clone()  # a view would keep the whole chunk alive
        return x_BTHWC


def _appended(past_BTHWC: Tensor, x_BTHWC: Tensor) -> Tensor:
    if past_BTHWC.shape[::2] != x_BTHWC.shape[::2] or past_BTHWC.shape[3] != x_BTHWC.shape[3]:
        before, now = ([size for axis, size in enumerate(x.shape[:4]) if axis != 1] for x in (past_BTHWC, x_BTHWC))
        raise UsageError(
            f"A chunk's batch, height and width are {now!r} inside the network; those of the chunk before are {before!r}.",
            "Chunks of one clip have one size; begin another clip without a cache.",
        )
    return torch.cat((past_BTHWC, x_BTHWC), dim=1)
