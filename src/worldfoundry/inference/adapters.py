"""Adapters of worlds on disk, in PEFT's layout: what a LoRA adds to a world's network, and how the world then samples.

FOLDER/adapter_model.safetensors   low-rank matrices under the names of diffusers' network, as PEFT writes them
FOLDER/adapter_config.json         PEFT's config: rank, alpha, target modules
FOLDER/defaults.json               optional: steps, guidance and scheduler fields that take over with the adapter
FOLDER/provenance.json             how it was made, and the hash of the base's weights
FOLDER/README.md                   model card
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldfoundry.core.config import Config
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import atomic_folder, read_fields, write_json
from worldfoundry.core.shipped import model_place
from worldfoundry.diffusion.diffusers import layer_names_in_diffusers
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.nn.lora import LoRA, from_peft, to_peft

if TYPE_CHECKING:
    from worldfoundry.inference.world import DiffusionWorld

TENSORS, FIELDS, DEFAULTS = "adapter_model.safetensors", "adapter_config.json", "defaults.json"
PREDICTED = ("parametrization", "sigma_data", "frame_levels")
"""Fields of a scheduler that say what the network was trained to see and predict."""


class AdapterDefaults(Config):
    """How a world samples once an adapter is in it; what is None or left out stays the world's own."""

    num_inference_steps: int | None = Field(default=None, ge=1)
    """Steps of the sampler."""
    guidance_scale: float | None = Field(default=None, ge=0)
    """g of cond + g · (cond − uncond)."""
    scheduler: dict[str, Any] = Field(default={})
    """Fields of the world's scheduler."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter folder holds. `base`: hashes of the weights that it was made for; none for one of others'."""

    lora: LoRA
    defaults: AdapterDefaults
    base: tuple[str, ...]
    provenance: Mapping[str, Any]


def save_adapter(
    folder: Path, lora: LoRA, network: DiT, *, defaults: AdapterDefaults, provenance: Mapping[str, Any], card: str,
    dtype: torch.dtype = torch.float16, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write an adapter folder, atomically. `network` is the base, with the weights that the adapter was trained on."""
    tensors, fields = to_peft(lora, layer_names_in_diffusers(network.config))
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        stored = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
        save_file(stored, temporary / TENSORS, metadata={"format": "pt"})
        write_json(temporary / FIELDS, {**fields, "base_model_name_or_path": provenance.get("world")})
        write_json(temporary / DEFAULTS, defaults.to_dict())
        write_json(temporary / "provenance.json", {**provenance, "base_weights": base_hashes(network)})
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return folder


def read_adapter(name_or_folder: str | Path, network: DiT) -> Adapter:
    """Read a shipped adapter or a folder, ours or PEFT's. Raises CheckpointError for what is no adapter, or damaged."""
    folder = model_place(name_or_folder)
    if not (folder / FIELDS).is_file():
        raise CheckpointError(
            f"{str(name_or_folder)!r} is no adapter: it has no {FIELDS!r}.",
            "`worldfoundry models list` shows the shipped ones.",
        )
    try:
        tensors: dict[str, Tensor] = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"The adapter {str(folder)!r} is damaged: {error}.", "Copy or download it again.") from error
    lora = from_peft(tensors, read_fields(folder / FIELDS), layer_names_in_diffusers(network.config))
    defaults = read_fields(folder / DEFAULTS) if (folder / DEFAULTS).is_file() else {}
    provenance = read_fields(folder / "provenance.json") if (folder / "provenance.json").is_file() else {}
    return Adapter(
        lora=lora, defaults=AdapterDefaults.from_dict(defaults, where=str(folder / DEFAULTS)),
        base=tuple(provenance.get("base_weights", ())), provenance=provenance,
    )  # fmt: skip


def add_adapter(world: "DiffusionWorld", name_or_folder: str | Path, weight: float) -> None:
    """Merge an adapter into a world's network and take over its defaults. Raises CheckpointError for one of another base."""
    adapter = read_adapter(name_or_folder, world.network)
    adapter.lora.check(world.network)
    if not world.adapters:
        world.base_weights = base_hashes(world.network)[0]
    if adapter.base and world.base_weights not in adapter.base:
        made_for = adapter.provenance.get("world")
        raise CheckpointError(
            f"The adapter {str(name_or_folder)!r} belongs to a world with other weights than this one.",
            f"Load it into {made_for!r}, or train one for this world." if made_for else "Train one for this world.",
        )
    given, name = adapter.defaults, str(name_or_folder)
    changes = {field: getattr(given, field) for field in ("num_inference_steps", "guidance_scale")}
    config = world.config.replace(**{field: value for field, value in changes.items() if value is not None})
    scheduler = _changed(world.scheduler, given.scheduler, name)
    adapter.lora.merge(world.network, weight)  # last, so that an adapter that is refused leaves the world as it was
    world.config, world.scheduler = config, scheduler
    world.adapters[name] = world.adapters.get(name, 0.0) + weight


def _changed(scheduler: SchedulerConfig, fields: Mapping[str, Any], name: str) -> SchedulerConfig:
    """Raises ConfigError for a wrong field, CheckpointError for one that says what the network predicts, which stays the base's."""
    changed = SchedulerConfig.from_dict({**scheduler.to_dict(), **fields}, where=f"{name}/{DEFAULTS}: scheduler")
    for field in PREDICTED:
        if getattr(changed, field) != getattr(scheduler, field):
            raise CheckpointError(
                f"The adapter {name!r} is for a world with {field} {getattr(changed, field)!r}; this one has "
                f"{getattr(scheduler, field)!r}.",
                "Load it into the world that it was made for.",
            )
    return changed


def base_hashes(network: nn.Module) -> list[str]:
    """What names the weights of a network or tokenizer in whichever precision they were stored or loaded: hashes in bfloat16,
    rounded to it at once and by way of float16."""
    direct, by_half = hashlib.sha256(), hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        for digest, values in ((direct, tensor), (by_half, tensor.half())):
            rounded = values.detach().cpu().to(torch.bfloat16).contiguous().view(torch.uint8)
            digest.update(name.encode() + rounded.flatten().numpy().tobytes())
    return list(dict.fromkeys(digest.hexdigest()[:16] for digest in (direct, by_half)))
