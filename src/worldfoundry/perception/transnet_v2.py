"""TransNet V2: a network that finds cuts in tiny video (arXiv 2008.04838); its inner activations describe clips.

Three stages of dilated (2+1)-D convolutions see 27x48 pixels over long spans of time; two further branches compare each frame with
the 50 before and after it, by learned features and by colour histograms.
Legend: B clips, T frames, C channels, H = 27, W = 48, K = 101 frames compared, D features.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill, read_weights
from worldfoundry.perception.folding import fold_norm

HEIGHT, WIDTH = 27, 48
LOOKUP = 101
DILATIONS = (1, 2, 4, 8)
FILTERS = (16, 32, 64)  # of one dilation in each stage
FEATURES = sum(FILTERS) * len(DILATIONS)


class DilatedConvs(nn.Module):
    """Four (2+1)-D convolutions of growing reach in time side by side, then batch normalisation."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.space = nn.ModuleList(nn.Conv3d(inputs, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False) for _ in DILATIONS)
        self.time = nn.ModuleList(
            nn.Conv3d(2 * filters, filters, (3, 1, 1), padding=(d, 0, 0), dilation=(d, 1, 1), bias=False) for d in DILATIONS
        )
        self.norm = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        # The four see the same input frame by frame, so in space they are one wide convolution of pictures.
        kernels = torch.cat([kernel[:, :, 0] for kernel in self.space.parameters()])
        wide = F.conv2d(as_pictures(x_BCTHW), kernels, padding=1)
        # In time they are convolutions of pictures T high and H x W wide.
        weight, bias = fold_norm(torch.cat(list(self.time.parameters())), self.norm)
        parts = []
        for d, x, w, b in zip(DILATIONS, wide.chunk(4, 1), weight.chunk(4), bias.chunk(4), strict=True):
            x = rearrange(x, "(b t) c h w -> b c t (h w)", b=len(x_BCTHW)).contiguous(memory_format=torch.channels_last)
            parts.append(F.conv2d(x, w[..., 0], b, padding=(d, 0), dilation=(d, 1)))
        return torch.cat(parts, 1).unflatten(3, x_BCTHW.shape[3:])


class Stage(nn.Module):
    """Two `DilatedConvs` with a shortcut from the first to the end, then half the size in space."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.first, self.second = DilatedConvs(inputs, filters), DilatedConvs(4 * filters, filters)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        shortcut = F.relu(self.first(x_BCTHW), inplace=True)
        y_BCTHW = F.relu(self.second(shortcut), inplace=True) + shortcut
        return rearrange(F.avg_pool2d(as_pictures(y_BCTHW), 2), "(b t) c h w -> b c t h w", b=len(x_BCTHW))


def as_pictures(x_BCTHW: Tensor) -> Tensor:
    """The frames of all clips as a batch of pictures, channels last: faster on a CPU than 3-D operations."""
    return rearrange(x_BCTHW, "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)


class TransNetV2(nn.Module):
    """uint8 video in, logits of "a cut is here" per frame out; `features` gives one vector per clip."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *(4 * f for f in FILTERS))
        self.stages = nn.ModuleList(Stage(i, f) for i, f in zip(inputs, FILTERS, strict=False))
        self.projection = nn.Linear(FEATURES, 128)
        self.similarity, self.histogram = nn.Linear(LOOKUP, 128), nn.Linear(LOOKUP, 128)
        self.hidden = nn.Linear(4 * FILTERS[-1] * 3 * 6 + 256, 1024)
        self.cut, self.transition = nn.Linear(1024, 1), nn.Linear(1024, 1)

    def features(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 [B, T, 27, 48, 3] → [B, 448]: the mean over time and space of every stage's activations, each >= 0."""
        return torch.cat([x.mean((2, 3, 4)) for x in self._stages(frames_BTHWC)], 1)

    def forward(self, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, T, 27, 48, 3] → logits [B, T] of the last frame before a cut, and of any frame of a transition."""
        maps = self._stages(frames_BTHWC)
        means_BTD = torch.cat([x.mean((3, 4)) for x in maps], 1).transpose(1, 2)
        similar_BTK = neighbours(F.normalize(self.projection(means_BTD), dim=-1))
        colours_BTK = neighbours(colour_histograms(frames_BTHWC))
        flat_BTD = maps[-1].permute(0, 2, 3, 4, 1).flatten(2)
        parts = [F.relu(self.histogram(colours_BTK)), F.relu(self.similarity(similar_BTK)), flat_BTD]
        hidden_BTD = F.relu(self.hidden(torch.cat(parts, -1)))
        return self.cut(hidden_BTD)[..., 0], self.transition(hidden_BTD)[..., 0]

    def _stages(self, frames_BTHWC: Tensor) -> list[Tensor]:
        x_BCTHW = frames_BTHWC.permute(0, 4, 1, 2, 3).float() / 255
        maps = []
        for stage in self.stages:
            x_BCTHW = stage(x_BCTHW)
            maps.append(x_BCTHW)
        return maps


def neighbours(x_BTD: Tensor) -> Tensor:
    """[B, T, K]: the product of each frame's vector with those of the 50 frames before it, itself, and the 50 after; 0 outside."""
    reach = LOOKUP // 2
    products_BTT = F.pad(x_BTD @ x_BTD.transpose(1, 2), (reach, reach))
    t = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    window_TK = t[:, None] + torch.arange(LOOKUP, device=x_BTD.device)
    return products_BTT.gather(2, window_TK.expand(len(x_BTD), -1, -1))


def colour_histograms(frames_BTHWC: Tensor) -> Tensor:
    """[B, T, 512] of length 1: how often each colour (3 bits per channel) occurs in a frame."""
    r, g, b = (frames_BTHWC.int() >> 5).flatten(2, 3).unbind(-1)
    counts_BTD = torch.zeros(*frames_BTHWC.shape[:2], 512, device=frames_BTHWC.device)
    bins = ((r << 6) + (g << 3) + b).long()
    return F.normalize(counts_BTD.scatter_add_(2, bins, torch.ones_like(bins, dtype=counts_BTD.dtype)), dim=-1)


_NAMES = {
    "frame_sim_layer.projection": "projection",
    "frame_sim_layer.fc": "similarity",
    "color_hist_layer.fc": "histogram",
    "fc1": "hidden",
    "cls_layer1": "cut",
    "cls_layer2": "transition",
}


def from_published(state: dict[str, Tensor]) -> TransNetV2:
    """An eval-mode network without gradients from the tensors as published (`SDDCNN.0.DDCNN.0.Conv3D_1.layers.0`, …)."""
    names = dict(_NAMES)
    for stage in range(len(FILTERS)):
        for i, half in enumerate(("first", "second")):
            theirs, ours = f"SDDCNN.{stage}.DDCNN.{i}", f"stages.{stage}.{half}"
            names[f"{theirs}.bn"] = f"{ours}.norm"
            for d, dilation in enumerate(DILATIONS):
                names[f"{theirs}.Conv3D_{dilation}.layers.0"] = f"{ours}.space.{d}"
                names[f"{theirs}.Conv3D_{dilation}.layers.1"] = f"{ours}.time.{d}"
    renamed = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        renamed[f"{names.get(module, module)}.{kind}"] = tensor
    net = TransNetV2()
    fill(net, renamed, where="the TransNet V2 checkpoint")
    return net.eval().requires_grad_(False)


def load_transnet_v2(folder: Path) -> TransNetV2:
    """Read `model.safetensors` of a fetched `transnetv2`. Raises CheckpointError if it is not that network."""
    return from_published(read_weights(folder))
