"""EfficientNet-lite0: an image classifier whose pooled features (1280 numbers) describe what a frame shows (arXiv 1905.11946).

The lite variant has no squeeze-and-excitation and uses ReLU6. Padding follows TensorFlow ("same": the odd pixel goes right and
below), since the weights come from there. The state dict keeps our names; `load_effnet_lite0` translates the published ones.
Legend: B pictures, C channels, H height, W width, D = 1280 features.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill, read_weights
from worldfoundry.perception.folding import fold_norm

SIZE = 224  # pixels: what the network was trained on
CLASSES = 1000
FEATURES = 1280
BATCH_NORM_EPS = 1e-3

# (kernel, blocks, stride of the first, expansion, output channels) of each stage: EfficientNet-B0's table.
STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)


class ConvNorm(nn.Module):
    """Convolution without bias, "same" padding, batch normalisation, and ReLU6 unless it is a block's last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.kernel, self.stride, self.relu = kernel, stride, relu
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        padding = self.kernel // 2
        if self.stride > 1:  # else "same" is symmetric, and needs no copy of the picture
            x_BCHW, padding = same_padding(x_BCHW, self.kernel, self.stride), 0
        weight, bias = fold_norm(self.conv.weight, self.norm)
        x_BCHW = F.conv2d(x_BCHW, weight, bias, self.stride, padding, groups=self.conv.groups)
        return F.relu6(x_BCHW, inplace=True) if self.relu else x_BCHW


class Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow; added to its input where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.expand(x_BCHW) if self.expand is not None else x_BCHW
        y_BCHW = self.project(self.depthwise(y_BCHW))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class EfficientNetLite0(nn.Module):
    """Pictures in [-1, 1] in, ImageNet logits out; `features` stops before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, stride=2)
        blocks, channels = [], 32
        for kernel, count, stride, expansion, outputs in STAGES:
            for i in range(count):
                blocks.append(Block(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNorm(channels, FEATURES, 1)
        self.classifier = nn.Linear(FEATURES, CLASSES)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] (trained at 224x224) → [B, 1280], the mean over space of the last activations, each >= 0."""
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        x_BCHW = self.stem(x_BCHW * 127.5 / 128 + 0.5 / 128)  # the network was trained on (byte - 127) / 128
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return self.head(x_BCHW).mean((2, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.classifier(self.features(x_BCHW))


def same_padding(x_BCHW: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around the picture so that the convolution gives ceil(size / stride) pixels; the odd one right and below."""
    height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x_BCHW.shape[2:])
    return F.pad(x_BCHW, (width // 2, width - width // 2, height // 2, height - height // 2))


def from_published(state: dict[str, Tensor]) -> EfficientNetLite0:
    """An eval-mode network without gradients from the tensors as published (`_conv_stem`, `_blocks.0._bn1`, …)."""
    net = EfficientNetLite0()
    names = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "classifier",
    }
    for i, block in enumerate(net.blocks):
        parts = ["depthwise", "project"] if block.expand is None else ["expand", "depthwise", "project"]
        first = 3 - len(parts)  # the published batch norms are numbered 0 to 2; a block that does not widen has no number 0
        for number, part in enumerate(parts, first):
            names[f"_blocks.{i}._{part}_conv"] = f"blocks.{i}.{part}.conv"
            names[f"_blocks.{i}._bn{number}"] = f"blocks.{i}.{part}.norm"
    renamed = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        renamed[f"{names.get(module, module)}.{kind}"] = tensor
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):  # counts training steps; the publishers left it out
            renamed.setdefault(name, torch.zeros_like(tensor))
    fill(net, renamed, where="the EfficientNet-lite0 checkpoint")
    return net.eval().requires_grad_(False)


def load_effnet_lite0(folder: Path) -> EfficientNetLite0:
    """Read `model.safetensors` of a fetched `effnet-lite0`. Raises CheckpointError if it is not that network."""
    return from_published(read_weights(folder))
