"""Train a diffusion world model on curated clips in the latent space of a tokenizer; leaves a world folder.

Axis legend: L context rows, D context width, A action numbers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldfoundry.conditioning.t5 import T5TextEncoder
from worldfoundry.conditioning.text import NullTextEncoder, TextEncoder, text_encoder
from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import DataError, DownloadError, UsageError
from worldfoundry.core.files import write_json
from worldfoundry.core.progress import say
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.buckets import nearest_aspect
from worldfoundry.data.clips import ClipDataset
from worldfoundry.diffusion.config import DiTConfig, dit_size
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import WorldDefaults
from worldfoundry.inference.load import load_tokenizer
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.recipes.base_world import Base, check_size, check_tokenizer, follow, read_base, start_from
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.recipes.diffusion_data import diffusion_data, trained_shapes
from worldfoundry.recipes.plan import Stage, plan
from worldfoundry.recipes.windows import Split, check_window, frame_rates, split
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.distributed import main_first, only_main_goes_on, process_group, rank_count
from worldfoundry.training.loop import TrainResult, claim, train
from worldfoundry.training.memory import check_memory, estimate_memory, trains_in_bfloat16
from worldfoundry.training.methods.diffusion import DiffusionMethod

MINILM_WIDTH = 384


@dataclass(frozen=True, kw_only=True)
class DiffusionRun:
    """What `train_diffusion` leaves: the world folder, the world itself, and which records were held out."""

    folder: Path
    world: DiffusionWorld
    parts: Split
    facts: dict[str, Any]


@process_group()
def train_diffusion(config: TrainDiffusionConfig) -> DiffusionRun:
    """Encode, train (or resume, or find finished) and export OUT/world. Raises UsageError or DataError for unfit input."""
    dataset, device = ClipDataset(config.data), pick_device(config.device)
    base = read_base(config)
    config = follow(config, base)
    with_actions = _wants_actions(config, dataset, base)
    need_actions = with_actions and config.actions != "optional"
    parts = split(dataset, config.window, need_actions=need_actions)
    tokenizer = _tokenizer(config, base, device)
    check_window(config.window, tokenizer.spec)
    _check_prefix(config, tokenizer)
    _check_suffix(config, tokenizer)
    identity = _identity(config, dataset, tokenizer, base)
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    patch = dit_config(config, tokenizer.spec, base=base).patch_spatial
    stages = plan(config, dataset, parts, tokenizer.spec, aspects=config.aspects, patch=patch, need_actions=need_actions)
    known = base.world.config.action_rms if base is not None else ()
    with main_first():
        data = diffusion_data(
            config, dataset, stages, tokenizer, with_actions=with_actions, known_rms_A=torch.tensor(known) if known else None
        )
    encoder = pick_text_encoder(config, data.captions, base)
    dit = dit_config(config, tokenizer.spec, encoder.width, 0 if data.rms_A is None else len(data.rms_A), base)
    network = _network(config, dit, base).to(device)
    _check_memory(config, network, stages, tokenizer.spec)
    rates = frame_rates(parts)
    method = DiffusionMethod(
        network, config.loss, encoder.encode(data.captions), fps=rates[0],
        frame_levels=config.scheduler.frame_levels, augment_sigma=config.scheduler.augment_sigma,
    )  # fmt: skip
    result = train(method, data.stream, config.loop, config.out, identity=identity, title="world model")
    only_main_goes_on()
    trained = DiT(dit).to(device)  # a network of its own: the one above may be compiled for one batch size
    result.ema.copy_to(trained)
    images = data.images or (None if base is None else base.world.config.image_latents)
    sizes = _sizes(config, trained_shapes(config, stages, tokenizer.spec.h * patch))
    world = _world(config, trained, tokenizer, encoder, data.rms_A, dataset, rates, {**sizes, "image_latents": images})
    return _export(config, dataset, parts, world, result)


def _tokenizer(config: TrainDiffusionConfig, base: Base | None, device: torch.device) -> Tokenizer:
    """The one asked for, or the base's."""
    if config.tokenizer is None:
        assert base is not None  # the config's validator saw to it
        return base.tokenizer.to(device)
    tokenizer = load_tokenizer(config.tokenizer, dtype=torch.float32, device=device)
    if base is not None:
        check_tokenizer(config, base, tokenizer)
    return tokenizer


