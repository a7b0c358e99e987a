"""RetinaFace with ResNet-50 (arXiv 1905.00641): faces by one pass of a feature pyramid; the detector of Cosmos' face filter.

Its weights are not shipped; the state dict's names are those of the published Resnet50_Final.pth (Pytorch_Retinaface), with or
without `module.` before them. Pixels go in as BGR minus (104, 117, 123). The heads for the five points of a face are loaded and not run.
Anchors: at strides 8, 16 and 32 two squares each, centred on each cell; a box is an anchor moved and scaled by its answers.
Legend: B pictures, C channels, H height, W width, A anchors, N boxes (left, top, right, bottom).
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill
from worldfoundry.core.errors import CheckpointError
from worldfoundry.perception.boxes import best_boxes
from worldfoundry.perception.mtcnn import Faces

MEAN_BGR = (104.0, 117.0, 123.0)
ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # stride, sides
VARIANCE = (0.1, 0.2)  # of the answers: centre, logarithm of the size
BEST, OVERLAP, MOST = 5000, 0.4, 750  # before suppression, its limit, after it: Cosmos' values
CHANNELS, BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """ResNet's block with its stride in the 3x3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        short = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
        self.downsample = nn.Sequential(short, nn.BatchNorm2d(4 * width)) if project else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        y_BCHW = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y_BCHW)))))
        return F.relu(y_BCHW + (x_BCHW if self.downsample is None else self.downsample(x_BCHW)))


class Body(nn.Module):
    """ResNet-50 without its head; gives the maps at strides 8, 16 and 32."""

    def __init__(self, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, channels[0], 7, 2, 3, bias=False), nn.BatchNorm2d(channels[0])
        inputs = channels[0]
        for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            stages = []
            for j in range(count):
                stages.append(Bottleneck(inputs, width, 2 if i and not j else 1, project=not j))
                inputs = 4 * width
            self.add_module(f"layer{i + 1}", nn.Sequential(*stages))

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        x_BCHW = F.max_pool2d(F.relu(self.bn1(self.conv1(x_BCHW))), 3, 2, 1)
        maps = []
        for i in range(1, 5):
            x_BCHW = getattr(self, f"layer{i}")(x_BCHW)
            maps.append(x_BCHW)
        return maps[1:]


def conv_norm(inputs: int, outputs: int, kernel: int, *, relu: bool = True, leak: float = 0.0) -> nn.Sequential:
    """Convolution, batch normalisation, and (leaky) ReLU unless it is summed or joined first."""
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.LeakyReLU(leak)] if relu else []))


class Pyramid(nn.Module):
    """Every map in the same number of channels, each with the coarser ones added to it."""

    def __init__(self, inputs: Sequence[int], width: int, leak: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (conv_norm(i, width, 1, leak=leak) for i in inputs)
        self.merge1, self.merge2 = (conv_norm(width, width, 3, leak=leak) for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:]))
        return [self.merge1(fine + F.interpolate(middle, size=fine.shape[2:])), middle, coarse]


