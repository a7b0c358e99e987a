"""Perceptual and Gram terms: differences of a VGG's features, and of their correlations (arXiv 2501.03575, section 4.2).

As the released trainer has it: raw features after each of the five blocks, L1 for the perceptual term, squared differences of Gram
matrices over time and space for the style term, and the same layer weights for both. The trunk is the packaged VGG16 that an
edge detector was trained on from (HED), or a torchvision VGG that the user gives.

Axis legend: B batch, C channels, T frames, H height, W width, D feature channels.
"""

import pickle
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import torch
from einops import rearrange
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import get_model
from worldfoundry.perception.vgg16 import LPIPS_SCALE, Vgg16Trunk, load_hed_trunk

LAYER_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
# What torch's weights-only reader raises for bytes that are none, besides its own error.
NO_STATE_DICT = (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile, LookupError, ValueError, TypeError, AttributeError)
# HED's trunk takes bytes; the classifiers that the weights were made for take bytes divided by about 57. Features of a ReLU
# network grow with its input, so dividing them brings both to one scale.
BYTE_SCALE = sum(LPIPS_SCALE[1]) / 3


class VggFeatures(nn.Module):
    """Frozen features of pictures: five maps, on the scale of a torchvision VGG."""

    def __init__(self, trunk: Vgg16Trunk, divisor: float) -> None:
        super().__init__()
        self.trunk, self.divisor = trunk, divisor
        self.eval().requires_grad_(False)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """[B, 3, H, W] RGB in [-1, 1], at least 16x16 → five maps [B, D, H/2^i, W/2^i]."""
        return [features / self.divisor for features in self.trunk(x_BCHW)]


def load_features(file: Path | None = None) -> VggFeatures:
    """The packaged trunk (fetched on first use), or torchvision's VGG16 or VGG19 from a `.pth` or `.safetensors` file.

    Raises DownloadError, or CheckpointError for a file that is no such VGG.
    """
    if file is None:
        return VggFeatures(load_hed_trunk(get_model("hed-vgg16")), BYTE_SCALE)
    return VggFeatures(_torchvision_trunk(_read_state(file), str(file)), 1.0)


def perceptual_loss(features: list[Tensor], target: list[Tensor]) -> Tensor:
    """Σ wᵢ mean |fᵢ − tᵢ| over the five maps."""
    return sum_layers([(f.float() - t.float()).abs().mean() for f, t in zip(features, target, strict=True)])


def gram_loss(features: list[Tensor], target: list[Tensor], num_frames: int) -> Tensor:
    """Σ wᵢ mean (Gᵢ(f) − Gᵢ(t))²; the maps hold `num_frames` consecutive rows per clip."""
    pairs = zip(features, target, strict=True)
    return sum_layers([(gram(f, num_frames) - gram(t, num_frames)).square().mean() for f, t in pairs])


def gram(features_BDHW: Tensor, num_frames: int) -> Tensor:
    """Correlations of the D features over all frames and pixels of each clip: [clips, D, D]."""
    rows = rearrange(features_BDHW.float(), "(b t) d h w -> b d (t h w)", t=num_frames)
    with torch.autocast(rows.device.type, enabled=False):  # squares of features lose too much in bfloat16
        return rows @ rows.mT / rows.shape[-1]


def sum_layers(values: list[Tensor]) -> Tensor:
    """The weighted sum over the five layers."""
    return torch.stack([weight * value for weight, value in zip(LAYER_WEIGHTS, values, strict=True)]).sum()


def random_frames(clips: list[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """The same `count` different random frames of each clip from every [B, C, T, H, W], as [(B count), C, H, W]."""
    B, _, T = clips[0].shape[:3]
    chosen_BN = torch.rand(B, T, generator=generator).argsort(dim=1)[:, : min(count, T)].to(clips[0].device)
    rows_B1 = torch.arange(B, device=chosen_BN.device)[:, None]
    return [clip.transpose(1, 2)[rows_B1, chosen_BN].flatten(0, 1) for clip in clips]


def _read_state(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"The VGG file {str(file)!r} cannot be read: {error.strerror or error}.") from error
    except (*NO_STATE_DICT, SafetensorError) as error:
        raise CheckpointError(f"The VGG file {str(file)!r} is not a state dict of tensors.") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"The VGG file {str(file)!r} is not a state dict of tensors.")
    return state


def _torchvision_trunk(state: dict[str, Tensor], where: str) -> Vgg16Trunk:
    """torchvision numbers convolutions, ReLUs and poolings in one row: a gap of 3 between convolutions is a pooling."""
    kernels = {int(n.split(".")[1]): t for n, t in state.items() if n.startswith("features.") and n.endswith(".weight")}
    numbers = sorted(kernels)
    starts = [i for i, number in enumerate(numbers) if i == 0 or number - numbers[i - 1] == 3]
    lengths = [end - start for start, end in pairwise([*starts, len(numbers)])]
    if lengths not in ([2, 2, 3, 3, 3], [2, 2, 4, 4, 4]) or any(kernel.ndim != 4 for kernel in kernels.values()):
        raise CheckpointError(f"{where!r} is not torchvision's VGG16 or VGG19.", "Give the file without batch normalisation.")
    trunk = Vgg16Trunk(bgr=False, scale=LPIPS_SCALE)
    trunk.blocks = nn.ModuleList(
        nn.ModuleList(
            nn.Conv2d(kernels[n].shape[1], kernels[n].shape[0], 3, padding=1) for n in numbers[start : start + length]
        )
        for start, length in zip(starts, lengths, strict=True)
    )
    ours = [f"blocks.{i}.{j}" for i, length in enumerate(lengths) for j in range(length)]
    names = {f"features.{number}": name for number, name in zip(numbers, ours, strict=True)}
    kept = {name.rpartition(".") for name in state if name.startswith("features.")}
    fill(trunk, {f"{names[head]}.{kind}": state[f"{head}.{kind}"] for head, _, kind in kept}, where=where)
    return trunk
