"""RMS normalisation. Legend: ... any leading axes, D normalised width."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last axis, computed in float32 and returned in x's dtype."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_D: Tensor) -> Tensor:
        wide_D = x_D.float()
        if torch.is_grad_enabled():
            scale = torch.rsqrt(wide_D.square().mean(-1, keepdim=True) + self.eps)
            return (wide_D * scale * self.weight.float()).to(x_D.dtype)
        norm = torch.linalg.vector_norm(wide_D, dim=-1, keepdim=True)  # the same number without an array of squares
        scale = norm.square_().div_(x_D.shape[-1]).add_(self.eps).rsqrt_()
        return (wide_D * scale).mul_(self.weight.float()).to(x_D.dtype)