def pick_text_encoder(config: TrainDiffusionConfig, captions: list[str], base: Base | None = None) -> TextEncoder:
    """MiniLM where asked for or, with `auto`, where captions exist and its weights can be had; T5 of a folder; or zeros.

    Raises UsageError where its rows do not fit the base, or T5 is asked for without a folder.
    """
    width = MINILM_WIDTH if base is None else base.width
    encoder = _t5(config, base) if config.text == "t5" else _minilm_or_zeros(config, captions, width)
    if base is not None and encoder.width != base.width:
        raise UsageError(
            f"The text encoder {encoder.name!r} gives rows of width {encoder.width}, but {str(config.init)!r} takes {base.width!r}.",
            "Leave --text out, or take none.",
        )
    return encoder


def _t5(config: TrainDiffusionConfig, base: Base | None) -> TextEncoder:
    if config.t5 is not None:
        return T5TextEncoder(config.t5 / "text_encoder", config.t5 / "tokenizer", config.context_rows)
    if base is None or not isinstance(base.world.encoder, T5TextEncoder):
        raise UsageError("T5 has no name to fetch it by.", "Give its folder with --t5, such as a published pipeline.")
    return base.world.encoder


def _minilm_or_zeros(config: TrainDiffusionConfig, captions: list[str], width: int) -> TextEncoder:
    if config.text == "none" or (config.text == "auto" and not any(captions)):
        return NullTextEncoder(width, config.context_rows)
    try:
        return text_encoder("minilm", config.context_rows)
    except DownloadError as error:
        if config.text == "minilm":
            raise
        say(f"training without text: {error.message}")
        return NullTextEncoder(width, config.context_rows)


def _wants_actions(config: TrainDiffusionConfig, dataset: ClipDataset, base: Base | None) -> bool:
    have = any(record.has_actions for record in dataset.records)
    if config.actions == "on" and not have:
        raise DataError(
            "None of the clips has actions.", "Curate videos with `.episode.parquet` files beside them, or use --actions off."
        )
    wanted = have and config.actions != "off" and bool(dataset.action_names)  # clips that disagree are refused here
    known = () if base is None else base.world.config.action_names
    if known and wanted and known != dataset.action_names:
        raise DataError(
            f"{str(config.init)!r} takes the actions {'/'.join(known)!r}, but the clips have {'/'.join(dataset.action_names)!r}.",
            "Use --actions off to go on without actions.",
        )
    if known and not wanted:
        say(f"going on without the actions of {str(config.init)!r}")
    return wanted


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


def _check_suffix(config: TrainDiffusionConfig, tokenizer: Tokenizer) -> None:
    least = min(n for n, weight in enumerate(config.loss.prefix_weights) if weight > 0)
    frames = tokenizer.spec.latent_frames(config.window.num_frames)
    if config.loss.suffix_share and least + 1 >= frames:
        raise UsageError(
            f"loss.suffix_share gives the last of {frames} latent frames, and loss.prefix_weights at least {least!r}: nothing "
            "would be left between.",
            "Raise --window.num-frames, or leave --loss.suffix-share out.",
        )


def _identity(config: TrainDiffusionConfig, dataset: ClipDataset, tokenizer: Tokenizer, base: Base | None) -> dict[str, Any]:
    """What makes two runs the same run; `latents` alone decides what the cache holds."""
    latents = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokenizer), "window": config.window.to_dict()}
    init = {} if base is None else {"init": base.weights}
    return {"recipe": "diffusion", "config": config.hash(), "latents": latents, **init}


