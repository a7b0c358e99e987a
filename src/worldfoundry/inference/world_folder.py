"""A diffusion world on disk, in the diffusers layout: `model_index.json`, `transformer/`, `vae/`, `scheduler/`.

`model_index.json` names the encoder of prompts; other people's weights are not copied into the folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from worldfoundry.core.checkpoint import FORMAT, write_component
from worldfoundry.core.errors import CheckpointError, did_you_mean
from worldfoundry.core.files import atomic_folder, read_fields, write_json
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.load import load_part
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.tokenizers.tokenizer import Tokenizer

PARTS = ("transformer", "vae", "scheduler")
CLASS = "WorldFoundryDiffusionWorld"


def save_world(
    folder: Path,
    world: DiffusionWorld,
    *,
    provenance: Mapping[str, Any],
    card: str,
    overwrite: bool = False,
) -> Path:
    """Write a world folder, atomically."""
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        for name, kind, part in (("transformer", "dit", world.network), ("vae", "tokenizer", world.tokenizer)):
            state = {k: v.detach().cpu().contiguous() for k, v in part.state_dict().items()}
            write_component(temporary / name, part.config.to_dict(), state, kind=kind, provenance=provenance)
        (temporary / "scheduler").mkdir()
        write_json(temporary / "scheduler" / "scheduler_config.json", {"format": FORMAT, **world.scheduler.to_dict()})
        index = {
            "_class_name": CLASS,
            "format": FORMAT,
            "transformer": ["worldfoundry", "dit"],
            "vae": ["worldfoundry", "tokenizer"],
            "scheduler": ["worldfoundry", "edm"],
            "text_encoder": ["worldfoundry", world.config.text_encoder],
            "defaults": world.config.to_dict(),
        }
        write_json(temporary / "model_index.json", index)
        write_json(temporary / "provenance.json", dict(provenance))
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return folder


def load_world(folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> DiffusionWorld:
    """Read a world folder. Raises CheckpointError that names the missing part or the unknown class."""
    index = read_fields(folder / "model_index.json")
    if index.get("_class_name") != CLASS:
        raise CheckpointError(
            f"{str(folder)!r} holds a {index.get('_class_name')!r}.", did_you_mean(str(index.get("_class_name")), [CLASS])
        )
    if index.get("format") != FORMAT:
        raise CheckpointError(f"{str(folder)!r} has world format {index.get('format')!r}; this version reads {FORMAT!r}.")
    for part in PARTS:
        if not (folder / part).is_dir():
            raise CheckpointError(f"The world {str(folder)!r} lacks its part {part!r}.", "Copy the whole folder again.")
    scheduler = read_fields(folder / "scheduler" / "scheduler_config.json")
    scheduler.pop("format", None)
    provenance = read_fields(folder / "provenance.json") if (folder / "provenance.json").exists() else {}
    network, tokenizer = (load_part(folder / name, dtype=dtype, device=device) for name in ("transformer", "vae"))
    if not isinstance(network, DiT) or not isinstance(tokenizer, Tokenizer):
        name, what = ("vae", "tokenizer") if isinstance(network, DiT) else ("transformer", "diffusion transformer")
        raise CheckpointError(f"{str(folder / name)!r} holds no {what}.", "Copy the whole world folder again.")
    return DiffusionWorld(
        network,
        tokenizer,
        SchedulerConfig.from_dict(scheduler, where=str(folder / "scheduler")),
        WorldDefaults.from_dict(index.get("defaults", ""), where=str(folder / "model_index.json")),
        provenance={**provenance, "folder": str(folder)},
    )
