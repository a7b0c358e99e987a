"""What the loop needs to know of a training method, and nothing more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from worldfoundry.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """The scalar to minimise, plain numbers worth logging, and the operations of forward and backward (0: not counted)."""

    loss: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    flops: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which rows of the global batch a process works on: the `index`-th of `count` equal runs. One process has them all."""

    index: int = 0
    count: int = 1

    def of(self, rows: Tensor) -> Tensor:
        """This share of rows along the first axis. Raises UsageError if they do not divide."""
        if len(rows) % self.count:
            raise UsageError(
                f"A batch of {len(rows)!r} does not divide among {self.count} data ranks.",
                "Make the batch a multiple of them, or give more ranks to --loop.parallel.context.",
            )
        return rows.chunk(self.count)[self.index] if self.count > 1 else rows


@runtime_checkable
class Shared(Protocol):
    """A method that draws its random numbers for the global batch and keeps its share, or a stream that draws its own rows.

    The loop sets `share`. With both, several ranks compute what one process would. A method without gets randomness of its
    own on every rank (the same in expectation), and of a stream without, the loop takes the share.
    """

    share: Share


class Method(Protocol):
    """An algorithm over one trainable module. `training_step` draws all randomness from `generator` (a CPU generator)."""

    @property
    def module(self) -> nn.Module: ...
    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput: ...
    def compile(self) -> None:
        """Compile what pays; called once, before the first step."""
        ...


@runtime_checkable
class StagedMethod(Protocol):
    """A method or a stream that also changes as the run goes on."""

    def begin_step(self, progress: float) -> None:
        """Called before each step with the share of the budget that is spent, 0 to 1."""
        ...


@runtime_checkable
class StatefulMethod(Protocol):
    """A method that trains something beside its module (a discriminator): its tensors belong to the resumable state."""

    def state_tensors(self) -> dict[str, Tensor]: ...
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None: ...


class BatchStream(Protocol):
    """An endless stream of batches whose exact position can be saved and restored."""

    def next_batch(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups: matrices decay, vectors (norm weights, biases) do not."""
    matrices, vectors = [], []
    for _, parameter in named:
        if parameter.requires_grad:
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
