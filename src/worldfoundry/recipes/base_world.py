"""Going on from an existing world: what its options decide, and its weights in a network that may have more adapters.

Legend: D width, C channels, K values of a patch per channel.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from worldfoundry.core.config import Config
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.diffusion.config import DiTConfig, dit_size
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.load import load
from worldfoundry.inference.tokens import tokenizer_identity
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.config import DiffusionLossConfig

FREE = {
    "in_channels",
    "out_channels",
    "crossattn_emb_channels",
    "condition_mask",
    "uncertainty",
    "action_dim",
    "prefix_context",
    "skip_gates",
}
"""Fields of a DiT that its tokenizer, its text encoder or its adapters decide, not its size."""
ADAPTERS = ("action_adapter.", "prefix_embed.", "final.gates.", "uncertainty.")


@dataclass(frozen=True, kw_only=True)
class Base:
    """A loaded world to go on from, in float32 on the CPU, with a hash of its network's weights."""

    world: DiffusionWorld
    tokenizer: Tokenizer
    weights: str

    @property
    def width(self) -> int:
        """Width of the text rows that its network takes."""
        return self.world.network.config.crossattn_emb_channels


def read_base(config: TrainDiffusionConfig) -> Base | None:
    """The world that `init` names. Raises CheckpointError for anything else, or for a tokenizer that is not the base's."""
    if config.init is None:
        return None
    world = load(config.init, dtype=torch.float32)
    if not isinstance(world, DiffusionWorld):
        raise CheckpointError(f"{str(config.init)!r} is no diffusion world.", "Give --init a world folder or a shipped world.")
    if not isinstance(world.tokenizer, Tokenizer):
        raise CheckpointError(f"The tokenizer of {str(config.init)!r} cannot be used in training: diffusers holds it.")
    digest = hashlib.sha256()
    for name, tensor in sorted(world.network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return Base(world=world, tokenizer=world.tokenizer, weights=digest.hexdigest()[:16])


def check_tokenizer(config: TrainDiffusionConfig, base: Base, tokenizer: Tokenizer) -> None:
    """Whether a tokenizer is the base's. Raises UsageError."""
    own, asked = tokenizer_identity(base.tokenizer), tokenizer_identity(tokenizer)
    if own != asked:
        differs = " and ".join(part for part in own if own[part] != asked[part])
        raise UsageError(
            f"{str(config.tokenizer)!r} is not the tokenizer that {str(config.init)!r} was trained with: its {differs} differ.",
            "Leave --tokenizer out, or train without --init.",
        )


def follow(config: TrainDiffusionConfig, base: Base | None) -> TrainDiffusionConfig:
    """The options with the base's own where they were left at the recipe's defaults. Raises UsageError for a contradiction."""
    if base is None:
        return config.replace(model=config.model or "nano")
    scheduler, defaults = base.world.scheduler, base.world.config
    _check_objective(config, base)
    recipe = base.world.provenance.get("config", {})
    loss = recipe.get("loss", {}) if isinstance(recipe, dict) else {}
    wanted = {name: loss[name] for name in ("sigma_mean", "sigma_std") if name in loss}
    wanted |= {"sigma_data": scheduler.sigma_data, "parametrization": scheduler.parametrization}
    standing = type(config).model_fields
    changes: dict[str, object] = {"loss": _where_default(config.loss, standing["loss"].default, wanted)}
    if config.scheduler == standing["scheduler"].default:
        changes["scheduler"] = scheduler
    for name in ("num_inference_steps", "context_rows"):
        if getattr(config, name) == standing[name].default:
            changes[name] = getattr(defaults, name)
    if config.text == "auto" and defaults.text_encoder != "minilm":  # MiniLM is what `auto` takes where it can be had
        changes["text"] = defaults.text_encoder
    return config.replace(**changes)


def _where_default(config: Config, default: Config, wanted: dict[str, object]) -> Config:
    """`wanted` in place of every field that still has its default."""
    return config.replace(**{name: value for name, value in wanted.items() if getattr(config, name) == getattr(default, name)})


def _check_objective(config: TrainDiffusionConfig, base: Base) -> None:
    standing = DiffusionLossConfig()
    for name in ("parametrization", "sigma_data"):
        asked, own = getattr(config.loss, name), getattr(base.world.scheduler, name)
        if asked not in (own, getattr(standing, name)):
            raise UsageError(
                f"{str(config.init)!r} was trained with {name} {own!r}, not {asked!r}.", f"Leave --loss.{name} out."
            )


def check_size(config: TrainDiffusionConfig, base: Base) -> None:
    """Whether the network asked for is of the base's size. Raises UsageError that names the first field that differs."""
    own = base.world.network.config
    asked = own if config.model is None else dit_size(config.model)
    if config.patch_spatial is not None:
        asked = asked.replace(patch_spatial=config.patch_spatial)
    for name in DiTConfig.model_fields:
        if name not in FREE and getattr(asked, name) != getattr(own, name):
            raise UsageError(
                f"{str(config.init)!r} has {name} {getattr(own, name)!r}, but {getattr(asked, name)!r} is asked for: "
                "its weights do not fit.",
                "Leave --model and --patch-spatial out, or train without --init.",
            )


@torch.no_grad()
def start_from(network: DiT, base: DiT) -> None:
    """Copy the base's weights; adapters that only one of the two has stay new (zero) or are left out.

    A text-to-world base has no channel for given frames: `network` gets zero weights there, so it computes the same.
    Raises CheckpointError if a weight that both have differs in shape.
    """
    state = base.state_dict()
    state["patch_embed.weight"] = _patch_weight(state["patch_embed.weight"], base.config, network.config)
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in state and name.startswith(ADAPTERS):
            state[name] = tensor
    state = {name: tensor for name, tensor in state.items() if name in own or not name.startswith(ADAPTERS)}
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            has = tuple(own[name].shape) if name in own else "nothing"
            raise CheckpointError(f"The base's weight {name!r} is {tuple(tensor.shape)!r}, the network's {has!r}.")
    network.load_state_dict(state)


def _patch_weight(weight: Tensor, base: DiTConfig, wanted: DiTConfig) -> Tensor:
    """Columns of zeros for the condition mask where only the wanted network has that channel (it comes after the latents)."""
    if base.condition_mask or not wanted.condition_mask:
        return weight
    weight_DCK = weight.unflatten(1, (base.network_in_channels, -1))
    latents, masks = weight_DCK[:, : base.in_channels], weight_DCK[:, base.in_channels :]
    return torch.cat([latents, torch.zeros_like(latents[:, :1]), masks], dim=1).flatten(1)
