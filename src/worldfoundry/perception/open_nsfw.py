"""OpenNSFW (Yahoo, 2016): how likely a picture shows nudity or sex; ResNet-50 (arXiv 1512.03385) with half the channels.

The batch normalisations are part of the published convolutions, so each convolution has a bias. The stride of a stage is in its
first 1x1 convolution, as in the original ResNet. It was trained on pictures of 224 x 224 pixels.
It says nothing about violence or anything else, and little about drawings.
Legend: B pictures, C channels, H height, W width.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill
from worldfoundry.perception.packaged import read_packaged

NAME = "open-nsfw"
SHA256 = "3c5532278b9d3a7dcb4aab41d42a85e9e2ef3e6f70cdb81cf07e5225c8c6478b"
SIZE = 224  # pixels: what the network was trained on
MEAN_BGR = (104.0, 117.0, 123.0)

# (channels inside a block, blocks, stride of the first) of each stage; a block gives four times its inner channels.
STAGES = ((32, 3, 1), (64, 4, 2), (128, 6, 2), (256, 3, 2))


class Block(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, width, 1, stride)
        self.filter = nn.Conv2d(width, width, 3, padding=1)
        self.widen = nn.Conv2d(width, 4 * width, 1)
        self.shortcut = nn.Conv2d(inputs, 4 * width, 1, stride) if project else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.widen(F.relu_(self.filter(F.relu_(self.reduce(x_BCHW)))))
        return F.relu_(y_BCHW + (x_BCHW if self.shortcut is None else self.shortcut(x_BCHW)))


class OpenNSFW(nn.Module):
    """RGB pictures in [0, 255] in, the probability of "not safe for work" out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        blocks, channels = [], 64
        for width, count, stride in STAGES:
            for i in range(count):
                blocks.append(Block(channels, width, stride if i == 0 else 1, project=i == 0))
                channels = 4 * width
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, 2)  # safe, not safe
        self.mean_C: Tensor
        self.register_buffer("mean_C", torch.tensor(MEAN_BGR), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, 3, H, W] RGB in [0, 255] (trained at 224 x 224) → [B] in [0, 1]."""
        x_BCHW = x_BCHW.flip(1) - self.mean_C[:, None, None]
        x_BCHW = F.relu_(self.stem(x_BCHW.contiguous(memory_format=torch.channels_last)))  # faster on a CPU
        x_BCHW = F.max_pool2d(F.pad(x_BCHW, (0, 1, 0, 1)), 3, 2)  # nothing is below 0 after the ReLU
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return self.classifier(x_BCHW.mean((2, 3))).softmax(-1)[:, 1]


def from_published(state: dict[str, Tensor]) -> OpenNSFW:
    """An eval-mode network without gradients from the initialisers of the published ONNX file, by their names.

    The 3x3 convolutions have only numbers there, which grow with the depth; the others say stage, block and branch.
    """
    net = OpenNSFW()
    places = [(stage, block) for stage, (_, count, _) in enumerate(STAGES) for block in range(count)]
    numbered = sorted({int(name[len("Conv__") :].split("_")[0]) for name in state if name.startswith("Conv__")})
    modules = dict(
        zip((f"Conv__{number}" for number in numbered), ["stem", *(f"blocks.{i}.filter" for i in range(16))], strict=True)
    )
    for i, (stage, block) in enumerate(places):
        for theirs, ours in (("branch2a", "reduce"), ("branch2c", "widen"), ("proj_shortcut", "shortcut")):
            modules[f"conv_stage{stage}_block{block}_{theirs}/BiasAdd"] = f"blocks.{i}.{ours}"
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("fc_nsfw"):
            renamed["classifier.weight" if "MatMul" in name else "classifier.bias"] = (
                tensor.T.contiguous() if tensor.ndim == 2 else tensor
            )
            continue
        module, _, kind = re.sub(r"(weight|bias)s?_fused_bn$", r"\1", name).rpartition("_")
        renamed[f"{modules.get(module, module)}.{kind}"] = tensor
    fill(net, renamed, where="the OpenNSFW file")
    return net.eval().requires_grad_(False)


def load_open_nsfw() -> OpenNSFW:
    """The network that comes with the package (half-precision weights, computed in float32). Raises CheckpointError."""
    net = OpenNSFW()
    fill(net, read_packaged(NAME, SHA256), where="the packaged OpenNSFW")
    return net.eval().requires_grad_(False)
