"""What a training will need of memory, said before it starts instead of found out after it died.

Legend: B batch, T H W latent frames/rows/columns, D width.
"""

from dataclasses import dataclass

import torch

from worldfoundry.core.devices import fast_bfloat16, free_memory
from worldfoundry.core.errors import ResourceError
from worldfoundry.core.progress import say
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.flops import tokens
from worldfoundry.training.config import LoopConfig

# Numbers that a block keeps for the backward pass, per token and unit of width: fixed, and per unit of the MLP's ratio. Counted
# on the network itself (tests/training/test_memory.py). Autocast keeps a half-precision copy of most and whole ones of some.
KEPT_BYTES = {"float32": (100.0, 8.0), "bfloat16": (91.0, 4.5)}


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations

    def line(self) -> str:
        """Everything in one line."""
        parts = ", ".join(f"{name} {size(getattr(self, name))}" for name in MemoryEstimate.__dataclass_fields__)
        return f"training takes about {size(self.total)} of memory: {parts}"


def estimate_memory(
    parameters: int,
    dit: DiTConfig,
    shapes_BTHW: list[tuple[int, int, int, int]],
    loop: LoopConfig,
    *,
    bfloat16: bool,
    ranks: int = 1,
) -> MemoryEstimate:
    """For the largest of the batches `shapes` (of one rank) that a run will see.

    Weights, gradients and averages are float32, AdamW keeps two moments and Muon one of most; under bfloat16 autocast every weight
    has a copy of half the size. Sharding (FSDP2) divides these by the ranks. Checkpointing keeps one tensor per block, and
    all of one block's while that is gone through again. Cf. arXiv 2501.03575, section 5.1.4: 15 tensors per block.
    """
    D, shards = dit.model_channels, ranks if loop.parallel.shard else 1
    rows = max(b * tokens(dit, (t, h, w)) for b, t, h, w in shapes_BTHW) // loop.parallel.context
    fixed, per_ratio = KEPT_BYTES["bfloat16" if bfloat16 else "float32"]
    block = rows * D * (fixed + per_ratio * dit.mlp_ratio)
    checkpointed = dit.num_blocks * rows * D * 4 + block
    moments = 4 if loop.optim.name == "muon" else 8
    return MemoryEstimate(
        weights=parameters * (6 if bfloat16 else 4) // shards,
        gradients=parameters * 4 // shards,
        optimizer=parameters * moments // shards,
        average=parameters * 4 // shards,
        activations=int(checkpointed if loop.parallel.activation_checkpointing else dit.num_blocks * block),
    )


def check_memory(estimate: MemoryEstimate, device: torch.device, loop: LoopConfig) -> None:
    """Say the estimate, warn where it is more than what is free, and raise ResourceError where it is more than twice that."""
    free, line = free_memory(device), estimate.line()
    if estimate.total <= free:
        say(f"{line}; {size(free)} are free")
        return
    advice = _advice(estimate, loop)
    if estimate.total > 2 * free:
        raise ResourceError(f"{line[0].upper()}{line[1:]}; only {size(free)} are free.", advice)
    say(f"{line}; only {size(free)} are free: it may not fit. {advice}")


def _advice(estimate: MemoryEstimate, loop: LoopConfig) -> str:
    if estimate.activations < estimate.total / 2:
        return "Take a smaller --model, or split it among several GPUs (torchrun)."
    if loop.parallel.activation_checkpointing:
        return "Lower --batch-size or the window, or split clips among GPUs (--loop.parallel.context)."
    return "Lower --batch-size, or keep less of each block: --loop.parallel.activation-checkpointing."


def trains_in_bfloat16(loop: LoopConfig, device: torch.device) -> bool:
    """Whether it may come to that: with `auto` the loop takes the faster one."""
    return loop.precision == "bfloat16" or (loop.precision == "auto" and fast_bfloat16(device))


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
