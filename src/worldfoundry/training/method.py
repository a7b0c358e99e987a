"""What the loop needs to know of a training method, and nothing more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """The scalar to minimise, and plain numbers worth logging."""

    loss: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


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
    """A method that also changes as the run goes on."""

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
