"""Tensor parallelism (arXiv 1909.08053): neighbouring ranks each hold some heads and hidden units of every block.

The matrices that read the stream are cut by their outputs, those that write to it by their inputs, so that a block exchanges
numbers twice: the sums of what attention and SwiGLU add. Embedding and unembedding are cut by tokens. All other weights, the
norms, are whole on every rank, and what they are applied to is the same on all of them; the norms of queries and keys alone see
each rank's own heads, so their gradients are summed.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.errors import UsageError

BY_OUTPUT = ("to_q", "to_k", "to_v", "gate", "up")
BY_INPUT = ("to_out", "down")
OF_HEADS = ("norm_q", "norm_k")


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that is split, sharing its memory; another tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def check_tensor_parallel(module: nn.Module, count: int) -> None:
    """Whether `count` ranks can share the matrices of a network. Raises UsageError."""
    if not isinstance(module, Transformer):
        raise UsageError("The matrices of this network cannot be split among ranks.", "Use --loop.parallel.tensor 1.")
    config = module.config
    for what, number in (("key and value heads", config.num_kv_heads), ("hidden units", config.ffn_hidden_size)):
        if number % count:
            raise UsageError(
                f"{number} {what} do not divide among {count} tensor ranks.", "Set --loop.parallel.tensor to a divisor of both."
            )


@dataclass(frozen=True, kw_only=True)
class TensorSplit:
    """A network that is split: which ranks share its matrices and which the batch, the norms that see one rank's heads alone,
    and whether FSDP averages gradients over the ranks that share the batch."""

    group: dist.ProcessGroup
    data_group: dist.ProcessGroup
    head_norms: tuple[nn.Module, ...]
    sharded: bool

    def clip_gradients(self, module: nn.Module, most: float) -> float:
        """Complete the gradients and scale them to a global norm of at most `most`; returns the norm before."""
        for norm in self.head_norms:
            for parameter in norm.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(local(parameter.grad), group=self.group)
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if not self.sharded:
            for gradient in gradients:
                dist.all_reduce(local(gradient), group=self.data_group)
                local(gradient).div_(dist.get_world_size(self.data_group))
        norm = self._norm(gradients)
        for gradient in gradients:
            local(gradient).mul_(min(1.0, most / (norm + 1e-6)))
        return norm

    def _norm(self, gradients: list[Tensor]) -> float:
        """Each part counts once, on however many ranks it lies."""
        ranks = dist.get_world_size()
        total = torch.zeros((), device=local(gradients[0]).device)
        for gradient in gradients:
            total += local(gradient).float().square().sum() * (_parts(gradient) / ranks)
        dist.all_reduce(total)
        return float(total.sqrt())


def _parts(tensor: Tensor) -> int:
    """Into how many different parts a tensor is cut."""
    if not isinstance(tensor, DTensor):
        return 1
    counts = [tensor.device_mesh.size(axis) for axis, place in enumerate(tensor.placements) if not place.is_replicate()]
    return int(torch.tensor(counts).prod()) if counts else 1


def split_matrices(module: nn.Module, grid: DeviceMesh, *, sharded: bool) -> TensorSplit:
    """Cut the matrices of a transformer among the ranks of the mesh's axis `tensor`. Raises UsageError where they do not divide."""
    mesh = grid["tensor"]
    check_tensor_parallel(module, mesh.size())
    norms = []
    for block in module.blocks:  # type: ignore[union-attr]
        plan: dict[str, Any] = {}
        for name, part in block.named_modules():
            leaf = name.rpartition(".")[2]
            if leaf in BY_OUTPUT:
                plan[name] = ColwiseParallel()
            elif leaf in BY_INPUT:
                plan[name] = RowwiseParallel()
            elif leaf in OF_HEADS:
                norms.append(part)
        parallelize_module(block, mesh, plan)
    whole = {"input_layouts": Replicate(), "output_layouts": Replicate()}
    ends = {"embed": RowwiseParallel(**whole), "unembed": ColwiseParallel(**whole), "medusa.merged": ColwiseParallel(**whole)}
    present = {name for name, _ in module.named_modules()}
    parallelize_module(module, mesh, {name: style for name, style in ends.items() if name in present})
    return TensorSplit(group=mesh.get_group(), data_group=grid["data"].get_group(), head_norms=tuple(norms), sharded=sharded)
