"""Perceptual distance of two pictures: weighted differences of unit-length features of a trunk (Zhang et al. 2018, arXiv 1801.03924).

The linear heads are the published ones (version 0.1, for VGG16). With the ImageNet trunk this is LPIPS; with any other trunk it is
not, and must not be called so.
Legend: B pictures, C channels, H height, W width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill, read_weights
from worldfoundry.perception.vgg16 import CHANNELS, Vgg16Trunk, load_hed_trunk
from worldfoundry.perception.winograd import WinogradConv2d

EPS = 1e-10  # added to the length, as published
FEWER_PRODUCTS = 128  # channels from which the Winograd form of a convolution is faster on a CPU


class PerceptualDistance(nn.Module):
    """`maps` runs the trunk; `between` compares two results of it, so that a picture is looked at once."""

    def __init__(self, trunk: Vgg16Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ParameterList(torch.rand(channels) for channels in CHANNELS)

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """[B, 3, H, W] in [-1, 1], at least 16x16 → five maps of features of length 1 at each pixel."""
        return [f / (f.square().sum(1, keepdim=True).sqrt() + EPS) for f in self.trunk(x_BCHW)]

    def between(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distances [B] of two lists of maps (one of the two may have B = 1). 0 for the same picture."""
        means = ((x - y).square().mean((2, 3)) @ head for x, y, head in zip(a, b, self.heads, strict=True))
        return torch.stack(list(means)).sum(0)

    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """Distances [B] of pictures in [-1, 1]."""
        return self.between(self.maps(a_BCHW), self.maps(b_BCHW))


def with_heads(trunk: Vgg16Trunk, heads_folder: Path) -> PerceptualDistance:
    """A trunk with the heads of a fetched `lpips-heads`; eval mode, no gradients. Raises CheckpointError."""
    net = PerceptualDistance(trunk)
    heads = {f"heads.{name[3]}": tensor.flatten() for name, tensor in read_weights(heads_folder).items()}  # lin0.model.1.weight
    fill(net, {**{f"trunk.{k}": v for k, v in trunk.state_dict().items()}, **heads}, where=str(heads_folder))
    for block in net.trunk.blocks:
        for name, conv in list(block.named_children()):
            if isinstance(conv, nn.Conv2d) and conv.in_channels >= FEWER_PRODUCTS:
                setattr(block, name, WinogradConv2d(conv))
    return net.eval().requires_grad_(False)


def load_hed_perceptual(trunk_folder: Path, heads_folder: Path) -> PerceptualDistance:
    """The packaged combination: HED's VGG16 trunk under LPIPS' heads."""
    return with_heads(load_hed_trunk(trunk_folder), heads_folder)