def dit_config(
    config: TrainDiffusionConfig,
    spec: TokenizerSpec,
    text_width: int = MINILM_WIDTH,
    actions: int = 0,
    base: Base | None = None,
) -> DiTConfig:
    """The network's shape: a named size or the base's, for these latents, text rows and action numbers."""
    if base is not None:
        check_size(config, base)
    size = dit_size(config.model or "nano") if base is None else base.world.network.config
    return size.replace(
        in_channels=spec.channels,
        out_channels=spec.channels,
        patch_spatial=config.patch_spatial or size.patch_spatial,
        condition_mask=_most_given(config) > 0 or config.loss.suffix_share > 0 or (base is not None and size.condition_mask),
        crossattn_emb_channels=text_width,
        uncertainty=config.loss.uncertainty or (base is not None and size.uncertainty),
        prefix_context=config.prefix_context if config.prefix_context is not None else base is None or size.prefix_context,
        skip_gates=config.skip_gates if config.skip_gates is not None else base is None or size.skip_gates,
        action_dim=2 * spec.t * actions,
    )


def _network(config: TrainDiffusionConfig, dit: DiTConfig, base: Base | None) -> DiT:
    network = DiT(dit, seed=config.loop.seed)
    if base is not None:
        start_from(network, base.world.network)
        say(f"going on from {str(config.init)!r}, {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters")
    return network


def _check_memory(config: TrainDiffusionConfig, network: DiT, stages: list[Stage], spec: TokenizerSpec) -> None:
    """Say what the largest batch of all stages will need. Raises ResourceError where that is hopeless."""
    device, count = network.patch_embed.weight.device, rank_count()
    shapes = []
    for group in (group for stage in stages for group in stage.groups):
        w, clips = group.window, -(-group.batch_size * config.loop.parallel.context // count)
        shapes.append((clips, spec.latent_frames(w.num_frames), w.height // spec.h, w.width // spec.w))
    parameters = sum(p.numel() for p in network.parameters())
    bfloat16 = trains_in_bfloat16(config.loop, device)
    estimate = estimate_memory(parameters, network.config, shapes, config.loop, bfloat16=bfloat16, ranks=count)
    check_memory(estimate, device, config.loop)


def _sizes(config: TrainDiffusionConfig, shapes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """The world's own size and the shapes it knows: that of the window, or the trained one nearest to it."""
    w = config.window
    height, width = shapes[nearest_aspect(w.width, w.height, shapes)] if shapes else (w.height, w.width)
    return {"height": height, "width": width, "shapes": shapes}


def _world(
    config: TrainDiffusionConfig, network: DiT, tokenizer: Tokenizer, encoder: TextEncoder, rms: torch.Tensor | None,
    dataset: ClipDataset, rates: list[float], trained_on: dict[str, Any],
) -> DiffusionWorld:  # fmt: skip
    most = _most_given(config)
    defaults = WorldDefaults(
        num_frames=config.window.num_frames,
        fps=rates[0],
        frame_rates=tuple(rates) if len(rates) > 1 else (),
        num_prefix_frames=1 + (most - 1) * tokenizer.spec.t if most else 0,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=0.0,
        text_encoder="t5" if encoder.name == "t5" else "minilm" if encoder.name == "minilm" else "none",
        context_rows=config.context_rows,
        action_names=() if rms is None else tuple(dataset.action_names),
        action_rms=() if rms is None else tuple(float(v) for v in rms),
        **trained_on,
    )
    scheduler = config.scheduler.replace(sigma_data=config.loss.sigma_data, parametrization=config.loss.parametrization)
    return DiffusionWorld(network.eval().requires_grad_(False), tokenizer, scheduler, defaults, encoder=encoder)


def _export(
    config: TrainDiffusionConfig, dataset: ClipDataset, parts: Split, world: DiffusionWorld, result: TrainResult,
) -> DiffusionRun:  # fmt: skip
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

# A diffusion world model ({config.model or config.init}, {facts["parameters"] / 1e6:.1f} M parameters)

Trained for {facts["steps"]} steps ({facts["hours"]} h) on {machine(facts["hardware"])}, {config.window.num_frames} frames
of {config.window.height}x{config.window.width}. It continues clips of the world that it was trained on; the run's report
shows what it gets right and wrong on held-out clips. Recipe, data hash, seed: `provenance.json`.

    worldfoundry generate --world . --input FIRST.png --out out.mp4
"""
