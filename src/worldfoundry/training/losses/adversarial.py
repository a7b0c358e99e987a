"""The adversarial term: a patch discriminator with the hinge loss, weighed by gradients (Esser et al. 2021, arXiv 2012.09841).

The Cosmos paper (section 4.2) uses one in fine-tuning but does not say which. This one sees patches of frames (2-D) or of clips (3-D).

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldfoundry.training.config import AdversarialConfig
from worldfoundry.training.state import load_optimizer, optimizer_tensors

GROUPS = 4


class PatchDiscriminator(nn.Module):
    """Strided convolutions to one score per patch: positive for what looks true. No score sees the whole clip."""

    def __init__(self, *, dims: int, channels: int, layers: int) -> None:
        super().__init__()
        self.dims = dims
        widths = [3, *(channels * min(2**i, 8) for i in range(layers))]
        blocks: list[nn.Module] = []
        for i in range(layers):
            blocks += [self._conv(widths[i], widths[i + 1], stride=2)]
            blocks += [nn.GroupNorm(GROUPS, widths[i + 1])] if i else []
            blocks += [nn.LeakyReLU(0.2)]
        self.score = nn.Sequential(*blocks, self._conv(widths[-1], 1, stride=1))

    def _conv(self, ins: int, outs: int, *, stride: int) -> nn.Module:
        """Halves height and width, keeps time."""
        if self.dims == 2:
            return nn.Conv2d(ins, outs, 4 if stride == 2 else 3, stride=stride, padding=1)
        side = 4 if stride == 2 else 3
        return nn.Conv3d(ins, outs, (3, side, side), stride=(1, stride, stride), padding=1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Scores of the patches, of any shape."""
        return self.score(rearrange(x_BCTHW, "b c t h w -> (b t) c h w") if self.dims == 2 else x_BCTHW)


def hinge_discriminator(true: Tensor, made: Tensor) -> Tensor:
    """What the discriminator minimises: 0 once true scores are above 1 and made ones below -1."""
    return 0.5 * (F.relu(1 - true).mean() + F.relu(1 + made).mean())


def hinge_generator(made: Tensor) -> Tensor:
    """What the tokenizer minimises."""
    return -made.mean()


def adaptive_weight(reference: Tensor, adversarial: Tensor, last_layer: Tensor, largest: float) -> Tensor:
    """|∂reference/∂w| / |∂adversarial/∂w| at the decoder's last weights: brings both gradients to one size."""
    norms = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reference, adversarial)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=largest).detach()


class Adversary:
    """A discriminator and its optimizer, trained beside the tokenizer."""

    def __init__(self, config: AdversarialConfig, device: torch.device) -> None:
        self.config = config
        net = PatchDiscriminator(dims=config.dims, channels=config.channels, layers=config.layers)
        self.discriminator = net.to(device).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=config.lr, betas=config.betas)

    def learn(self, true_BCTHW: Tensor, made_BCTHW: Tensor) -> float:
        """One step of the discriminator; returns its loss."""
        self.discriminator.requires_grad_(True)
        loss = hinge_discriminator(self.discriminator(true_BCTHW), self.discriminator(made_BCTHW.detach()))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)
        return float(loss.detach())

    def term(self, made_BCTHW: Tensor, reference: Tensor, last_layer: Tensor) -> Tensor:
        """The generator's loss, scaled so that at weight 1 it pulls the last layer as hard as `reference` does."""
        loss = hinge_generator(self.discriminator(made_BCTHW))
        return adaptive_weight(reference, loss, last_layer, self.config.largest_weight) * loss

    def state_tensors(self) -> dict[str, Tensor]:
        """Copies of the weights and the optimizer's moments."""
        tensors = {f"discriminator.{name}": tensor for name, tensor in self.discriminator.state_dict().items()}
        return {name: tensor.detach().clone() for name, tensor in (tensors | optimizer_tensors(self.optimizer)).items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state_tensors`."""
        prefix = "discriminator."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        self.discriminator.load_state_dict(own)
        load_optimizer(self.optimizer, tensors)
