"""Linear layers whose weights lie in oneDNN's blocked order, on a CPU, for as long as a memo lives.

A plain product reads (or first copies) a row-major weight; blocked once, it multiplies faster: on 2 threads 153–198 → 222
GFLOP/s in float32 and 395–420 → 440 in bfloat16. The two operators are private to torch (its compiler calls them), so this file
alone knows them; where they are missing, or a layer is anything but a plain one on a CPU, the layer computes as always.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.nn.memo import Memo, remembered

PACK_AT_CALL = 4
"""Packing costs about what three calls gain, so a sample of fewer steps goes without."""
MAX_BYTES = 1 << 30
"""Weights above this are not held a second time."""
Forward = Callable[[Tensor], Tensor]


@contextmanager
def packed(module: nn.Module, memo: Memo | None) -> Iterator[None]:
    """Inside, linear layers of `module` use packed weights, from the memo's `PACK_AT_CALL`-th time on; without a memo, nothing.

    Weights must not change during the memo's life. With gradients, under autocast, or on other devices layers stay as they are.
    """
    forwards = _forwards(module, memo)
    for linear, forward in forwards.items():
        linear.__dict__["forward"] = forward  # shadows the class's own
    try:
        yield
    finally:
        for linear in forwards:
            linear.__dict__.pop("forward", None)


def _forwards(module: nn.Module, memo: Memo | None) -> dict[nn.Linear, Forward]:
    if memo is None or torch.is_grad_enabled() or not _available():
        return {}
    memo["calls"] = memo.get("calls", 0) + 1
    if memo["calls"] < PACK_AT_CALL:
        return {}
    return remembered(memo, "packed", lambda: _pack(module))


def _available() -> bool:
    operators = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)


def _packable_dtypes() -> tuple[torch.dtype, ...]:
    half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if half else (torch.float32,)


def _pack(module: nn.Module) -> dict[nn.Linear, Forward]:
    dtypes = _packable_dtypes()
    linears = [m for m in module.modules() if type(m) is nn.Linear and "forward" not in m.__dict__]
    fitting = [m for m in linears if type(m.weight) is nn.Parameter and m.weight.is_cpu and m.weight.dtype in dtypes]
    if sum(m.weight.nbytes for m in fitting) > MAX_BYTES:
        return {}
    return {linear: _packed_forward(linear) for linear in fitting}


def _packed_forward(linear: nn.Linear) -> Forward:
    packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(x: Tensor) -> Tensor:
        if not x.is_cpu or x.dtype != linear.weight.dtype or torch.is_autocast_enabled("cpu"):
            return F.linear(x, linear.weight, linear.bias)
        return torch.ops.mkldnn._linear_pointwise(x, packed_weight, linear.bias, "none", [], "")

    return forward


class PackedLinear(nn.Module):
    """A linear layer without bias for inference, whose weight [rows, columns] is packed once and for all where that is possible.

    What usually follows it can be done in the same operation. Elsewhere than on a CPU with oneDNN it is a plain layer.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        dtypes = _packable_dtypes() if weight.is_cpu and _available() else ()
        self.packed = weight.dtype in dtypes
        held = torch.ops.mkldnn._reorder_linear_weight(weight.detach()) if self.packed else weight.detach()
        self.register_buffer("weight", held, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ."""
        if not self.packed:
            return F.linear(x, self.weight)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")

    def silu(self, x: Tensor) -> Tensor:
        """SiLU(x Wᵀ)."""
        if not self.packed:
            return F.silu(F.linear(x, self.weight))
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "swish", [], "")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """x Wᵀ + other."""
        return F.linear(x, self.weight) + other if not self.packed else self._with(x, other, "add")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """x Wᵀ · other."""
        return F.linear(x, self.weight) * other if not self.packed else self._with(x, other, "mul")

    def _with(self, x: Tensor, other: Tensor, operation: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, None, operation)
