"""Train a diffusion decoder on a world and a discrete tokenizer; leaves a decoder folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.adapters import base_hashes
from worldfoundry.inference.load import load, load_tokenizer
from worldfoundry.inference.token_decoder import TokenDecoderConfig, check_tokenizers, decoder_network, save_token_decoder
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.nn.lora import new_lora
from worldfoundry.recipes.train_decoder_config import TrainDecoderConfig
from worldfoundry.recipes.train_decoder_data import decoder_columns
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer
from worldfoundry.training.config import DiffusionLossConfig
from worldfoundry.training.loop import claim, train
from worldfoundry.training.methods.decoder import DecoderMethod
from worldfoundry.training.methods.diffusion import DiffusionMethod
from worldfoundry.training.streams import TensorStream


@dataclass(frozen=True, kw_only=True)
class DecoderRun:
    """What `train_decoder` leaves: the decoder folder, and the facts of its training."""

    folder: Path
    facts: dict[str, Any]


def train_decoder(config: TrainDecoderConfig) -> DecoderRun:
    """Encode what is not cached, train (or resume, or find finished) and export OUT/decoder. Raises UsageError for unfit input."""
    dataset, device = ClipDataset(config.data), pick_device(config.device)
    world, latents, tokens = _parts(config, device)
    base, made_by = base_hashes(world.network), base_hashes(tokens)
    identity = {
        "recipe": "decoder", "config": config.hash(), "data": dataset.hash(), "world": base[0], "tokenizer": made_by[0],
    }  # fmt: skip
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    rows = decoder_columns(config, dataset, world, latents, tokens)
    method = decoder_method(config, world, tokens)
    stream = TensorStream(rows, config.batch_size, config.loop.seed)
    result = train(method, stream, config.loop, config.out, identity=identity, title="diffusion decoder")
    result.ema.copy_to(method.module)
    facts = provenance(
        recipe="train decoder", world=str(config.world), tokenizer=str(config.tokenizer), config=config.to_dict(),
        data=dataset.hash(), windows=len(rows["tokens"]), steps=result.steps, hours=round(result.seconds / 3600, 4),
        precision=result.precision, final_loss=round(result.final_loss, 5),
        parameters=sum(p.numel() for p in method.module.parameters()),
    )  # fmt: skip
    about = TokenDecoderConfig(
        world=str(config.world), world_weights=tuple(base), tokenizer=str(config.tokenizer), tokenizer_weights=tuple(made_by),
        token_codes=tokens.config.codebook_size, token_channels=config.token_channels,
        lora_scale=1.0 if config.lora.alpha is None else config.lora.alpha / config.lora.rank,
        scheduler=world.scheduler.replace(
            schedule="karras", shift=1.0, sigma_max=config.sigma_max, sigma_min=config.sigma_min, final_sigmas_type="zero"
        ),
        num_inference_steps=config.num_inference_steps, guidance_scale=config.guidance_scale,
        chunk_frames=rows["latents"].shape[2], overlap_frames=min(2, max(rows["latents"].shape[2] - 1, 1)),
    )  # fmt: skip
    folder = save_token_decoder(
        config.out / "decoder", method.module.lora, method.module.coarse, about, provenance=facts, card=_card(config, facts),
        overwrite=True,
    )  # fmt: skip
    write_json(config.out / "metrics.json", {"final_loss": facts["final_loss"], "steps": result.steps})
    return DecoderRun(folder=folder, facts=facts)


def decoder_method(config: TrainDecoderConfig, world: DiffusionWorld, tokens: DiscreteTokenizer) -> DecoderMethod:
    """The world's network with a fresh adapter: at the first step it computes what the world does."""
    network = decoder_network(world.network, tokens.config.codebook_size, config.token_channels, seed=config.loop.seed)
    lora = new_lora(network, config.lora.targets, rank=config.lora.rank, alpha=config.lora.alpha, seed=config.loop.seed)
    loss = DiffusionLossConfig(
        parametrization=world.scheduler.parametrization, sigma_data=world.scheduler.sigma_data, sigma_mean=config.sigma_mean,
        sigma_std=config.sigma_std, prefix_weights=(1.0,), text_dropout=0.0, change_weight=0.0,
    )  # fmt: skip
    no_text = torch.zeros(1, world.config.context_rows, network.config.crossattn_emb_channels)
    drawer = DiffusionMethod(
        network, loss, no_text, fps=world.config.fps, frame_levels=world.scheduler.frame_levels,
        augment_sigma=world.scheduler.augment_sigma, token_dropout=config.token_dropout,
    )  # fmt: skip
    return DecoderMethod(lora, drawer)


def _parts(config: TrainDecoderConfig, device: torch.device) -> tuple[DiffusionWorld, Tokenizer, DiscreteTokenizer]:
    """The world, its tokenizer and the discrete one, in float32. Raises CheckpointError where they do not fit."""
    world = load(config.world, dtype=torch.float32, device=device)
    if not isinstance(world, DiffusionWorld):
        raise CheckpointError(
            f"{str(config.world)!r} is no diffusion world.", "Give --world a world folder or a shipped world."
        )
    if not isinstance(world.tokenizer, Tokenizer):
        raise CheckpointError(f"The tokenizer of {str(config.world)!r} cannot be used in training: diffusers holds it.")
    tokens = load_tokenizer(config.tokenizer, dtype=torch.float32, device=device)
    check_tokenizers(tokens, world.tokenizer)
    assert isinstance(tokens, DiscreteTokenizer)  # just checked
    return world, world.tokenizer, tokens


def _card(config: TrainDecoderConfig, facts: dict[str, Any]) -> str:
    return f"""---
library_name: worldfoundry
tags: [world-model, video-diffusion, lora, tokenizer]
---

# A diffusion decoder for the tokens of {config.tokenizer.name}: an adapter of {config.world.name}

Low-rank additions (rank {config.lora.rank}) and token embeddings, {facts["parameters"] / 1e6:.2f} M parameters, trained for
{facts["steps"]} steps ({facts["hours"]} h) on {machine(facts["hardware"])}. Recipe, data hash, seed: `provenance.json`.

It reads tokens of that tokenizer alone and fits the weights of that world alone (`config.json` has their hashes).
"""
