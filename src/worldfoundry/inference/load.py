"""`wf.load` and `wf.from_original`: from a folder on disk, or a foreign state dict, to something that runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldfoundry.core.checkpoint import load_component, read_weights
from worldfoundry.core.devices import pick_device, pick_dtype
from worldfoundry.core.errors import CheckpointError, UsageError, did_you_mean
from worldfoundry.core.files import read_fields
from worldfoundry.core.registry import resolve
from worldfoundry.core.shipped import model_place

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from worldfoundry.guardrails.policy import GuardPolicy
    from worldfoundry.inference.offload import Level
    from worldfoundry.tokenizers.tokenizer import Tokenizer

# kind of original checkpoint → function (state_dict, config) → component
ORIGINAL_KINDS = {
    "tokenizer": "worldfoundry.tokenizers.original:from_original",
    "dit": "worldfoundry.diffusion.original:from_original",
    "autoregressive": "worldfoundry.autoregressive.original:from_original",
    "diffusion_decoder": "worldfoundry.diffusion.original:from_original",
}
TOKEN_DECODER = "token_decoder"
# `_class_name` of a diffusers-layout config.json → function (state_dict, config) → component
DIFFUSERS_CLASSES = {
    "AutoencoderKLCosmos": "worldfoundry.tokenizers.diffusers:from_diffusers",
    "AutoencoderKLWan": "worldfoundry.tokenizers.wan:from_diffusers",
    "CosmosTransformer3DModel": "worldfoundry.diffusion.diffusers:from_diffusers",
}


def load(
    name_or_folder: str | Path,
    *,
    dtype: "torch.dtype | str | None" = None,
    device: "torch.device | str | None" = None,
    offload: "Level | Literal['auto']" = "auto",
    weights: Literal["stored", "int8"] = "stored",
    policy: "GuardPolicy | None" = None,
) -> Any:
    """Load a tokenizer, a network, a world or a diffusion decoder; eval mode, no gradients, with `.config` and `.provenance`.

    A name is that of a shipped model (`worldfoundry models list`). A folder with `model_index.json` gives a world, one with
    `config.json` (ours or diffusers' layout) the component it names. `dtype=None` keeps the stored dtype; `device=None` keeps
    the CPU. Of a world, `offload` says which weights wait beside the device (`auto`: as its free memory needs), and
    `weights="int8"` rounds those of the network's blocks to 8 bits, and `policy` is that of its guards (None: the default one).
    Raises CheckpointError (exit code 2).
    """
    found = _load(model_place(name_or_folder), name_or_folder, dtype=dtype, device=device, offload=offload, weights=weights)
    if policy is not None:
        from worldfoundry.guardrails.runner import Guardrails

        if not hasattr(found, "guardrails"):
            raise UsageError(f"{str(name_or_folder)!r} is a part, not a world, and has no guards.", "Leave the policy out.")
        found.guardrails = Guardrails.from_policy(policy)
    return found


def _load(
    folder: Path,
    name_or_folder: str | Path,
    *,
    dtype: "torch.dtype | str | None",
    device: "torch.device | str | None",
    offload: "Level | Literal['auto']",
    weights: Literal["stored", "int8"],
) -> Any:
    """`load` of a folder that was found."""
    dtype = pick_dtype(dtype) if isinstance(dtype, str) else dtype
    device = pick_device(device) if isinstance(device, str) else device
    if (folder / "model_index.json").is_file():
        from worldfoundry.inference import ar_folder
        from worldfoundry.inference.world_folder import load_world

        if read_fields(folder / "model_index.json").get("_class_name") == ar_folder.CLASS:
            return ar_folder.load_ar_world(folder, dtype=dtype, device=device, offload=offload, weights=weights)
        world = load_world(folder, dtype=dtype, device=device, offload=offload, weights=weights)
        check_same_latents(world.network.config.out_channels, world.tokenizer.spec.channels, folder)
        return world
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{str(name_or_folder)!r} is an adapter, not a model.",
            f"Load its world, then `world.load_adapter({str(name_or_folder)!r})`; or `worldfoundry generate --adapter`.",
        )
    config = folder / "config.json"
    if config.is_file() and read_fields(config).get("kind") == TOKEN_DECODER:
        from worldfoundry.inference.token_decoder import load_token_decoder

        return load_token_decoder(folder, dtype=dtype, device=device)
    return load_part(folder, dtype=dtype, device=device)


def load_tokenizer(
    name_or_folder: str | Path, *, dtype: "torch.dtype | None" = None, device: "torch.device | None" = None
) -> "Tokenizer":
    """`load` where nothing but a tokenizer will do. Raises CheckpointError for anything else."""
    from worldfoundry.tokenizers.tokenizer import Tokenizer

    folder = model_place(name_or_folder)
    found = None if (folder / "model_index.json").is_file() else load_part(folder, dtype=dtype, device=device)
    if not isinstance(found, Tokenizer):
        what = "is a world" if found is None else "holds no tokenizer"
        raise CheckpointError(f"{str(name_or_folder)!r} {what}.", "Give a tokenizer's folder, such as the `vae` of a world.")
    return found


def check_same_latents(network: int, tokenizer: int, folder: Path) -> None:
    """Whether transformer and tokenizer of a world mean the same latents. Raises CheckpointError."""
    if network != tokenizer:
        raise CheckpointError(
            f"The parts of the world {str(folder)!r} do not fit: its transformer predicts latents of {network!r} channels, its "
            f"vae has {tokenizer!r}.",
            "Put the tokenizer that the transformer was trained with into its `vae` folder.",
        )


def load_part(folder: Path, *, dtype: "torch.dtype | None" = None, device: "torch.device | None" = None) -> Any:
    """Load the one component that `folder` holds, in our layout or diffusers'."""
    config_file = folder / "config.json"
    fields = read_fields(config_file) if config_file.is_file() else {}
    class_name = fields.get("_class_name")
    if fields.get("kind") == TOKEN_DECODER:
        raise CheckpointError(
            f"{str(folder)!r} is a diffusion decoder, which is no part of a world.", "Open it with `wf.load`."
        )
    if class_name is None:
        return load_component(folder, dtype=dtype, device=device)
    if str(class_name) not in DIFFUSERS_CLASSES:
        hint = did_you_mean(str(class_name), list(DIFFUSERS_CLASSES))
        raise CheckpointError(f"{str(folder)!r} holds a {class_name!r}.", hint)
    state = read_weights(folder)
    component = resolve(DIFFUSERS_CLASSES[class_name])(state, fields)
    stored = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    component.provenance = {"source": str(folder), "layout": "diffusers", "class": class_name}
    return component.to(device=device, dtype=dtype or stored).eval().requires_grad_(False)


def from_original(kind: str, state_dict: "Mapping[str, Tensor]", config: Mapping[str, Any]) -> Any:
    """Build a component from a state dict in the original Cosmos layout.

    `kind` is one of the original checkpoint kinds, `config` the original constructor's arguments. The component is in
    eval mode without gradients. Raises UsageError for an unknown kind, CheckpointError if keys and config disagree.
    """
    if kind not in ORIGINAL_KINDS:
        raise UsageError(f"Unknown kind {kind!r} of original checkpoint.", did_you_mean(kind, list(ORIGINAL_KINDS)))
    component = resolve(ORIGINAL_KINDS[kind])(dict(state_dict), dict(config))
    component.provenance = {"layout": "original", "kind": kind}
    return component.eval().requires_grad_(False)
