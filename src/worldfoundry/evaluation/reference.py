"""LPIPS, FID and FVD by their own names: only with the published files, which a user brings (tier `reference`).

torchvision's VGG16 is known by the hash in its file name. Inception and I3D were published as TorchScript, which is a program: it
runs in a process of its own, and its SHA-256 goes into the protocol, so that numbers of two different files are never compared.

Axis legend: N clips, F future frames, K frames of a clip that count, D features, H height, W width, C = 3 (RGB). Clips are uint8.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from worldfoundry.core.contracts import Tier
from worldfoundry.core.errors import CheckpointError, DataError
from worldfoundry.core.model_store import file_sha256, get_model
from worldfoundry.evaluation.distributions import DistributionMetric, FrechetDistance
from worldfoundry.evaluation.features import FRAMES_PER_CLIP, as_pictures, spread

if TYPE_CHECKING:
    from worldfoundry.evaluation.perceptual import Perceptual

VGG16_SHA256 = "397923af"  # the first digits, as in the published name vgg16-397923af.pth
I3D_SIZE, I3D_FRAMES = 224, 10

# argv: TorchScript file, arrays in (.npz: one array per call), features out (.npy), and the call's own keyword arguments.
RUN = """
import json, sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[5]))
net = torch.jit.load(sys.argv[1], map_location="cpu").eval()
options = json.loads(sys.argv[4])
with torch.inference_mode(), np.load(sys.argv[2]) as arrays:
    found = [net(torch.from_numpy(arrays[name]), **options).float().numpy() for name in arrays.files]
np.save(sys.argv[3], np.stack(found))
"""


@dataclass(frozen=True, kw_only=True)
class TorchScriptFeatures:
    """A published TorchScript network as a `FeatureExtractor`: float64 [N, K, D].

    `prepare` turns one clip's future into the call's input; `options` is JSON of keyword arguments of the call.
    """

    name: str
    file: Path
    features: int
    prepare: Callable[[np.ndarray], np.ndarray]
    options: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    tier: Tier = "reference"

    def parameters(self) -> Mapping[str, Any]:
        return {"network": self.name, "file": file_sha256(self.file), **self.setting}

    def __call__(self, futures_NFHWC: np.ndarray) -> np.ndarray:
        import torch

        with tempfile.TemporaryDirectory(prefix="worldfoundry-") as folder:
            arrays, out = Path(folder) / "in.npz", Path(folder) / "out.npy"
            np.savez(arrays, *(self.prepare(clip) for clip in futures_NFHWC))
            command = [
                sys.executable,
                "-c",
                RUN,
                *map(str, (self.file, arrays, out)),
                self.options,
                str(torch.get_num_threads()),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise CheckpointError(
                    f"{self.file.name!r} could not be run as {self.name}: {reason}", "Is it the published file?"
                )
            found = np.load(out).astype(np.float64)
        if found.ndim != 3 or found.shape[-1] != self.features:
            raise CheckpointError(
                f"{self.file.name!r} gives features of shape {found.shape[1:]}, {self.name} gives {self.features} numbers.",
                "Is it the published file?",
            )
        return found


def inception_frames(clip_FHWC: np.ndarray) -> np.ndarray:
    """Some frames as uint8 [K, 3, H, W]; the network resizes by itself."""
    return np.ascontiguousarray(clip_FHWC[spread(len(clip_FHWC), FRAMES_PER_CLIP)].transpose(0, 3, 1, 2))


def i3d_clip(clip_FHWC: np.ndarray) -> np.ndarray:
    """float32 [1, 3, F, 224, 224] in [-1, 1]: short side to 224 (bilinear, not antialiased), centre crop, as TokenBench does.

    Raises DataError for fewer than 10 frames, which the network's strides do not survive.
    """
    import torch.nn.functional as F

    if len(clip_FHWC) < I3D_FRAMES:
        raise DataError(f"FVD needs clips of at least {I3D_FRAMES} future frames, got {len(clip_FHWC)}.", "Leave FVD out.")
    pictures = as_pictures(clip_FHWC)
    height, width = (round(size * I3D_SIZE / min(pictures.shape[2:])) for size in pictures.shape[2:])
    pictures = F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False)
    top, left = (height - I3D_SIZE) // 2, (width - I3D_SIZE) // 2
    cropped = pictures[:, :, top : top + I3D_SIZE, left : left + I3D_SIZE]
    return cropped.permute(1, 0, 2, 3)[None].contiguous().numpy()


def _fid(file: Path) -> DistributionMetric:
    setting = {"frames_per_clip": FRAMES_PER_CLIP}
    extractor = TorchScriptFeatures(
        name="inception",
        file=file,
        features=2048,
        prepare=inception_frames,
        options='{"return_features": true}',
        setting=setting,
    )
    return FrechetDistance(extractor, name="FID")


def _fvd(file: Path) -> DistributionMetric:
    extractor = TorchScriptFeatures(
        name="i3d",
        file=file,
        features=400,
        prepare=i3d_clip,
        options='{"rescale": false, "resize": false, "return_features": true}',
        setting={"resize": "short side 224, bilinear, centre crop"},
    )
    return FrechetDistance(extractor, name="FVD")


def _lpips(file: Path) -> "Perceptual":
    import torch

    from worldfoundry.evaluation.perceptual import Perceptual
    from worldfoundry.perception.lpips import with_heads
    from worldfoundry.perception.vgg16 import from_torchvision

    if not file_sha256(file).startswith(VGG16_SHA256):
        raise CheckpointError(
            f"{file.name!r} is not torchvision's ImageNet VGG16 (SHA-256 {VGG16_SHA256}…), so its distances are not LPIPS.",
            "Get vgg16-397923af.pth, or use LPIPS-like[hed-vgg16].",
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise CheckpointError(f"{file.name!r} cannot be read: {str(error).splitlines()[0]}.") from error
    return Perceptual(with_heads(from_torchvision(state), get_model("lpips-heads")), name="LPIPS", tier="reference")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A metric that exists only with a published file: which, the flag that gives it, and what there is without it."""

    file: Literal["vgg16", "inception", "i3d"]
    what: str
    instead: str
    build: Callable[[Path], Any]

    @property
    def flag(self) -> str:
        return f"--weights.{self.file}"


REFERENCE: dict[str, Reference] = {
    "LPIPS": Reference(file="vgg16", what="torchvision's vgg16-397923af.pth", instead="LPIPS-like[hed-vgg16]", build=_lpips),
    "FID": Reference(
        file="inception", what="NVIDIA's inception-2015-12-05.pt (TorchScript)", instead="KD[effnet-lite0]", build=_fid
    ),
    "FVD": Reference(file="i3d", what="StyleGAN-V's i3d_torchscript.pt", instead="KD[transnetv2]", build=_fvd),
}
