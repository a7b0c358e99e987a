"""Train an autoregressive world model on the tokens of curated clips; leaves a world.

Axis legend: N windows or captions, T H W latent frames/rows/columns, M text rows, D width of a text row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.conditioning.t5 import T5TextEncoder
from worldfoundry.conditioning.text import TextEncoder, text_encoder
from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.core.files import write_json
from worldfoundry.core.progress import say
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_folder import save_ar_world
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.load import load_tokenizer
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.recipes.base_tokens import TokenBase, read_token_base, start_network, token_size
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.latents import LatentSet, encode_stages
from worldfoundry.recipes.plan import Group, joined_stream, plan
from worldfoundry.recipes.token_validation import token_scores, token_validator
from worldfoundry.recipes.train_autoregressive_config import TrainAutoregressiveConfig
from worldfoundry.recipes.train_tokenizer import encode
from worldfoundry.recipes.windows import Split, check_window, frame_rates, split, spread_windows
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer
from worldfoundry.training.distributed import main_first, only_main_goes_on, process_group
from worldfoundry.training.loop import TrainResult, claim, train
from worldfoundry.training.methods.autoregressive import AutoregressiveMethod
from worldfoundry.training.streams import SharedStream, TensorStream

ROWS_MULTIPLE = 64  # the published context lengths are multiples of it
ENCODE_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class AutoregressiveRun:
    """What `train_autoregressive` leaves: the world's folder, and what was measured on held-out windows."""

    folder: Path
    metrics: dict[str, float]
    facts: dict[str, Any]


@process_group()
def train_autoregressive(config: TrainAutoregressiveConfig) -> AutoregressiveRun:
    """Tokenize, train (or resume, or find finished) and export OUT/world. Raises UsageError or DataError for unfit input."""
    dataset, device = ClipDataset(config.data), pick_device(config.device)
    base = read_token_base(config.init)
    tokenizer = discrete_tokenizer(config.tokenizer, base, device)
    parts = split(dataset, config.window)
    check_window(config.window, tokenizer.spec)
    encoder = _encoder(config)
    size = token_size(config.model, base, config.init)
    network_config = shaped(size, config.window, tokenizer.spec, 0 if encoder is None else encoder.width)
    _check_prefix(config, network_config)
    identity = _identity(config, dataset, tokenizer, base)
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    stages = plan(config, dataset, parts, tokenizer.spec)
    with main_first():
        sets = encode_stages(dataset, stages, tokenizer, config.out / "tokens")
    captions = sorted({record.caption for found in sets.values() for record in found.records}) if encoder else []

    def stream(group: Group) -> SharedStream:
        return TensorStream(columns(sets[group.name], captions), group.batch_size, config.loop.seed)

    network = start_network(network_config, base, config.loop.seed).to(device)
    held_out = held_out_tokens(config.validation.data, dataset, parts, config.window, tokenizer, config.validation.windows)
    judge = token_validator(network, held_out, config.loss.prefix_latents)
    if network.medusa is not None:
        network.medusa.requires_grad_(False)  # `train medusa` teaches them, when the rest is done
    method = AutoregressiveMethod(network, config.loss, text_contexts(encoder, captions))
    result = train(
        method, joined_stream(stages, stream, image_share=config.image_share, seed=config.loop.seed), config.loop, config.out,
        identity=identity, callback=judge, callback_every_s=config.validation.every_s, title="autoregressive world",
    )  # fmt: skip
    only_main_goes_on()
    trained = Transformer(network_config).to(device)  # a network of its own: the one above may be compiled, or split
    result.ema.copy_to(trained)
    metrics = token_scores(trained, held_out, config.loss.prefix_latents)
    world = _world(config, trained, tokenizer, frame_rates(parts), encoder)
    return _export(config, dataset, parts, world, metrics, result)


