"""Endless shuffled batches over rows that lie in memory (cached latents), with an exact, saveable position."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.errors import DataError


class TensorStream:
    """Batches of rows of equally long tensors. Every epoch is a fresh permutation drawn from `seed` and its number."""

    def __init__(self, rows: Mapping[str, Tensor], batch_size: int, seed: int) -> None:
        lengths = {name: len(tensor) for name, tensor in rows.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise DataError(f"A stream needs columns of one non-zero length, got {lengths}.")
        self.rows, self.batch_size, self.seed = dict(rows), batch_size, seed
        self.num_rows = next(iter(lengths.values()))
        self.drawn = 0
        self._epoch, self._order = -1, torch.arange(0)

    def next_batch(self) -> dict[str, Tensor]:
        """The next `batch_size` rows; a batch may span two epochs."""
        index = torch.tensor([self._row(self.drawn + i) for i in range(self.batch_size)])
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
