"""Endless batches with an exact, saveable position: shuffled rows in memory (cached latents), mixtures, stages, images in turn.

Axis legend: B batch, T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from worldfoundry.core.errors import DataError
from worldfoundry.training.method import BatchStream, Share


class SharedStream(BatchStream, Protocol):
    """A stream that draws this rank's rows by itself."""

    @property
    def share(self) -> Share: ...
    @share.setter
    def share(self, share: Share) -> None: ...


class TensorStream:
    """Batches of rows of equally long tensors. Every epoch is a fresh permutation drawn from `seed` and its number."""

    def __init__(self, rows: Mapping[str, Tensor], batch_size: int, seed: int) -> None:
        lengths = {name: len(tensor) for name, tensor in rows.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise DataError(f"A stream needs columns of one non-zero length, got {lengths}.")
        self.rows, self.batch_size, self.seed = dict(rows), batch_size, seed
        self.num_rows = next(iter(lengths.values()))
        self.drawn, self.share = 0, Share()
        self._epoch, self._order = -1, torch.arange(0)

    def next_batch(self) -> dict[str, Tensor]:
        """The next `batch_size` rows, or this rank's share of them; a batch may span two epochs."""
        index = self.share.of(torch.tensor([self._row(self.drawn + i) for i in range(self.batch_size)]))
        self.drawn += self.batch_size
        return {name: tensor[index] for name, tensor in self.rows.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "num_rows": self.num_rows, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises DataError if the rows changed since the state was saved."""
        if (state["num_rows"], state["seed"]) != (self.num_rows, self.seed):
            raise DataError(f"The stream had {state['num_rows']} rows when it was saved and has {self.num_rows} now.")
        self.drawn = state["drawn"]

    def _row(self, drawn: int) -> int:
        epoch, position = divmod(drawn, self.num_rows)
        if self._epoch != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(self.num_rows, generator=generator)
        return int(self._order[position])


class ImageTurns:
    """Every `every`-th batch of clips becomes a batch of images: one-frame clips, `per_clip` random frames of each clip.

    With as many images per clip as a clip has latent frames, both kinds of batch hold equally many latents.
    """

    def __init__(self, stream: BatchStream, *, every: int, per_clip: int, seed: int) -> None:
        self.stream, self.every, self.per_clip, self.seed = stream, every, per_clip, seed
        self.drawn = 0

    def next_batch(self) -> dict[str, Tensor]:
        """`video` [B, T, H, W, C], or in an image's turn [B per_clip, 1, H, W, C]."""
        batch = self.stream.next_batch()
        self.drawn += 1
        if self.drawn % self.every:
            return batch
        video = batch["video"]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.drawn)
        chosen_BN = torch.rand(video.shape[:2], generator=generator).argsort(dim=1)[:, : self.per_clip]
        return {"video": video[torch.arange(len(video))[:, None], chosen_BN].flatten(0, 1).unsqueeze(1)}

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "every": self.every, "stream": self.stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]
        self.stream.load_state_dict(state["stream"])


class MixedStream:
    """Each batch comes from one of several streams, drawn in proportion to its weight: images and videos, sizes, datasets.

    Which one gives batch n is a function of the seed and n.
    """

    def __init__(self, streams: Mapping[str, SharedStream], weights: Mapping[str, float], seed: int) -> None:
        if streams.keys() != weights.keys() or not streams or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise DataError(f"A mixture needs streams and a weight of each, got {dict(weights)!r} for {sorted(streams)!r}.")
        self.streams, self.seed, self.drawn = dict(streams), seed, 0
        self.weights = torch.tensor([weights[name] for name in streams], dtype=torch.float64)

    @property
    def share(self) -> Share:
        return next(iter(self.streams.values())).share

    @share.setter
    def share(self, share: Share) -> None:
        for stream in self.streams.values():
            stream.share = share

    def next_batch(self) -> Any:
        """The next batch of the stream whose turn it is."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.drawn)
        self.drawn += 1
        chosen = int(torch.multinomial(self.weights, 1, generator=generator))
        return list(self.streams.values())[chosen].next_batch()

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "streams": {name: stream.state_dict() for name, stream in self.streams.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]
        for name, stream in self.streams.items():
            stream.load_state_dict(state["streams"][name])


class StagedStream:
    """One stream after another: stream i until the share `ends[i]` of the budget is spent (the last one's is 1)."""

    def __init__(self, streams: Sequence[SharedStream], ends: Sequence[float]) -> None:
        self.streams, self.ends, self.stage = list(streams), list(ends), 0

    @property
    def share(self) -> Share:
        return self.streams[0].share

    @share.setter
    def share(self, share: Share) -> None:
        for stream in self.streams:
            stream.share = share

    def begin_step(self, progress: float) -> None:
        """Called by the loop before each batch."""
        self.stage = sum(progress >= end for end in self.ends[:-1])

    def next_batch(self) -> Any:
        """The next batch of the present stage."""
        return self.streams[self.stage].next_batch()

    def state_dict(self) -> dict[str, Any]:
        return {"stages": [stream.state_dict() for stream in self.streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for stream, saved in zip(self.streams, state["stages"], strict=True):
            stream.load_state_dict(saved)
