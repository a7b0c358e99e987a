"""VGG16's 13 convolutions, tapped after each of its five blocks (arXiv 1409.1556): the trunk of perceptual distances.

Two sets of weights fit: those of an edge detector that was trained on from ImageNet's (HED, arXiv 1504.06375; packaged), and the
ImageNet classifier's own in torchvision's file (a user gives it). They differ in how a picture is scaled before the first layer.
Legend: B pictures, C channels, H height, W width.
"""

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill, read_weights

BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
CHANNELS = tuple(block[-1] for block in BLOCKS)

# Both as (mean, deviation) of RGB bytes. HED subtracts Caffe's mean and keeps the range; torchvision divides too. LPIPS states
# the latter for pictures in [-1, 1]: shift (-.030, -.088, -.188), scale (.458, .448, .450).
CAFFE = ((122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0))
LPIPS_SCALE = tuple(
    tuple(round(127.5 * (v + one), 6) for v in values)
    for one, values in ((1, (-0.030, -0.088, -0.188)), (0, (0.458, 0.448, 0.450)))
)


class Vgg16Trunk(nn.Module):
    """Pictures in [-1, 1] in, the activations after each block (before its pooling) out."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, bgr: bool, scale: tuple[tuple[float, ...], ...]) -> None:
        super().__init__()
        self.bgr = bgr
        for name, values in zip(("mean", "deviation"), scale, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)) for sizes in BLOCKS
        )

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """[B, 3, H, W] RGB in [-1, 1], at least 16x16 → five maps of CHANNELS channels, each half the size of the one before."""
        x_BCHW = ((x_BCHW + 1) * 127.5 - self.mean) / self.deviation
        x_BCHW = (x_BCHW.flip(1) if self.bgr else x_BCHW).contiguous(memory_format=torch.channels_last)  # faster on a CPU
        maps = []
        for i, block in enumerate(self.blocks):
            if i > 0:
                x_BCHW = F.max_pool2d(x_BCHW, 2)
            for conv in block.children():
                x_BCHW = F.relu(conv(x_BCHW), inplace=True)
            maps.append(x_BCHW)
        return maps


def load_hed_trunk(folder: Path) -> Vgg16Trunk:
    """The trunk of a fetched `hed-vgg16` (kernels as Keras stores them: H, W, in, out; BGR). Raises CheckpointError."""
    net = Vgg16Trunk(bgr=True, scale=CAFFE)
    state = {}
    for name, tensor in read_weights(folder).items():
        conv, _, kind = name.rpartition(".")
        block, number = conv.removeprefix("conv").split("_")
        tensor = tensor.permute(3, 2, 0, 1).contiguous() if kind == "kernel" else tensor
        state[f"blocks.{int(block) - 1}.{int(number) - 1}.{'weight' if kind == 'kernel' else 'bias'}"] = tensor
    fill(net, state, where=str(folder))
    return net.eval().requires_grad_(False)


def from_torchvision(state: dict[str, Tensor]) -> Vgg16Trunk:
    """The trunk from torchvision's `vgg16` tensors (`features.0.weight`, …; the classifier is not used). Raises CheckpointError."""
    net = Vgg16Trunk(bgr=False, scale=LPIPS_SCALE)
    numbers = sorted({int(name.split(".")[1]) for name in state if name.startswith("features.")})
    ours = [f"blocks.{i}.{j}" for i, block in enumerate(net.blocks) for j, _ in enumerate(block.children())]
    names = dict(zip(numbers, ours, strict=False))
    renamed = {}
    for name, tensor in state.items():
        if not name.startswith("classifier."):
            parts = name.split(".")
            known = parts[0] == "features" and int(parts[1]) in names
            renamed[f"{names[int(parts[1])]}.{parts[2]}" if known else name] = tensor
    fill(net, renamed, where="the VGG16 checkpoint")
    return net.eval().requires_grad_(False)
