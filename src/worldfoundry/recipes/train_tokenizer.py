"""Train or fine-tune a tokenizer on curated clips, measure it on held-out sources, store latent statistics.

Axis legend: B batch, C latent channels, T latent frames, H W latent rows/columns, F latent frames with own statistics.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.devices import fast_bfloat16, pick_device
from worldfoundry.core.errors import DataError
from worldfoundry.core.files import write_json
from worldfoundry.core.progress import say
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.data.windows import WindowSampler
from worldfoundry.inference.load import load_tokenizer
from worldfoundry.recipes.config import TrainTokenizerConfig, WindowConfig
from worldfoundry.recipes.tokenizer_validation import code_usage, reconstruct, scores, validator
from worldfoundry.recipes.windows import Split, check_window, split, spread_windows
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.tokenizers.even_start import even_start
from worldfoundry.tokenizers.linear_start import can_start_linear, linear_start
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.distributed import only_main_goes_on, process_group
from worldfoundry.training.loop import TrainResult, claim, train
from worldfoundry.training.method import BatchStream
from worldfoundry.training.methods.tokenizer import TokenizerMethod, to_float
from worldfoundry.training.prefetch import Prefetch
from worldfoundry.training.streams import ImageTurns

SAMPLE_WINDOWS = 96
QUIET = 0.1


@dataclass(frozen=True, kw_only=True)
class TokenizerRun:
    """What `train_tokenizer` leaves: the checkpoint folder and what was measured on held-out windows."""

    folder: Path
    metrics: dict[str, float]


class PixelStream:
    """A WindowSampler as a stream of uint8 tensors."""

    def __init__(self, sampler: WindowSampler) -> None:
        self.sampler = sampler

    def next_batch(self) -> dict[str, Tensor]:
        return {"video": torch.from_numpy(np.ascontiguousarray(next(self.sampler)["video"]))}

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)


@process_group()
def train_tokenizer(config: TrainTokenizerConfig) -> TokenizerRun:
    """Train (or resume, or find finished) and export OUT/tokenizer. Raises UsageError or DataError for unfit input."""
    dataset = ClipDataset(config.data)
    parts = split(dataset, config.window)
    device = pick_device(config.device)
    identity = {"recipe": "tokenizer", "config": config.hash(), "data": dataset.hash()}
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    torch.manual_seed(config.loop.seed)
    tokenizer = _start(config, dataset, parts).to(device)
    method = TokenizerMethod(tokenizer, config.loss, mirror=config.mirror)
    stream = Prefetch(_stream(config, dataset, parts, tokenizer))
    settings = config.validation
    judge = validator(
        tokenizer, _held_out(config, dataset, parts, settings.windows), config.out / "previews", settings.preview_clips
    )
    try:
        result = train(
            method, stream, config.loop, config.out, identity=identity, callback=judge, callback_every_s=settings.every_s,
            title="tokenizer",
        )  # fmt: skip
    finally:
        stream.close()
    only_main_goes_on()
    result.ema.copy_to(tokenizer)
    return _export(config, dataset, parts, tokenizer, result)


def _start(config: TrainTokenizerConfig, dataset: ClipDataset, parts: Split) -> Tokenizer:
    if config.init is not None:
        tokenizer = load_tokenizer(config.init, dtype=torch.float32)
        _check_windows(config, tokenizer)
        return tokenizer.requires_grad_(True)
    named = named_config(config.model)
    tokenizer = build_tokenizer(named.to_dict())
    _check_windows(config, tokenizer)
    if config.linear_start and can_start_linear(named):
        share = linear_start(tokenizer, to_float(_sample(config.window, dataset, parts.train, SAMPLE_WINDOWS)))
        say(f"tokenizer: starts as the best linear one, {100 * share:.1f} % of the variance kept")
    else:
        even_start(tokenizer)
    return tokenizer


def _check_windows(config: TrainTokenizerConfig, tokenizer: Tokenizer) -> None:
    check_window(config.window, tokenizer.spec)
    check_window(_validation_window(config), tokenizer.spec)


def _validation_window(config: TrainTokenizerConfig) -> WindowConfig:
    return config.window.replace(num_frames=config.validation.num_frames or config.window.num_frames)


def _sample(window: WindowConfig, dataset: ClipDataset, records: list[ClipRecord], count: int) -> Tensor:
    return torch.from_numpy(np.stack([w.frames for w in spread_windows(dataset, records, window, count)]))


def _held_out(config: TrainTokenizerConfig, dataset: ClipDataset, parts: Split, count: int) -> Tensor:
    """Windows of held-out sources, as long as validation wants them. Raises DataError if no held-out clip is so long."""
    window = _validation_window(config)
    records = [record for record in parts.held_out if record.num_frames >= window.num_frames]
    if not records:
        raise DataError(
            f"None of the {len(parts.held_out)} held-out clips has {window.num_frames} frames.",
            "Lower --validation.num-frames, or curate longer clips.",
        )
    return _sample(window, dataset, records, count)


def _stream(config: TrainTokenizerConfig, dataset: ClipDataset, parts: Split, tokenizer: Tokenizer) -> BatchStream:
    """Windows, with a batch of images every `image_every` batches."""
    stream = PixelStream(_sampler(config, dataset, parts))
    if not config.image_every:
        return stream
    per_clip = tokenizer.spec.latent_frames(config.window.num_frames)
    return ImageTurns(stream, every=config.image_every, per_clip=per_clip, seed=config.loop.seed)


def _sampler(config: TrainTokenizerConfig, dataset: ClipDataset, parts: Split) -> WindowSampler:
    window = config.window
    return WindowSampler(
        dataset,
        parts.train,
        num_frames=window.num_frames,
        size=(window.height, window.width),
        batch_size=config.batch_size,
        seed=config.loop.seed,
    )


def _export(
    config: TrainTokenizerConfig, dataset: ClipDataset, parts: Split, tokenizer: Tokenizer, result: TrainResult
) -> TokenizerRun:
    tokenizer.set_statistics(*latent_statistics(tokenizer, _sample(config.window, dataset, parts.train, 128)))
    metrics = held_out_metrics(tokenizer, _held_out(config, dataset, parts, 4 * config.validation.windows))
    facts = provenance(
        recipe="train tokenizer", config=config.to_dict(), data=dataset.hash(), seed=config.loop.seed, steps=result.steps,
        hours=round(result.seconds / 3600, 4), precision=result.precision, metrics=metrics,
        held_out_sources=sorted({r.source_id for r in parts.held_out}),
    )  # fmt: skip
    folder = config.out / "tokenizer"
    save_component(folder, tokenizer, kind="tokenizer", provenance=facts, card=_card(config, facts), overwrite=True)
    write_json(config.out / "metrics.json", metrics)
    return TokenizerRun(folder=folder, metrics=metrics)


@torch.inference_mode()
def latent_statistics(tokenizer: Tokenizer, video_NTHWC: Tensor, batch_size: int = 8) -> tuple[Tensor, Tensor]:
    """Mean per channel of the first latent frame and of the later ones, and one shared deviation, each [C, 2] ([C, 1]).

    The deviation is shared so that channels keep their relative size: small ones are fine detail, and standardising them
    would make the diffusion model spend its effort on noise.
    """
    z_BCTHW = torch.cat([encode(tokenizer, video_NTHWC[i : i + batch_size]) for i in range(0, len(video_NTHWC), batch_size)])
    if tokenizer.config.modality == "image":  # every frame is a first one
        z_BCTHW = rearrange(z_BCTHW, "b c t h w -> (b t) c 1 h w")
    groups = [z_BCTHW[:, :, :1]] + ([z_BCTHW[:, :, 1:]] if z_BCTHW.shape[2] > 1 else [])
    mean_CF = torch.stack([group.mean(dim=(0, 2, 3, 4)) for group in groups], dim=1)
    centred = z_BCTHW - mean_CF[:, [0] + [len(groups) - 1] * (z_BCTHW.shape[2] - 1)][None, :, :, None, None]
    return mean_CF, centred.std().expand_as(mean_CF).clone()


@torch.inference_mode()
def encode(tokenizer: Tokenizer, video_NTHWC: Tensor) -> Tensor:
    """uint8 clips → float32 latents on the CPU, not normalised. Computed in bfloat16 where that is faster."""
    device = next(tokenizer.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
        return tokenizer.encode(to_float(video_NTHWC).to(device)).float().cpu()


def held_out_metrics(tokenizer: Tokenizer, video_NTHWC: Tensor) -> dict[str, float]:
    """PSNR, SSIM and, for a discrete tokenizer, use of its codes over held-out windows."""
    found = scores(video_NTHWC.numpy(), reconstruct(tokenizer, video_NTHWC))
    return {**found, **code_usage(tokenizer, video_NTHWC), "held_out_windows": len(video_NTHWC)}


def _card(config: TrainTokenizerConfig, facts: dict[str, Any]) -> str:
    metrics, name = facts["metrics"], config.init.name if config.init else config.model
    ssim = f", SSIM {metrics['held_out_ssim']}" if "held_out_ssim" in metrics else ""
    codes = f" {100 * metrics['code_usage']:.0f} % of the codes occur in them." if "code_usage" in metrics else ""
    return f"""---
library_name: worldfoundry
tags: [video-tokenizer]
---

# A tokenizer ({name})

Trained for {facts["steps"]} steps ({facts["hours"]} h) on {machine(facts["hardware"])}.
Held-out PSNR {metrics["held_out_psnr_db"]} dB{ssim} over {metrics["held_out_windows"]} windows of unseen sources.{codes}
It knows the pictures that it was trained on and little else. Recipe, data hash and seed: `provenance.json`.
"""