def discrete_tokenizer(asked: Path | None, base: TokenBase | None, device: torch.device) -> DiscreteTokenizer:
    """The one asked for, or the base's. Raises UsageError for a continuous one, none at all, or another than the base's."""
    own = None if base is None else base.tokenizer
    if asked is None:
        if own is None:
            raise UsageError(
                "The checkpoint to go on from names no tokenizer.", "Give the one it was trained with: --tokenizer."
            )
        return own.to(device)
    tokenizer = load_tokenizer(asked, dtype=torch.float32, device=device)
    if not isinstance(tokenizer, DiscreteTokenizer):
        raise UsageError(
            f"{str(asked)!r} is a continuous tokenizer: it has no codes to predict.",
            "Give a discrete one, such as nano-dv8x16x16; continuous ones are for `train diffusion`.",
        )
    if own is not None and tokenizer_identity(own) != tokenizer_identity(tokenizer):
        raise UsageError(f"{str(asked)!r} is not the tokenizer of the world to go on from.", "Leave --tokenizer out.")
    return tokenizer


def shaped(size: TransformerConfig, window: WindowConfig, spec: TokenizerSpec, text_width: int) -> TransformerConfig:
    """A size's network for these windows, codes and text rows."""
    shape = (spec.latent_frames(window.num_frames), window.height // spec.h, window.width // spec.w)
    rows = prod(shape) + size.bov
    return size.replace(
        vocab_size=prod(spec.levels),
        latent_shape=shape,
        max_seq_len=-(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE,
        context_dim=text_width,
    )


def _encoder(config: TrainAutoregressiveConfig) -> TextEncoder | None:
    if config.text == "none":
        return None
    if config.text == "t5":
        assert config.t5 is not None  # the config's validator saw to it
        return T5TextEncoder(config.t5 / "text_encoder", config.t5 / "tokenizer", config.context_rows)
    return text_encoder("minilm", config.context_rows)


def text_contexts(encoder: TextEncoder | None, captions: list[str]) -> TextContext | None:
    """Rows and masks of the distinct captions. A caption without a word is rows of zeros, all of them attended to."""
    if encoder is None:
        return None
    rows_NMD = encoder.encode(captions).float().cpu()
    mask_NM = rows_NMD.ne(0).any(dim=-1)
    return TextContext(rows_BMD=rows_NMD, mask_BM=mask_NM | ~mask_NM.any(dim=1, keepdim=True))


def columns(windows: LatentSet, captions: list[str]) -> dict[str, Tensor]:
    """Columns for a stream: `indices` [N, T, H, W] and, where there are captions, `caption` [N], their rows."""
    if not captions:
        return {"indices": windows.latents}
    rows = {caption: row for row, caption in enumerate(captions)}
    return {"indices": windows.latents, "caption": torch.tensor([rows[record.caption] for record in windows.records])}


def _check_prefix(config: TrainAutoregressiveConfig, network: TransformerConfig) -> None:
    given, frames = config.loss.prefix_latents, network.latent_shape[0]
    if given >= frames:
        raise UsageError(
            f"loss.prefix_latents gives {given!r} latent frames, but a window of {config.window.num_frames!r} frames has {frames}: "
            "nothing would be left to learn.",
            "Raise --window.num-frames, or lower --loss.prefix-latents.",
        )


def _identity(
    config: TrainAutoregressiveConfig, dataset: ClipDataset, tokenizer: DiscreteTokenizer, base: TokenBase | None
) -> dict[str, Any]:
    """What makes two runs the same run; `tokens` alone decides what the cache holds."""
    tokens = {"data": dataset.hash(), "tokenizer": tokenizer_identity(tokenizer), "window": config.window.to_dict()}
    init = {} if base is None else {"init": base.weights}
    return {"recipe": "autoregressive", "config": config.hash(), "tokens": tokens, **init}


def held_out_tokens(
    others: tuple[Path, ...], dataset: ClipDataset, parts: Split, window: WindowConfig, tokenizer: DiscreteTokenizer, count: int
) -> Mapping[str, Tensor]:
    """Indices [N, T, H, W] of up to `count` windows of other data sets (by folder name), or of the held-out sources.

    Raises DataError for a data set without a clip as long as a window.
    """
    if not others:
        return {"held out": _indices(dataset, parts.held_out, window, tokenizer, count)}
    found = {}
    for folder in others:
        other = ClipDataset(folder)
        long = [record for record in other.records if record.num_frames >= window.num_frames]
        if not long:
            raise DataError(f"No clip of {str(folder)!r} has {window.num_frames} frames.", "Leave it out of --validation.data.")
        found[folder.name] = _indices(other, long, window, tokenizer, count)
    return found


def _indices(
    dataset: ClipDataset, records: list[Any], window: WindowConfig, tokenizer: DiscreteTokenizer, count: int
) -> Tensor:
    frames = torch.from_numpy(np.stack([w.frames for w in spread_windows(dataset, records, window, count)]))
    codes = torch.cat([encode(tokenizer, batch) for batch in frames.split(ENCODE_BATCH)])
    return tokenizer.quantizer.codes_to_indices(codes)


def _world(
    config: TrainAutoregressiveConfig, network: Transformer, tokenizer: DiscreteTokenizer, rates: list[float],
    encoder: TextEncoder | None,
) -> AutoregressiveWorld:  # fmt: skip
    """Makes videos like the training windows. An input gives up to one latent frame more than training always gave."""
    most = min(config.loss.prefix_latents + 1, network.config.latent_shape[0] - 1)
    defaults = AutoregressiveDefaults(
        num_frames=config.window.num_frames,
        height=config.window.height,
        width=config.window.width,
        fps=rates[0],
        frame_rates=tuple(rates) if len(rates) > 1 else (),
        num_prefix_frames=1 + (most - 1) * tokenizer.spec.t,
        text_encoder=config.text,
        context_rows=config.context_rows,
    )
    return AutoregressiveWorld(network.eval().requires_grad_(False), tokenizer, defaults, encoder=encoder)


def _export(
    config: TrainAutoregressiveConfig, dataset: ClipDataset, parts: Split, world: AutoregressiveWorld,
    metrics: dict[str, float], result: TrainResult,
) -> AutoregressiveRun:  # fmt: skip
    facts = provenance(
        recipe="train autoregressive", config=config.to_dict(), data=dataset.hash(), tokenizer=tokenizer_identity(world.tokenizer),
        seed=config.loop.seed, steps=result.steps, hours=round(result.seconds / 3600, 4), precision=result.precision,
        final_loss=round(result.final_loss, 5), parameters=sum(p.numel() for p in world.network.parameters()), metrics=metrics,
        held_out_sources=sorted({record.source_id for record in parts.held_out}),
    )  # fmt: skip
    folder = save_ar_world(config.out / "world", world, provenance=facts, card=_card(config, facts), overwrite=True)
    write_json(config.out / "metrics.json", {"final_loss": facts["final_loss"], "steps": result.steps, **metrics})
    say(f"{facts['parameters'] / 1e6:.2f} M parameters after {result.steps} steps")
    return AutoregressiveRun(folder=folder, metrics=metrics, facts=facts)


def _card(config: TrainAutoregressiveConfig, facts: dict[str, Any]) -> str:
    scores = facts["metrics"]
    return f"""---
library_name: worldfoundry
tags: [world-model, autoregressive, video]
---

# An autoregressive world model ({config.model or config.init or "nano"}, {facts["parameters"] / 1e6:.1f} M parameters)

Trained for {facts["steps"]} steps ({facts["hours"]} h) on {machine(facts["hardware"])}, {config.window.num_frames} frames of
{config.window.height}x{config.window.width}, {config.loss.prefix_latents} latent frame(s) given. On held-out windows its next token costs
{scores["held_out_nll"]} nats (knowing nothing: {scores["uniform_nll"]}), and its likeliest token is the right one in
{100 * scores["held_out_accuracy"]:.1f} % of cases (copying the latent frame before: {100 * scores["copy_accuracy"]:.1f} %).
Recipe, data hash, seed: `provenance.json`.
"""
