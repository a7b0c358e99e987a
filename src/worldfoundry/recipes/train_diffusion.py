"""Train a diffusion world model on curated clips in the latent space of a tokenizer; leaves a world folder.

Axis legend: L context rows, D context width, A action numbers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldfoundry.conditioning.text import NullTextEncoder, TextEncoder, text_encoder
from worldfoundry.core.config import stable_hash
from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import DataError, DownloadError, UsageError
from worldfoundry.core.files import write_json
from worldfoundry.core.progress import say
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.clips import ClipDataset
from worldfoundry.diffusion.config import DiTConfig, dit_size
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import WorldDefaults
from worldfoundry.inference.load import load_tokenizer
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.nn.rope import BASE_FPS
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.recipes.latents import LatentSet, action_rms, encode_windows
from worldfoundry.recipes.windows import Split, check_window, split
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.loop import TrainResult, claim, train
from worldfoundry.training.methods.diffusion import DiffusionMethod
from worldfoundry.training.streams import TensorStream

MINILM_WIDTH = 384


@dataclass(frozen=True, kw_only=True)
class DiffusionRun:
    """What `train_diffusion` leaves: the world folder, the world itself, and which records were held out."""

    folder: Path
    world: DiffusionWorld
    parts: Split
    facts: dict[str, Any]


def train_diffusion(config: TrainDiffusionConfig) -> DiffusionRun:
    """Encode, train (or resume, or find finished) and export OUT/world. Raises UsageError or DataError for unfit input."""
    dataset, device = ClipDataset(config.data), pick_device(config.device)
    with_actions = _wants_actions(config, dataset)
    parts = split(dataset, config.window, need_actions=with_actions)
    tokenizer = load_tokenizer(config.tokenizer, dtype=torch.float32, device=device)
    check_window(config.window, tokenizer.spec)
    _check_prefix(config, tokenizer)
    identity = _identity(config, dataset, tokenizer)
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    latents = encode_windows(
        dataset, parts.train, config.window, tokenizer, config.out / "latents", stable_hash(identity["latents"])
    )
    encoder = pick_text_encoder(config, latents.captions)
    rms = action_rms(latents.actions_NFA) if with_actions and latents.actions_NFA is not None else None
    dit = _dit_config(config, tokenizer, latents, rms)
    network = DiT(dit, seed=config.loop.seed).to(device)
    fps = _one_fps(parts)
    method = DiffusionMethod(network, config.loss, encoder.encode(latents.captions), fps=fps)
    stream = TensorStream(latents.rows(rms, tokenizer.spec.t), config.batch_size, config.loop.seed)
    result = train(method, stream, config.loop, config.out, identity=identity, title="world model")
    trained = DiT(dit).to(device)  # a network of its own: the one above may be compiled for one batch size
    result.ema.copy_to(trained)
    world = _world(config, trained, tokenizer, encoder, rms, dataset, fps)
    return _export(config, dataset, parts, world, result)


def pick_text_encoder(config: TrainDiffusionConfig, captions: list[str]) -> TextEncoder:
    """MiniLM where asked for or, with `auto`, where captions exist and its weights can be had; zeros otherwise."""
    if config.text == "none" or (config.text == "auto" and not any(captions)):
        return NullTextEncoder(MINILM_WIDTH, config.context_rows)
    try:
        return text_encoder("minilm", config.context_rows)
    except DownloadError as error:
        if config.text == "minilm":
            raise
        say(f"training without text: {error.message}")
        return NullTextEncoder(MINILM_WIDTH, config.context_rows)


def _wants_actions(config: TrainDiffusionConfig, dataset: ClipDataset) -> bool:
    have = any(record.has_actions for record in dataset.records)
    if config.actions == "on" and not have:
        raise DataError(
            "None of the clips has actions.", "Curate videos with `.episode.parquet` files beside them, or use --actions off."
        )
    return have and config.actions != "off" and bool(dataset.action_names)  # names: clips that disagree are refused here


def _most_given(config: TrainDiffusionConfig) -> int:
    """The most latent frames that training gives as a prefix."""
    return max(n for n, weight in enumerate(config.loss.prefix_weights) if weight > 0)


def _check_prefix(config: TrainDiffusionConfig, tokenizer: Tokenizer) -> None:
    given, frames = _most_given(config), tokenizer.spec.latent_frames(config.window.num_frames)
    if given >= frames:
        raise UsageError(
            f"loss.prefix_weights gives up to {given} latent frames, but a window of {config.window.num_frames!r} frames has "
            f"{frames}: nothing would be left to learn.",
            "Raise --window.num-frames, or give fewer --loss.prefix-weights.",
        )


def _identity(config: TrainDiffusionConfig, dataset: ClipDataset, tokenizer: Tokenizer) -> dict[str, Any]:
    """What makes two runs the same run; `latents` alone decides what the cache holds."""
    latents = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokenizer), "window": config.window.to_dict()}
    return {"recipe": "diffusion", "config": config.hash(), "latents": latents}


def _dit_config(config: TrainDiffusionConfig, tokenizer: Tokenizer, latents: LatentSet, rms: torch.Tensor | None) -> DiTConfig:
    size = dit_size(config.model)
    channels = tokenizer.spec.channels
    return size.replace(
        in_channels=channels,
        out_channels=channels,
        patch_spatial=config.patch_spatial or size.patch_spatial,
        condition_mask=True,
        crossattn_emb_channels=MINILM_WIDTH,
        uncertainty=config.loss.uncertainty,
        prefix_context=config.prefix_context,
        action_dim=0 if rms is None else 2 * tokenizer.spec.t * len(rms),
    )


def _one_fps(parts: Split) -> float:
    """What the model is told; images have no rate and count as 24, as RoPE takes them."""
    rates = [round(record.fps, 3) or BASE_FPS for record in parts.train]
    if len(set(rates)) == 1:
        return rates[0]
    say(f"clips have different frame rates ({', '.join(f'{r:g}' for r in sorted(set(rates)))}); the model is told their mean")
    return sum(rates) / len(rates)


def _world(
    config: TrainDiffusionConfig, network: DiT, tokenizer: Tokenizer, encoder: TextEncoder, rms: torch.Tensor | None,
    dataset: ClipDataset, fps: float,
) -> DiffusionWorld:  # fmt: skip
    most = _most_given(config)
    defaults = WorldDefaults(
        num_frames=config.window.num_frames,
        height=config.window.height,
        width=config.window.width,
        fps=fps,
        num_prefix_frames=1 + (most - 1) * tokenizer.spec.t if most else 0,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=0.0,
        text_encoder="minilm" if encoder.name == "minilm" else "none",
        context_rows=config.context_rows,
        action_names=() if rms is None else tuple(dataset.action_names),
        action_rms=() if rms is None else tuple(float(v) for v in rms),
    )
    scheduler = config.scheduler.replace(sigma_data=config.loss.sigma_data, parametrization=config.loss.parametrization)
    return DiffusionWorld(network.eval().requires_grad_(False), tokenizer, scheduler, defaults, encoder=encoder)


def _export(
    config: TrainDiffusionConfig, dataset: ClipDataset, parts: Split, world: DiffusionWorld, result: TrainResult
) -> DiffusionRun:
    facts = provenance(
        recipe="train diffusion", config=config.to_dict(), data=dataset.hash(), seed=config.loop.seed, steps=result.steps,
        hours=round(result.seconds / 3600, 4), precision=result.precision, final_loss=round(result.final_loss, 5),
        parameters=sum(p.numel() for p in world.network.parameters()),
        held_out_sources=sorted({record.source_id for record in parts.held_out}),
    )  # fmt: skip
    folder = save_world(config.out / "world", world, provenance=facts, card=_card(config, facts), overwrite=True)
    write_json(config.out / "metrics.json", {"final_loss": facts["final_loss"], "steps": result.steps})
    return DiffusionRun(folder=folder, world=world, parts=parts, facts=facts)


def _card(config: TrainDiffusionConfig, facts: dict[str, Any]) -> str:
    return f"""---
library_name: worldfoundry
tags: [world-model, video-diffusion]
---

# A diffusion world model ({config.model}, {facts["parameters"] / 1e6:.1f} M parameters)

Trained for {facts["steps"]} steps ({facts["hours"]} h) on {machine(facts["hardware"])}, {config.window.num_frames} frames
of {config.window.height}x{config.window.width}. It continues clips of the world that it was trained on; the run's report
shows what it gets right and wrong on held-out clips. Recipe, data hash, seed: `provenance.json`.

    worldfoundry generate --world . --input FIRST.png --out out.mp4
"""
