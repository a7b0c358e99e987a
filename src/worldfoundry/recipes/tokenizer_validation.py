"""What a tokenizer does to held-out clips: PSNR, SSIM, use of the codebook, and pictures to look at.

Axis legend: N clips, B batch, T frames, H height, W width, C = 3 (RGB).
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worldfoundry.core.files import atomic_path
from worldfoundry.evaluation.ssim import SSIM_WINDOW, ssim
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer
from worldfoundry.training.ema import EMA
from worldfoundry.training.methods.tokenizer import to_float, to_uint8

PREVIEW_FRAMES = 6
BATCH = 4


def validator(
    tokenizer: Tokenizer, video_NTHWC: Tensor, previews: Path, preview_clips: int
) -> Callable[[int, EMA], dict[str, float]]:
    """A callback of the training loop: measures the averaged weights, writes PREVIEWS/step_N.jpg, returns the numbers."""
    averaged = copy.deepcopy(tokenizer).eval().requires_grad_(False)

    def validate(step: int, ema: EMA) -> dict[str, float]:
        ema.copy_to(averaged)
        made = reconstruct(averaged, video_NTHWC)
        if preview_clips:
            write_preview(previews / f"step_{step:08d}.jpg", video_NTHWC.numpy()[:preview_clips], made[:preview_clips])
        return {**scores(video_NTHWC.numpy(), made), **code_usage(averaged, video_NTHWC)}

    return validate


@torch.inference_mode()
def reconstruct(tokenizer: Tokenizer, video_NTHWC: Tensor, batch_size: int = BATCH) -> np.ndarray:
    """uint8 clips → uint8 clips through the tokenizer: the ceiling of any model in its latent space."""
    return np.concatenate([to_uint8(tokenizer(x)).cpu().numpy() for x in _batches(tokenizer, video_NTHWC, batch_size)])


def scores(true_NTHWC: np.ndarray, made_NTHWC: np.ndarray) -> dict[str, float]:
    """Pooled PSNR in dB (squared errors of all pixels averaged first) and mean SSIM of frames (7x7 window), of uint8 clips."""
    squares = [
        np.square(a.astype(np.float32) - b.astype(np.float32)).mean() for a, b in zip(true_NTHWC, made_NTHWC, strict=True)
    ]
    found = {"held_out_psnr_db": round(float(20 * np.log10(255) - 10 * np.log10(max(float(np.mean(squares)), 1e-12))), 3)}
    if min(true_NTHWC.shape[2:4]) >= SSIM_WINDOW:
        similarity = np.mean([ssim(a, b).mean() for a, b in zip(true_NTHWC, made_NTHWC, strict=True)])
        found["held_out_ssim"] = round(float(similarity), 4)
    return found


@torch.inference_mode()
def code_usage(tokenizer: Tokenizer, video_NTHWC: Tensor) -> dict[str, float]:
    """For a discrete tokenizer the share of its codes that the clips use, and exp of the entropy of that use; else nothing.

    Both are limited by how many codes the clips hold: `codes_seen` of them.
    """
    if not isinstance(tokenizer, DiscreteTokenizer):
        return {}
    size = tokenizer.config.codebook_size
    counts = torch.zeros(size)
    for x in _batches(tokenizer, video_NTHWC, BATCH):
        counts += torch.bincount(tokenizer.encode_indices(x).flatten().long().cpu(), minlength=size)
    share = counts[counts > 0] / counts.sum()
    return {
        "code_usage": round(len(share) / size, 4),
        "code_perplexity": round(float((-(share * share.log()).sum()).exp()), 2),
        "codes_seen": int(counts.sum()),
    }


def write_preview(path: Path, true_NTHWC: np.ndarray, made_NTHWC: np.ndarray) -> Path:
    """A JPEG of frames spread over each clip: a row of originals, below it the row of reconstructions."""
    picks = np.unique(np.linspace(0, true_NTHWC.shape[1] - 1, PREVIEW_FRAMES).round().astype(int))
    rows = [np.concatenate(list(clip[picks]), axis=1) for pair in zip(true_NTHWC, made_NTHWC, strict=True) for clip in pair]
    gap = np.full((2, rows[0].shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for i, row in enumerate(rows) for part in ([gap, row] if i and i % 2 == 0 else [row])])
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, quality=92)
    return path


def _batches(tokenizer: Tokenizer, video_NTHWC: Tensor, batch_size: int) -> Iterator[Tensor]:
    device = next(tokenizer.parameters()).device
    for i in range(0, len(video_NTHWC), batch_size):
        yield to_float(video_NTHWC[i : i + batch_size]).to(device)
