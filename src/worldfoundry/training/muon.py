"""Muon: momentum whose update is orthogonalised, so that every direction of a matrix learns at one rate.

Matrices and convolution kernels (as matrices of outputs by everything else) take that step, scaled to the root mean square
that AdamW's has (arXiv 2502.16982, section 2.2), so one learning rate serves both; vectors take AdamW's.

Axis legend: G equally shaped matrices, O outputs, I inputs (times kernel positions).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the quintic iteration that drives singular values to about 1 within five steps (Jordan et al., 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAM_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two axes or more, AdamW for the rest. `betas` are (momentum and first moment, second moment)."""

    def __init__(self, groups: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step for every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if parameter.ndim > 1:
                    alike[parameter.flatten(1).shape].append(parameter)
                else:
                    self._adam_step(parameter, group)
            for parameters in alike.values():
                self._muon_step(parameters, group)

    def _muon_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta, updates = group["betas"][0], []
        for parameter in parameters:
            state, grad = self.state[parameter], parameter.grad
            assert grad is not None, "the caller checked"
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].mul_(beta).add_(grad)
            updates.append(torch.add(grad, state["momentum"], alpha=beta).flatten(1))  # Nesterov's look ahead
        update_GOI = orthogonalized(torch.stack(updates))
        scale = ADAM_RMS * max(update_GOI.shape[1:]) ** 0.5
        for parameter, update_OI in zip(parameters, update_GOI, strict=True):
            parameter.add_(update_OI.view(parameter.shape), alpha=-group["lr"] * scale)

    def _adam_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        first, second = group["betas"]
        state, grad = self.state[parameter], parameter.grad
        assert grad is not None, "the caller checked"
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].lerp_(grad, 1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(grad, grad, value=1 - second)
        step = float(state["step"])
        deviation = (state["exp_avg_sq"] / (1 - second**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["exp_avg"], deviation, value=-group["lr"] / (1 - first**step))


def orthogonalized(matrices_GOI: Tensor) -> Tensor:
    """Each matrix with its singular values replaced by about 1 (between 0.7 and 1.2), in the input's dtype."""
    a, b, c = QUINTIC
    x = matrices_GOI.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices_GOI.dtype)
