"""Linear layers whose weights are 8-bit integers with one scale per output row; activations stay as they are.

Weights take half the memory of bfloat16. They are turned back to floating point where they are used, one layer at a time, so
this saves memory and not time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def forward(self, x: Tensor) -> Tensor:
        scale, weight = self.scale.to(x.dtype), self.weight.to(x.dtype)
        if x.dtype == torch.float16:  # whose range sums of up to 127 · x leave
            return F.linear(x, weight * scale[:, None], self.bias)
        product = F.linear(x, weight) * scale
        return product if self.bias is None else product + self.bias


def quantize_linears(module: nn.Module) -> int:
    """Replace every `nn.Linear` below `module`; → how many. The weights' own precision is lost."""
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))
                count += 1
    return count
