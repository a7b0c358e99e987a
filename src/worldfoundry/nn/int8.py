"""Linear layers whose weights are 8-bit integers with one scale per output row; activations stay as they are.

Weights take half the memory of bfloat16. They are turned back to floating point where they are used, one layer at a time, so
this saves memory and not time; only for the few rows of a decoding step on a CPU does a product read them as they are.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 16
"""Up to this many rows reading the weights takes longer than multiplying with them."""


class Int8Linear(nn.Module):
    """y = (x · Wᵀ) · scale + bias, with W rounded symmetrically: row i of the weights is W[i] · scale[i]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows = linear.weight.detach().float()
        scale = rows.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (rows / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    @classmethod
    def joined(cls, layers: "Sequence[Int8Linear]") -> "Int8Linear":
        """One layer, without biases, that gives the outputs of several side by side."""
        whole = cls(nn.Linear(1, 1, bias=False))
        whole.weight, whole.scale = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "scale"))
        return whole

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the layer's output."""
        return F.silu(self(x))

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer's output + other."""
        return self(x) + other

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer's output · other."""
        return self(x) * other

    def forward(self, x: Tensor) -> Tensor:
        if self._reads_integers(x):
            product = torch._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale.to(x.dtype))
            return product.view(*x.shape[:-1], -1) if self.bias is None else product.view(*x.shape[:-1], -1) + self.bias
        scale, weight = self.scale.to(x.dtype), self.weight.to(x.dtype)
        if x.dtype == torch.float16:  # whose range sums of up to 127 · x leave
            return F.linear(x, weight * scale[:, None], self.bias)
        product = F.linear(x, weight) * scale
        return product if self.bias is None else product + self.bias

    def _reads_integers(self, x: Tensor) -> bool:
        few = x.numel() <= FEW_ROWS * x.shape[-1]
        fits = x.is_cpu and x.dtype == torch.bfloat16 and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        return few and fits and hasattr(torch, "_weight_int8pack_mm")


def quantize_linears(module: nn.Module) -> int:
    """Replace every `nn.Linear` below `module`; → how many. The weights' own precision is lost."""
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))
                count += 1
    return count
