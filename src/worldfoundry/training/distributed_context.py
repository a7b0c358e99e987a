"""Context parallelism: several ranks share the tokens of each clip (arXiv 2501.03575, section 5.1.3; the published runs use 2 to 8).

Every rank holds an equal part of the tokens of every frame, so that what is computed per token or per frame stays local.
Self-attention alone needs the others, in one of two ways:
- `Ulysses` (arXiv 2309.14509) exchanges: all tokens of some heads for some tokens of all heads, and back;
- `Ring` (arXiv 2310.01889) passes keys and values around and merges what each part of them gives by its log-sum-exp.

All ranks of a group compute the same loss from the gathered output, and gradients are averaged over *all* ranks. Each rank's
gradient is thus that of its own tokens times the number of ranks: the factor that `gather` puts in.

Legend: B batch, t frames, S tokens of a frame, L = t·S tokens (here: this rank's), h heads, d head width, D width, e = d/2,
K = 2 (keys and values).
"""

from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from worldfoundry.core.errors import UsageError
from worldfoundry.nn.attention import attention

Group = dist.ProcessGroup


class FrameSplit:
    """The `TokenSplit` of the DiT: rank r of n takes the r-th of n equal runs of tokens of every frame."""

    def __init__(self, group: Group) -> None:
        self.group, self.rank, self.count = group, dist.get_rank(group), dist.get_world_size(group)

    def take(
        self, tokens_BtSD: Tensor, position_tSD: Tensor | None, cos_B1Le: Tensor, sin_B1Le: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """This rank's part. Raises UsageError if the tokens of a frame do not divide among the ranks."""
        frames, size = tokens_BtSD.shape[1:3]
        if size % self.count:
            raise UsageError(
                f"The {size!r} patches of a latent frame do not divide among {self.count} context ranks.",
                "Change --loop.parallel.context, or the height and width of the windows.",
            )
        cos, sin = (
            rearrange(self._part(rearrange(x, "b o (t s) e -> b o t s e", t=frames), 3), "b o t s e -> b o (t s) e")
            for x in (cos_B1Le, sin_B1Le)
        )
        position = None if position_tSD is None else self._part(position_tSD, 1)
        return self._part(tokens_BtSD, 2), position, cos, sin

    def gather(self, tokens_BtSD: Tensor) -> Tensor:
        """All tokens of every frame, on every rank."""
        return _Gather.apply(tokens_BtSD, self)  # pyright: ignore[reportReturnType]

    def _part(self, x: Tensor, dim: int) -> Tensor:
        return x.chunk(self.count, dim)[self.rank]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part_BtSD: Tensor, split: FrameSplit) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.split = split
        parts = [torch.empty_like(part_BtSD, memory_format=torch.contiguous_format) for _ in range(split.count)]
        dist.all_gather(parts, part_BtSD.contiguous(), group=split.group)
        return torch.cat(parts, dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BtSD: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The sum of all ranks' gradients, which are equal: a product instead of a reduction."""
        return ctx.split._part(grad_BtSD, 2) * ctx.split.count, None


class Ulysses:
    """Attention over the tokens of all ranks, each rank computing 1/n of the heads. The heads must divide among the ranks."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def __call__(self, q_BhLd: Tensor, k_BhLd: Tensor, v_BhLd: Tensor) -> Tensor:
        qkv = torch.stack([q_BhLd.to(v_BhLd.dtype), k_BhLd.to(v_BhLd.dtype), v_BhLd])
        q, k, v = _Exchange.apply(qkv, 2, 3, self.group)  # pyright: ignore[reportGeneralTypeIssues]
        return _Exchange.apply(attention(q, k, v), 2, 1, self.group)  # pyright: ignore[reportReturnType]


class _Exchange(torch.autograd.Function):
    """Send the r-th part along `split` to rank r, and join what comes in along `join`. The way back is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, split: int, join: int, group: Group) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.split, ctx.join, ctx.group = split, join, group
        return _exchange(x, split, join, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _exchange(grad, ctx.join, ctx.split, ctx.group), None, None, None


def _exchange(x: Tensor, split: int, join: int, group: Group) -> Tensor:
    out = torch.stack(x.chunk(dist.get_world_size(group), split))
    came = torch.empty_like(out)
    dist.all_to_all_single(came, out, group=group)
    return torch.cat(came.unbind(0), dim=join)


class Ring:
    """Attention over the tokens of all ranks: keys and values travel once around the ring, any number of heads."""

    def __init__(self, group: Group) -> None:
        self.group, self.count = group, dist.get_world_size(group)
        rank = dist.get_rank(group)
        self.next, self.previous = (dist.get_global_rank(group, (rank + step) % self.count) for step in (1, -1))

    def __call__(self, q_BhLd: Tensor, k_BhLd: Tensor, v_BhLd: Tensor) -> Tensor:
        kv = torch.stack([k_BhLd.to(v_BhLd.dtype), v_BhLd])
        return _RingAttention.apply(q_BhLd.to(v_BhLd.dtype), kv, self)  # pyright: ignore[reportReturnType]

    def passed_on(self, x: Tensor) -> Tensor:
        """What the previous rank holds; this rank's goes to the next."""
        x, came = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        ways = [dist.P2POp(dist.isend, x, self.next, self.group), dist.P2POp(dist.irecv, came, self.previous, self.group)]
        for work in dist.batch_isend_irecv(ways):
            work.wait()
        return came


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BhLd: Tensor, own_KBhLd: Tensor, ring: Ring) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.ring, kv = ring, own_KBhLd
        out, lse_BhL = _part_attention(q_BhLd, kv[0], kv[1])
        out = out.float()
        for _ in range(ring.count - 1):
            kv = ring.passed_on(kv)
            part, part_lse = _part_attention(q_BhLd, kv[0], kv[1])
            both = torch.logaddexp(lse_BhL, part_lse)
            out = out * (lse_BhL - both).exp()[..., None] + part * (part_lse - both).exp()[..., None]
            lse_BhL = both
        out = out.to(q_BhLd.dtype)
        ctx.save_for_backward(q_BhLd, own_KBhLd, out, lse_BhL)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BhLd: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Given the merged output and log-sum-exp, each part's gradient is exact; that of keys and values travels with them."""
        ring: Ring = ctx.ring
        q, kv, out, lse_BhL = ctx.saved_tensors
        grad_q, grad_kv = torch.zeros_like(q, dtype=torch.float32), torch.zeros_like(kv, dtype=torch.float32)
        for i in range(ring.count):
            part_q, part_k, part_v = _part_gradient(grad_BhLd, q, kv[0], kv[1], out, lse_BhL)
            grad_q += part_q
            grad_kv = ring.passed_on(grad_kv + torch.stack([part_k, part_v]))
            if i < ring.count - 1:
                kv = ring.passed_on(kv)
        return grad_q.to(q.dtype), grad_kv.to(kv.dtype), None


def _part_attention(q_BhLd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to some of the keys, and the log of the sum that its softmax divided by [B, h, L]."""
    if q_BhLd.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q_BhLd, k_BhMd, v_BhMd)
    if q_BhLd.dtype == torch.float32:
        raise UsageError(
            "Ring attention on a GPU computes in half precision only.",
            "Use --loop.precision bfloat16 or --loop.parallel.context-mode ulysses.",
        )
    return torch.ops.aten._scaled_dot_product_flash_attention(q_BhLd, k_BhMd, v_BhMd)[:2]


def _part_gradient(
    grad_BhLd: Tensor, q_BhLd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, out_BhLd: Tensor, lse_BhL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What these keys contribute to the gradients, `out` and `lse` being those over all keys."""
    known = (grad_BhLd, q_BhLd, k_BhMd, v_BhMd, out_BhLd, lse_BhL)
    if q_BhLd.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*known, 0.0, False)
    no_dropout = torch.zeros(2, dtype=torch.uint64, device=q_BhLd.device)
    sizes = (None, None, q_BhLd.shape[2], k_BhMd.shape[2])
    return torch.ops.aten._scaled_dot_product_flash_attention_backward(*known, *sizes, 0.0, False, no_dropout, no_dropout)
