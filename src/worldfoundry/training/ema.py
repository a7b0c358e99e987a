"""Exponential moving average of weights, warmed up so that the random start is forgotten."""

import torch
from torch import nn


class EMA:
    """Averages the floating-point state of `module` in float32; `n` counts updates."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.n = decay, 0
        self.average = {name: t.detach().clone() for name, t in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present weights; buffers and integers are copied."""
        self.n += 1
        weight = 1 - min(self.decay, (1 + self.n) / (10 + self.n))
        averages, values = [], []
        parameters = dict(module.named_parameters())
        for name, value in module.state_dict().items():
            if name in parameters and value.is_floating_point():
                averages.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the average."""
        module.load_state_dict(self.average)
