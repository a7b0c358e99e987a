"""Teach an autoregressive world's Medusa heads on its training's tokens; leaves the world with them.

Axis legend: N windows, T H W latent frames/rows/columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.conditioning.text import text_encoder
from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import CheckpointError, DataError
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.ar_folder import save_ar_world
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.load import load
from worldfoundry.recipes.base_tokens import TokenBase, start_network, weights_hash
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.latents import LatentSet, encode_stages
from worldfoundry.recipes.plan import Group, Stage
from worldfoundry.recipes.token_validation import head_scores, head_validator
from worldfoundry.recipes.train_autoregressive import columns, held_out_tokens, text_contexts
from worldfoundry.recipes.train_medusa_config import TrainMedusaConfig
from worldfoundry.recipes.windows import Split, check_window, split
from worldfoundry.training.distributed import main_first, only_main_goes_on, process_group
from worldfoundry.training.loop import TrainResult, claim, train
from worldfoundry.training.methods.medusa import MedusaMethod
from worldfoundry.training.streams import TensorStream


@dataclass(frozen=True, kw_only=True)
class MedusaRun:
    """What `train_medusa` leaves: the world's folder, and how often its heads are right on held-out windows."""

    folder: Path
    metrics: dict[str, float]


@process_group()
def train_medusa(config: TrainMedusaConfig) -> MedusaRun:
    """Tokenize or take cached tokens, train (or resume) and export OUT/world. Raises UsageError or DataError for unfit input."""
    dataset, device = ClipDataset(config.data), pick_device(config.device)
    world = _world(config.world)
    window = trained_window(world)
    check_window(window, world.tokenizer.spec)
    parts = _parts(world, split(dataset, window))
    base = TokenBase(network=world.network, tokenizer=world.tokenizer, weights=weights_hash(world.network))
    identity = {"recipe": "medusa", "config": config.hash(), "data": dataset.hash(), "world": base.weights}
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    with main_first():
        windows = _tokens(config, dataset, parts, world, window)
    texts, captions = _texts(world, windows)
    shape = world.network.config.replace(medusa_heads=config.medusa.heads or world.network.config.medusa_heads)
    network = start_network(shape, base, config.loop.seed).to(device)
    held_out = held_out_tokens(
        config.validation.data, dataset, parts, window, world.tokenizer.to(device), config.validation.windows
    )
    method = MedusaMethod(network, config.medusa, config.loss, texts)
    result = train(
        method, TensorStream(columns(windows, captions), config.batch_size, config.loop.seed), config.loop, config.out,
        identity=identity, callback=head_validator(network, held_out, config.loss.prefix_latents),
        callback_every_s=config.validation.every_s, title="Medusa heads",
    )  # fmt: skip
    only_main_goes_on()
    trained = Transformer(shape)
    result.ema.copy_to(trained)
    metrics = head_scores(trained, held_out, config.loss.prefix_latents)
    return _export(config, dataset, world, trained, metrics, result)


def _world(name: Path) -> AutoregressiveWorld:
    world = load(name, dtype=torch.float32)
    if not isinstance(world, AutoregressiveWorld):
        raise CheckpointError(
            f"{str(name)!r} is no autoregressive world.", "Give --world a folder that `train autoregressive` wrote."
        )
    return world


def trained_window(world: AutoregressiveWorld) -> WindowConfig:
    """The window of the world's training where its provenance tells, or one of the world's default size."""
    recipe = world.provenance.get("config")
    known = recipe.get("window") if isinstance(recipe, Mapping) else None
    if isinstance(known, dict):
        return WindowConfig.from_dict(known, where="the world's provenance")
    own = world.config
    return WindowConfig(num_frames=own.num_frames, height=own.height, width=own.width)


def _parts(world: AutoregressiveWorld, parts: Split) -> Split:
    """Without the sources that the world's training held out."""
    held_out = set(world.provenance.get("held_out_sources", ()))
    train_records = [record for record in parts.train if record.source_id not in held_out]
    if not train_records:
        raise DataError("All clips come from sources that the world holds out.", "Give the clips that it was trained on.")
    return Split(train=train_records, held_out=parts.held_out, skipped=parts.skipped)


def _tokens(
    config: TrainMedusaConfig, dataset: ClipDataset, parts: Split, world: AutoregressiveWorld, window: WindowConfig
) -> LatentSet:
    group = Group(window=window, records=parts.train, batch_size=config.batch_size, padded=False, images=False)
    folder = config.tokens or config.out / "tokens"
    folder = folder / group.name if (folder / group.name).is_dir() else folder  # a training in stages has a folder for each
    return encode_stages(dataset, [Stage(share=1.0, groups=[group])], world.tokenizer, folder)[group.name]


def _texts(world: AutoregressiveWorld, windows: LatentSet) -> tuple[TextContext | None, list[str]]:
    if world.config.text_encoder == "none":
        return None, []
    captions = sorted({record.caption for record in windows.records})
    encoder = world.encoder or text_encoder(world.config.text_encoder, world.config.context_rows)
    return text_contexts(encoder, captions), captions


def _export(
    config: TrainMedusaConfig, dataset: ClipDataset, world: AutoregressiveWorld, network: Transformer,
    metrics: dict[str, float], result: TrainResult,
) -> MedusaRun:  # fmt: skip
    heads = provenance(
        recipe="train medusa", world=str(config.world), config=config.to_dict(), data=dataset.hash(), seed=config.loop.seed,
        steps=result.steps, hours=round(result.seconds / 3600, 4), precision=result.precision, metrics=metrics,
        final_loss=round(result.final_loss, 5),
    )  # fmt: skip
    facts = {name: value for name, value in world.provenance.items() if name != "folder"}
    facts |= {"medusa": heads, "parameters": sum(p.numel() for p in network.parameters())}
    defaults = world.config.replace(speculate="medusa", draft_length=network.config.medusa_heads)
    made = AutoregressiveWorld(
        network.eval().requires_grad_(False), world.tokenizer.cpu(), defaults, encoder=world.encoder, provenance=facts
    )
    folder = save_ar_world(config.out / "world", made, provenance=facts, card=_card(config, heads), overwrite=True)
    write_json(config.out / "metrics.json", {"final_loss": heads["final_loss"], "steps": result.steps, **metrics})
    return MedusaRun(folder=folder, metrics=metrics)


def _card(config: TrainMedusaConfig, heads: dict[str, Any]) -> str:
    scores, learned = heads["metrics"], config.medusa.last_layers
    rates = ", ".join(f"{100 * scores[f'accuracy_{k + 1}']:.1f} %" for k in range(sum("accuracy_" in name for name in scores)))
    with_it = f"the last {learned} blocks and the unembedding learned along" if learned else "nothing else was changed"
    return f"""---
library_name: worldfoundry
tags: [world-model, autoregressive, video, speculative-decoding]
---

# {config.world.name} with Medusa heads

Heads trained for {heads["steps"]} steps ({heads["hours"]} h) on {machine(heads["hardware"])}; {with_it}. On held-out windows their
likeliest guesses at the tokens 2, 3, … ahead are right in {rates}; of a pass's guesses {scores["confirmed"]:.2f} are confirmed on average
in greedy decoding. Speculation never changes what is generated. How world and heads were made: `provenance.json`.
"""
