"""Moving averages of weights: exponential, warmed up so that the random start is forgotten, or with a power profile."""

import numpy as np
import torch
from torch import nn

from worldfoundry.training.config import LoopConfig
from worldfoundry.training.tensor_parallel import local


class EMA:
    """Averages the floating-point state of `module` in float32; `n` counts updates."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.n = decay, 0
        self.average = {name: t.detach().clone() for name, t in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present weights; buffers and integers are copied."""
        self.n += 1
        weight = 1 - self.kept()
        averages, values = [], []
        parameters = dict(module.named_parameters())
        for name, value in module.state_dict().items():
            if name in parameters and value.is_floating_point():
                averages.append(local(self.average[name]))  # tensors may be split over different meshes
                values.append(local(value))
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, weight)

    def kept(self) -> float:
        """The share of the average that update number `n` keeps."""
        return min(self.decay, (1 + self.n) / (10 + self.n))

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the average."""
        module.load_state_dict(self.average)


class PowerEMA(EMA):
    """The average whose weight of step i grows as i^gamma: it is always as wide as the same share of the run so far.

    Update n keeps (1 - 1/n)^(gamma + 1), so step i counts (i/n)^(gamma+1) - ((i-1)/n)^(gamma+1) after n (arXiv
    2312.02696, section 3.1); the weights before the first update do not count at all.
    """

    def __init__(self, module: nn.Module, sigma_rel: float) -> None:
        """`sigma_rel` is the profile's deviation as a share of the run, in (0, 0.2887)."""
        super().__init__(module, 0.0)
        self.gamma = power_gamma(sigma_rel)

    def kept(self) -> float:
        return (1 - 1 / self.n) ** (self.gamma + 1)


def power_gamma(sigma_rel: float) -> float:
    """The exponent whose profile has that relative deviation: sigma_rel² = (gamma + 1) / ((gamma + 2)² (gamma + 3)).

    The one positive root of gamma³ + 7 gamma² + (16 - s) gamma + 12 - s with s = 1 / sigma_rel² (arXiv 2312.02696, appendix C).
    """
    s = sigma_rel**-2
    return float(max(root.real for root in np.roots([1, 7, 16 - s, 12 - s]) if abs(root.imag) < 1e-9))


def moving_average(module: nn.Module, config: LoopConfig) -> EMA:
    """The average that the config asks for."""
    if config.ema == "power":
        return PowerEMA(module, config.ema_sigma_rel)
    return EMA(module, config.ema_decay)
