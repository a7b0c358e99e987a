"""A diffusion world on disk, in the diffusers layout: `model_index.json`, `transformer/`, `vae/`, `scheduler/`.

Ours names its encoder of prompts, and other people's weights are not copied into the folder; a T5 encoder, which has no name
to fetch it by, lies in `text_encoder/` and `tokenizer/` as in a published pipeline.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from worldfoundry.conditioning.t5 import T5TextEncoder
from worldfoundry.core.checkpoint import FORMAT, write_component
from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import atomic_folder, read_fields, write_json
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.load import load_part
from worldfoundry.inference.offload import Level
from worldfoundry.inference.published import PARTS, PIPELINES, read_published
from worldfoundry.inference.shared_tokenizer import read_world_tokenizer, shared_entry, shared_with
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.nn.int8 import Int8Linear
from worldfoundry.tokenizers.tokenizer import Tokenizer

CLASS = "WorldFoundryDiffusionWorld"


def save_world(
    folder: Path,
    world: DiffusionWorld,
    *,
    provenance: Mapping[str, Any],
    card: str,
    overwrite: bool = False,
    shipped_tokenizer: str | None = None,
) -> Path:
    """Write a world folder, atomically. A T5 encoder is copied along; a tokenizer that ships with the package may be named instead.

    Raises CheckpointError for a tokenizer that is not ours, and for weights that are not the world's own (int8, offloaded).
    """
    if not isinstance(world.tokenizer, Tokenizer):
        raise CheckpointError(
            f"A world with a {type(world.tokenizer).__name__} cannot be written, because diffusers holds that network.",
            "Copy the folder that it was read from.",
        )
    if world.offloader is not None or any(isinstance(module, Int8Linear) for module in world.network.modules()):
        raise CheckpointError(
            "A world with int8 or offloaded weights is for generating, not for saving.", "Load it again without either."
        )
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        parts = (("transformer", "dit", world.network), ("vae", "tokenizer", world.tokenizer))
        for name, kind, part in parts[:1] if shipped_tokenizer else parts:
            state = {k: v.detach().cpu().contiguous() for k, v in part.state_dict().items()}
            write_component(temporary / name, part.config.to_dict(), state, kind=kind, provenance=provenance)
        (temporary / "scheduler").mkdir()
        write_json(temporary / "scheduler" / "scheduler_config.json", {"format": FORMAT, **world.scheduler.to_dict()})
        if isinstance(world.encoder, T5TextEncoder):
            shutil.copytree(world.encoder.encoder, temporary / "text_encoder")
            shutil.copytree(world.encoder.tokenizer, temporary / "tokenizer")
        index = {
            "_class_name": CLASS,
            "format": FORMAT,
            "transformer": ["worldfoundry", "dit"],
            "vae": shared_entry(shipped_tokenizer) if shipped_tokenizer else ["worldfoundry", "tokenizer"],
            "scheduler": ["worldfoundry", "edm"],
            "text_encoder": ["worldfoundry", world.config.text_encoder],
            "defaults": world.config.to_dict(),
        }
        write_json(temporary / "model_index.json", index)
        write_json(temporary / "provenance.json", dict(provenance))
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return folder


def load_world(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    offload: Level | Literal["auto"] = "auto",
    weights: Literal["stored", "int8"] = "stored",
) -> DiffusionWorld:
    """Read a world folder, ours or a published pipeline. Raises CheckpointError that names the missing part or unknown class.

    T5 is not read before the first prompt. Weights come to the CPU first: only then is known whether the device holds them.
    """
    index = read_fields(folder / "model_index.json")
    name = str(index.get("_class_name"))
    if name not in (CLASS, *PIPELINES):
        raise CheckpointError(
            f"{str(folder)!r} holds a {name!r}; worlds here are {', '.join((CLASS, *PIPELINES))}.",
            "The parts of another pipeline, such as its `transformer` and `vae` folders, load one by one.",
        )
    if name == CLASS:
        _check_parts(folder, [part for part in PARTS[:3] if part != "vae" or shared_with(index) is None])
        scheduler, defaults = _read_ours(folder, index)
    else:
        _check_parts(folder, PARTS)
        scheduler, defaults = read_published(folder, index)
    encoder = _t5(folder, defaults, dtype) if defaults.text_encoder == "t5" else None
    network = load_part(folder / "transformer", dtype=dtype)
    tokenizer = read_world_tokenizer(folder, index, dtype=dtype)
    _check_kinds(folder, network, tokenizer)
    if name in PIPELINES and network.config.condition_mask != bool(defaults.num_prefix_frames):
        has = "a" if network.config.condition_mask else "no"
        raise CheckpointError(
            f"The world {str(folder)!r} is a {name}, but its transformer has {has} channel for given frames (condition mask).",
            "Put the transformer of the same model into its `transformer` folder.",
        )
    if defaults.image_latents is not None and len(defaults.image_latents.mean) != tokenizer.spec.channels:
        raise CheckpointError(
            f"The world {str(folder)!r} has image_latents of {len(defaults.image_latents.mean)!r} channels, its vae has "
            f"{tokenizer.spec.channels!r}.",
            "Copy the whole world folder again.",
        )
    if encoder is not None and encoder.width != network.config.crossattn_emb_channels:
        raise CheckpointError(
            f"The parts of the world {str(folder)!r} do not fit: its transformer takes text rows of width "
            f"{network.config.crossattn_emb_channels!r}, its text_encoder gives {encoder.width!r}.",
            "Put the T5 that the transformer was trained with into its `text_encoder` folder.",
        )
    provenance = read_fields(folder / "provenance.json") if (folder / "provenance.json").exists() else {}
    provenance = {**provenance, "folder": str(folder)}
    world = DiffusionWorld(network, tokenizer, scheduler, defaults, encoder=encoder, provenance=provenance)
    if weights == "int8":
        world.quantize()
    world.place(device or torch.device("cpu"), offload)
    return world


def _read_ours(folder: Path, index: Mapping[str, Any]) -> tuple[SchedulerConfig, WorldDefaults]:
    if index.get("format") != FORMAT:
        raise CheckpointError(f"{str(folder)!r} has world format {index.get('format')!r}; this version reads {FORMAT!r}.")
    fields = read_fields(folder / "scheduler" / "scheduler_config.json")
    fields.pop("format", None)
    scheduler = SchedulerConfig.from_dict(fields, where=str(folder / "scheduler"))
    defaults = index.get("defaults", "")
    if isinstance(defaults, dict):
        defaults.pop("final_sigmas_type", None)  # where the first worlds held it; theirs was always "zero"
    return scheduler, WorldDefaults.from_dict(defaults, where=str(folder / "model_index.json"))


def _t5(folder: Path, defaults: WorldDefaults, dtype: torch.dtype | None) -> T5TextEncoder:
    _check_parts(folder, PARTS[3:])
    folders = (folder / "text_encoder", folder / "tokenizer")
    return T5TextEncoder(*folders, defaults.context_rows, dtype=dtype)


def _check_parts(folder: Path, parts: Sequence[str]) -> None:
    for part in parts:
        if not (folder / part).is_dir():
            raise CheckpointError(f"The world {str(folder)!r} lacks its part {part!r}.", "Copy the whole folder again.")


def _check_kinds(folder: Path, network: Any, tokenizer: Any) -> None:
    if not isinstance(network, DiT) or not isinstance(tokenizer, VideoTokenizer):
        name, what = ("vae", "tokenizer") if isinstance(network, DiT) else ("transformer", "diffusion transformer")
        raise CheckpointError(f"{str(folder / name)!r} holds no {what}.", "Copy the whole world folder again.")
