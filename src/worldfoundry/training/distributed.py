"""The one place that knows of other processes: who this one is, what all agree on, which rows are whose.

torchrun starts N processes ("ranks"). They form a grid of (data, context): ranks of one row of it, which are neighbours, share
the tokens of the same samples (`distributed_context.py`) or, in a grid of (data, tensor), the matrices (`tensor_parallel.py`);
the rows share the samples of a batch. Weights, gradients and optimizer are split among all ranks (FSDP2), or held by each and
the gradients averaged. Rank 0 ("main") alone speaks, logs
and writes what is not split. One process takes none of these roads.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import UsageError, WorldFoundryError
from worldfoundry.training.config import LoopConfig, ParallelConfig
from worldfoundry.training.distributed_context import FrameSplit, Ring, Ulysses
from worldfoundry.training.method import BatchStream, Method, Share, Shared, StagedMethod, StatefulMethod
from worldfoundry.training.tensor_parallel import TensorSplit, check_tensor_parallel, split_matrices

# Main may encode a data set while the others wait for it. A rank that dies is noticed by torchrun, not by this limit.
PATIENCE = timedelta(hours=24)
# Methods beside `forward` through which a network is used: what is split must be put together for them, too.
WAYS_IN = ("hidden", "logits")
T = TypeVar("T")


# --- the life of a group of processes ------------------------------------------------------------------------------


@contextmanager
def process_group() -> Iterator[None]:
    """Join the ranks that torchrun started, until the end of the block (also a decorator). Without torchrun: nothing.

    Ranks other than main say nothing meanwhile. If several fail (of the same cause, or of the others' end), the first says why.
    """
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        with _silence() if rank else _speech():
            yield
    except (WorldFoundryError, RuntimeError, OSError, KeyboardInterrupt) as error:
        if store.add("failed ranks", 1) > 1:
            raise SystemExit(_exit_code(error)) from error
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        yield


@contextmanager
def _speech() -> Iterator[None]:
    yield


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, WorldFoundryError) else 1


def is_main() -> bool:
    """Whether this process is the only one, or rank 0."""
    return not dist.is_initialized() or dist.get_rank() == 0


def rank_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def main_first() -> Iterator[None]:
    """Main carries out the block, then the others do, who find what main wrote."""
    if not is_main():
        dist.barrier()
    yield
    if is_main() and dist.is_initialized():
        dist.barrier()


def only_main_goes_on() -> None:
    """The other ranks end here: what follows (export, evaluation) is main's work alone."""
    if not is_main():
        sys.exit(0)


# --- what ranks share ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where this process stands among `count`; `together` neighbours share the tokens of a sample, or the matrices (`split`)."""

    index: int = 0
    count: int = 1
    together: int = 1
    sharded: bool = False
    split: TensorSplit | None = None

    @property
    def main(self) -> bool:
        return self.index == 0

    @property
    def share(self) -> Share:
        """The rows of the global batch that this rank works on."""
        return Share(index=self.index // self.together, count=self.count // self.together)

    def from_main(self, value: T) -> T:
        """Main's value, on every rank."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def largest(self, values: list[float]) -> list[float]:
        """The largest of each value over all ranks, so that all take the same decisions."""
        return values if self.count == 1 else self._reduced(values, dist.ReduceOp.MAX)

    def mean(self, values: Mapping[str, float]) -> Mapping[str, float]:
        """The mean of each value over all ranks."""
        if self.count == 1:
            return values
        total = self._reduced(list(values.values()), dist.ReduceOp.SUM)
        return {name: value / self.count for name, value in zip(values, total, strict=True)}

    def _reduced(self, values: list[float], how: Any) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=how)
        return tensor.tolist()

    def clip_gradients(self, module: nn.Module, most: float) -> float:
        """Average the gradients over the ranks and scale them to a global norm of at most `most`; returns the norm before."""
        if self.split is not None:
            return self.split.clip_gradients(module, most)
        if self.count > 1 and not self.sharded:  # FSDP averages as gradients come
            self._average_gradients(module)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), most)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _average_gradients(self, module: nn.Module) -> None:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, (flat / self.count).split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put sharded tensors together, on main and in its ordinary memory; the other ranks get nothing."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            tensor = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
            if self.main:
                found[name] = tensor
        return found

    def seed_step(self, seed: int, step: int, own: torch.Generator | None) -> None:
        """Randomness of several ranks depends on run, step and share alone: nothing of it needs saving for each rank.

        `own` is the generator of a method that cannot draw for the global batch; dropout and such use torch's own.
        """
        if self.count == 1:
            return
        number = int(stable_hash([seed, step, self.share.index], 15), 16)
        torch.manual_seed(number)
        if own is not None:
            own.manual_seed(number)


class SharedStream:
    """The share of a stream that draws the global batch on every rank."""

    def __init__(self, stream: BatchStream, share: Share) -> None:
        self.stream, self.share = stream, share

    def next_batch(self) -> dict[str, Tensor]:
        return {name: self.share.of(rows) for name, rows in self.stream.next_batch().items()}

    def begin_step(self, progress: float) -> None:
        """Tell the stream behind, if it changes as the run goes on."""
        if isinstance(self.stream, StagedMethod):
            self.stream.begin_step(progress)

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream.load_state_dict(state)


# --- a method made parallel ----------------------------------------------------------------------------------------


def distribute(method: Method, data: BatchStream, config: LoopConfig) -> tuple[Ranks, BatchStream]:
    """Lay the method's network and its stream out over the ranks of the process group, if there is one.

    Weights start as main's. Raises UsageError, on every rank, for a number of ranks that does not fit.
    """
    module, parallel = method.module, config.parallel
    if parallel.activation_checkpointing:
        _checkpoint_blocks(module)
    count = rank_count()
    _check(method, config, count)
    if count == 1:
        return Ranks(), data
    device = next(module.parameters()).device.type
    for tensor in module.state_dict().values():
        mains = tensor.contiguous()
        dist.broadcast(mains, src=0)
        tensor.copy_(mains)
    together, kind = (parallel.tensor, "tensor") if parallel.tensor > 1 else (parallel.context, "context")
    grid = init_device_mesh(device, (count // together, together), mesh_dim_names=("data", kind))
    sharded = parallel.shard and bool(_blocks(module))
    split = split_matrices(module, grid, sharded=sharded) if parallel.tensor > 1 else None
    if parallel.context > 1:
        _split_tokens(module, grid["context"].get_group(), parallel)
    if sharded:
        mesh = grid["data"] if split else init_device_mesh(device, (count,))
        for block in _blocks(module):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        for way in (name for name in WAYS_IN if hasattr(module, name)):
            register_fsdp_forward_method(module, way)
    ranks = Ranks(index=dist.get_rank(), count=count, together=together, sharded=sharded or split is not None, split=split)
    if isinstance(method, Shared):
        method.share = ranks.share
    if isinstance(data, Shared):
        data.share = ranks.share
        return ranks, data
    return ranks, SharedStream(data, ranks.share)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network that is a stack of them; empty for another."""
    blocks = getattr(module, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []


def _check(method: Method, config: LoopConfig, count: int) -> None:
    parallel = config.parallel
    context = parallel.context
    if count % context:
        raise UsageError(
            f"{count} ranks do not divide into groups of {context} context ranks.",
            "Set --loop.parallel.context to a divisor of the ranks that torchrun starts (--nproc-per-node).",
        )
    if parallel.tensor > 1:
        _check_tensor(method, config, count)
    if parallel.activation_checkpointing and not _blocks(method.module):
        raise UsageError("This network is not made of blocks.", "Use --loop.parallel.no-activation-checkpointing.")
    if context > 1 and not hasattr(method.module, "token_split"):
        raise UsageError("The tokens of this network cannot be split among ranks.", "Use --loop.parallel.context 1.")
    if context > 1 and parallel.context_mode == "ulysses":
        heads = min(part.num_heads for part in _self_attentions(method.module))
        if heads % context:
            raise UsageError(
                f"{heads} heads do not divide among {context} context ranks.",
                "Use --loop.parallel.context-mode ring, or fewer context ranks.",
            )
    if count > 1 and parallel.shard and _blocks(method.module) and config.optim.name == "muon":
        raise UsageError("Muon needs whole matrices.", "Use --loop.parallel.no-shard, or --loop.optim.name adamw.")
    if count > 1 and isinstance(method, StatefulMethod) and method.state_tensors():
        raise UsageError(
            "What is trained beside the network (a discriminator) cannot be shared among ranks.",
            "Leave that term out, or train with one process.",
        )


def _check_tensor(method: Method, config: LoopConfig, count: int) -> None:
    tensor = config.parallel.tensor
    if config.parallel.context > 1:
        raise UsageError("Ranks share either tokens or matrices.", "Set only one of --loop.parallel.context and .tensor.")
    if count % tensor:
        raise UsageError(
            f"{count} ranks do not divide into groups of {tensor} tensor ranks.",
            "Set --loop.parallel.tensor to a divisor of the ranks that torchrun starts (--nproc-per-node).",
        )
    if config.optim.name == "muon":
        raise UsageError("Muon needs whole matrices.", "Use --loop.parallel.tensor 1, or --loop.optim.name adamw.")
    check_tensor_parallel(method.module, tensor)


def _self_attentions(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if hasattr(part, "attend")]


def _split_tokens(module: Any, group: dist.ProcessGroup, config: ParallelConfig) -> None:
    module.token_split = FrameSplit(group)
    how = Ulysses(group) if config.context_mode == "ulysses" else Ring(group)
    attend = torch.compiler.disable(how.__call__)  # a compiled block leaves the exchange between processes as it is
    for part in _self_attentions(module):
        part.attend = attend


def _checkpoint_blocks(module: nn.Module) -> None:
    """Compute blocks again in the backward pass. Their forward is wrapped, not they: names of weights stay."""
    for block in _blocks(module):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
