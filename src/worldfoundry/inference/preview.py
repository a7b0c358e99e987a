"""Small pictures of a video while it is sampled: a linear map from latents to colours, fitted to the tokenizer.

Axis legend: B batch, C latent channels, T latent frames, F pixel frames, H height, W width, N samples.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.core.errors import GuardError
from worldfoundry.core.files import atomic_path
from worldfoundry.core.progress import say
from worldfoundry.inference.sampling import StepCallback

if TYPE_CHECKING:
    from worldfoundry.inference.world import DiffusionWorld

CLIPS, SIDE = 8, 8  # fitted on so many clips of one latent frame and the next, of SIDE x SIDE latents
SMALLEST = 96  # pixels that a picture is at least high


class LatentPreview:
    """RGB ≈ weight · latent + bias at every latent position: least squares over decoded latents, made at the first call."""

    def __init__(self, tokenizer: VideoTokenizer) -> None:
        self.tokenizer = tokenizer
        self._map: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, z_BCTHW: Tensor) -> np.ndarray:
        """Normalised latents → uint8 [B, T, H, W, 3], a pixel per latent."""
        if self._map is None:
            self._map = fit_latent_to_rgb(self.tokenizer, z_BCTHW.device)
        ones = torch.ones_like(z_BCTHW[:, :1], dtype=torch.float32)
        rgb = torch.einsum("bcthw,cr->bthwr", torch.cat([z_BCTHW.float(), ones], dim=1), self._map)
        return rgb.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def fit_latent_to_rgb(tokenizer: VideoTokenizer, device: torch.device) -> Tensor:
    """[C + 1, 3]: the map from normalised latents (and 1) to the mean colour of the pixels that each stands for."""
    spec = tokenizer.spec
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(CLIPS, 3, 2, SIDE // 2, SIDE // 2, generator=generator) * 2 - 1
    size = (1 + spec.t, SIDE * spec.h, SIDE * spec.w)
    x_BCFHW = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True).to(device)
    z_BCTHW = tokenizer.encode(x_BCFHW)
    x_BCFHW = tokenizer.decode(z_BCTHW).float()
    first = torch.nn.functional.avg_pool3d(x_BCFHW[:, :, :1], (1, spec.h, spec.w))
    after = torch.nn.functional.avg_pool3d(x_BCFHW[:, :, 1:], (spec.t, spec.h, spec.w))
    rgb_N3 = torch.cat([first, after], dim=2).movedim(1, -1).flatten(0, -2)
    z_NC = tokenizer.normalize(z_BCTHW).float().movedim(1, -1).flatten(0, -2)
    design = torch.cat([z_NC, torch.ones_like(z_NC[:, :1])], dim=1)
    return torch.linalg.lstsq(design.cpu(), rgb_N3.cpu()).solution.to(device)


def save_previews(world: "DiffusionWorld", out: Path, every: int, fps: float | None = None) -> StepCallback:
    """A `callback_on_step_end` that writes OUT.step012.png after every `every` steps: the first sample's latent frames in a row.

    A preview shows what is being made, so the world's video guards look at each, and one they object to is not written.
    """
    preview = LatentPreview(world.tokenizer)

    def callback(step: int, steps: int, x0_BCTHW: Tensor) -> None:
        if (step + 1) % every or step + 1 == steps:
            return
        with world.running(world.tokenizer):
            frames = preview(x0_BCTHW[:1] / world.scheduler.sigma_data)[0]
        enlarged = frames.repeat(scale := -(-SMALLEST // frames.shape[1]), axis=1).repeat(scale, axis=2)
        try:
            enlarged, _ = world.guardrails.release(enlarged, fps or world.config.fps, what="preview")
        except GuardError as error:
            say(f"the preview of step {step + 1} is not written: {error.message}")
            return
        _write_strip(out.with_suffix(f".step{step + 1:03d}.png"), enlarged)

    return callback


def _write_strip(path: Path, frames_THWC: np.ndarray) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(list(frames_THWC), axis=1)).save(temporary, format="PNG")