class Context(nn.Module):
    """What a 3x3, a 5x5 and a 7x7 window see, side by side (the last two as chains of 3x3)."""

    def __init__(self, width: int, leak: float) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.conv3X3 = conv_norm(width, half, 3, relu=False)
        self.conv5X5_1 = conv_norm(width, quarter, 3, leak=leak)
        self.conv5X5_2 = conv_norm(quarter, quarter, 3, relu=False)
        self.conv7X7_2 = conv_norm(quarter, quarter, 3, leak=leak)
        self.conv7x7_3 = conv_norm(quarter, quarter, 3, relu=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.conv5X5_1(x_BCHW)
        return F.relu(torch.cat([self.conv3X3(x_BCHW), self.conv5X5_2(y_BCHW), self.conv7x7_3(self.conv7X7_2(y_BCHW))], 1))


class Head(nn.Module):
    """`answers` numbers for each of a cell's two anchors."""

    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        self.answers, self.conv1x1 = answers, nn.Conv2d(width, 2 * answers, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv1x1(x_BCHW).permute(0, 2, 3, 1).reshape(len(x_BCHW), -1, self.answers)


class RetinaFace(nn.Module):
    """uint8 pictures of one size in, `Faces` out. `channels`, `blocks` and `width` are ResNet-50's but in tests."""

    def __init__(self, channels: Sequence[int] = CHANNELS, blocks: Sequence[int] = BLOCKS, width: int = 256) -> None:
        super().__init__()
        leak = 0.1 if width <= 64 else 0.0
        self.body = Body(channels, blocks)
        self.fpn = Pyramid([4 * c for c in channels[1:]], width, leak)
        self.ssh1, self.ssh2, self.ssh3 = (Context(width, leak) for _ in range(3))
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(width, answers) for _ in ANCHORS) for answers in (2, 4, 10)
        )

    def answers(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """RGB in [0, 255] → moves [B, A, 4] and probabilities of a face [B, A]."""
        x_BCHW = x_BCHW.flip(1) - torch.tensor(MEAN_BGR)[:, None, None]
        levels = [ssh(x) for ssh, x in zip((self.ssh1, self.ssh2, self.ssh3), self.fpn(self.body(x_BCHW)), strict=True)]
        moves = torch.cat([head(x) for head, x in zip(self.BboxHead, levels, strict=True)], 1)
        logits = torch.cat([head(x) for head, x in zip(self.ClassHead, levels, strict=True)], 1)
        return moves, logits.softmax(-1)[..., 1]

    @torch.inference_mode()
    def forward(self, pictures_BHWC: np.ndarray, *, min_face: float = 20.0, confidence: float = 0.7) -> Faces:
        """uint8 RGB [B, H, W, 3] → faces of which the network is surer than `confidence`; it has no least size to set."""
        height, width = pictures_BHWC.shape[1:3]
        anchors_A4, found = anchors(height, width), []
        for picture, frame in enumerate(pictures_BHWC):
            moves, p = self.answers(torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None])
            scores_A = p[0].double().numpy()
            sure = (scores_A > confidence).nonzero()[0]
            sure = sure[np.argsort(-scores_A[sure], kind="stable")][:BEST]
            boxes_N4 = decode(moves[0, sure].double().numpy(), anchors_A4[sure])
            kept = best_boxes(boxes_N4, scores_A[sure], OVERLAP)[:MOST]
            found.append((boxes_N4[kept], scores_A[sure][kept], np.full(len(kept), picture)))
        boxes, scores, pictures = (np.concatenate(kind) for kind in zip(*found, strict=True))
        return Faces(boxes_N4=boxes, scores_N=scores, picture_N=pictures)


def anchors(height: int, width: int) -> np.ndarray:
    """(A, 4): centre x, centre y, width and height in pixels of each anchor, by level, row, column, side."""
    rows = []
    for stride, sides in ANCHORS:
        y, x, side = np.meshgrid(np.arange(-(-height // stride)), np.arange(-(-width // stride)), sides, indexing="ij")
        rows.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, side, side], -1).reshape(-1, 4))
    return np.concatenate(rows).astype(float)


def decode(moves_N4: np.ndarray, anchors_N4: np.ndarray) -> np.ndarray:
    """(N, 4) boxes: the centre moves by a share of the anchor's size, the size grows by an exponential."""
    centre = anchors_N4[:, :2] + moves_N4[:, :2] * VARIANCE[0] * anchors_N4[:, 2:]
    half = anchors_N4[:, 2:] * np.exp(moves_N4[:, 2:] * VARIANCE[1]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def load_retinaface(file: Path) -> RetinaFace:
    """Read Resnet50_Final.pth (weights only: no code runs) or the same tensors as safetensors; sizes are taken from the tensors.

    Raises CheckpointError for a file that is absent, damaged or another network's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise CheckpointError(
            f"The RetinaFace weights {str(file)!r} do not exist.", "Set faces.retinaface to Resnet50_Final.pth."
        )
    try:
        found = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"The RetinaFace weights {str(file)!r} cannot be read.", "Download them again.") from error
    weights: Any = found.get("state_dict", found) if isinstance(found, dict) else {}
    return from_published({str(name).removeprefix("module."): tensor for name, tensor in weights.items()}, str(file))


def from_published(state: dict[str, Tensor], where: str = "the RetinaFace weights") -> RetinaFace:
    """An eval-mode network without gradients from tensors under the published names. Raises CheckpointError."""
    try:
        channels = [state[f"body.layer{i}.0.conv1.weight"].shape[0] for i in range(1, 5)]
        blocks = [1 + max(int(name.split(".")[2]) for name in state if name.startswith(f"body.layer{i}.")) for i in range(1, 5)]
        width = state["fpn.output1.0.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{where!r} holds no RetinaFace with ResNet-50: {error} is missing.") from error
    net = RetinaFace(channels, blocks, width)
    fill(net, state, where=where)
    return net.float().eval().requires_grad_(False)
