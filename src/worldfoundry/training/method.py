"""What the loop needs to know of a training method, and nothing more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

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
