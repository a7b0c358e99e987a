"""The layout of the published `model.pt` files (nvidia-cosmos/cosmos-predict1) to ours and back.

The original keeps q, k and v as separate layers; we store them as one, so conversion concatenates and splits. The other way
round with the projection to patches of a diffusion decoder: ours has a layer for the noisy latents and masks, and one for what it
refines (`coarse.py`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.checkpoint import fill
from worldfoundry.core.errors import CheckpointError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT

# Constructor arguments of the original network → fields of DiTConfig.
FIELDS = {
    "out_channels": "out_channels",
    "patch_spatial": "patch_spatial",
    "patch_temporal": "patch_temporal",
    "model_channels": "model_channels",
    "num_blocks": "num_blocks",
    "num_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "crossattn_emb_channels": "crossattn_emb_channels",
    "adaln_lora_dim": "adaln_lora_dim",
    "max_frames": "max_frames",
    "max_img_h": "max_h",
    "max_img_w": "max_w",
    "rope_t_extrapolation_ratio": "rope_ratio_t",
    "rope_h_extrapolation_ratio": "rope_ratio_h",
    "rope_w_extrapolation_ratio": "rope_ratio_w",
    "concat_padding_mask": "concat_padding_mask",
}
# Arguments that must have this value for the network to be this one, and the ones that change nothing here.
REQUIRED = {
    "block_config": "FA-CA-MLP",
    "use_adaln_lora": True,
    "affline_emb_norm": True,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": False,
}
IGNORED = {"block_x_format", "pos_emb_interpolation", "legacy_patch_emb"} | {
    f"extra_{axis}_extrapolation_ratio" for axis in "thw"
}
# What a diffusion decoder's config says besides.
DECODER = {
    "is_diffusion_decoder",
    "diffusion_decoder_condition_on_token",
    "diffusion_decoder_condition_on_sigma",
    "diffusion_decoder_token_condition_voc_size",
    "diffusion_decoder_token_condition_dim",
}
PATCHES, TOKENS = "x_embedder.proj.1.weight", "token_embedder.weight"
# Our names → the original's; within a block its number and `blocks.` are left out.
TOP = {
    "patch_embed.weight": PATCHES,
    "time.linear_1.weight": "t_embedder.1.linear_1.weight",
    "time.linear_2.weight": "t_embedder.1.linear_2.weight",
    "time.norm.weight": "affline_norm.weight",
    "final.linear.weight": "final_layer.linear.weight",
    "final.modulation.down.weight": "final_layer.adaLN_modulation.1.weight",
    "final.modulation.up.weight": "final_layer.adaLN_modulation.2.weight",
}
POSITION = {f"position.{axis}": f"extra_pos_embedder.pos_emb_{axis}" for axis in "thw"}
UNCERTAINTY = {
    "uncertainty.freqs": "logvar.0.freqs",
    "uncertainty.phases": "logvar.0.phases",
    "uncertainty.weight": "logvar.1.weight",
}
BLOCK: dict[str, str | tuple[str, ...]] = {
    "mlp.up.weight": "2.block.layer1.weight",
    "mlp.down.weight": "2.block.layer2.weight",
    **{
        f"{name}_attention.{ours}.weight": f"{part}.block.attn.{theirs}.weight"
        for part, name in enumerate(("self", "cross"))
        for ours, theirs in (("norm_q", "to_q.1"), ("norm_k", "to_k.1"), ("to_out", "to_out.0"))
    },
    **{
        f"modulation_{name}.{ours}.weight": f"{part}.adaLN_modulation.{theirs}.weight"
        for part, name in enumerate(("self", "cross", "mlp"))
        for ours, theirs in (("down", 1), ("up", 2))
    },
    "cross_attention.to_q.weight": "1.block.attn.to_q.0.weight",
    "self_attention.to_qkv.weight": tuple(f"0.block.attn.to_{x}.0.weight" for x in "qkv"),
    "cross_attention.to_kv.weight": tuple(f"1.block.attn.to_{x}.0.weight" for x in "kv"),
}


def config_from_original(kwargs: Mapping[str, Any], *, uncertainty: bool = False) -> DiTConfig:
    """DiTConfig from the original constructor's arguments. Raises CheckpointError for a network that is not this one."""
    for name, wanted in REQUIRED.items():
        if name in kwargs and kwargs[name] != wanted:
            raise CheckpointError(f"The original config has {name} = {kwargs[name]!r}; only {wanted!r} is this network.")
    extra = kwargs.get("extra_per_block_abs_pos_emb", False)
    if extra and kwargs.get("extra_per_block_abs_pos_emb_type", "learnable") != "learnable":
        kind = kwargs["extra_per_block_abs_pos_emb_type"]
        raise CheckpointError(
            f"The original config has extra_per_block_abs_pos_emb_type = {kind!r}; only 'learnable' is known."
        )
    known = {
        *FIELDS,
        *REQUIRED,
        *IGNORED,
        *DECODER,
        "in_channels",
        "extra_per_block_abs_pos_emb",
        "extra_per_block_abs_pos_emb_type",
    }
    unknown = sorted(set(kwargs) - known)
    if unknown:
        raise CheckpointError(f"The original config has arguments that this network does not know: {unknown!r}.")
    fields = {ours: kwargs[theirs] for theirs, ours in FIELDS.items() if theirs in kwargs}
    # Video-to-world counts its mask channel among in_channels; the latents are as many as the network predicts.
    masks = kwargs["in_channels"] - kwargs["out_channels"]
    if masks not in (0, 1):
        raise CheckpointError(
            f"The original config has in_channels = {kwargs['in_channels']!r} and out_channels = {kwargs['out_channels']!r};"
            " only as many (text-to-world) or one more in (video-to-world) is this network."
        )
    return DiTConfig.from_dict(
        {
            **fields,
            "in_channels": kwargs["out_channels"],
            "condition_mask": bool(masks),
            "extra_pos_emb": "learnable" if extra else "none",
            "uncertainty": uncertainty,
            **_decoder_fields(kwargs),
        },
        where="original config",
    )


def _decoder_fields(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a diffusion decoder is shown; nothing for a world. Raises CheckpointError where it is not one of the two kinds."""
    if not kwargs.get("is_diffusion_decoder", False):
        return {}
    by_token, by_sigma = (bool(kwargs.get(f"diffusion_decoder_condition_on_{kind}", False)) for kind in ("token", "sigma"))
    if by_token == by_sigma:
        raise CheckpointError(
            f"The original config has diffusion_decoder_condition_on_token = diffusion_decoder_condition_on_sigma = {by_token!r}; "
            "a decoder is shown tokens or latents."
        )
    if by_sigma:
        return {"latent_condition": True}
    return {
        "token_codes": kwargs.get("diffusion_decoder_token_condition_voc_size", 64000),
        "token_channels": kwargs.get("diffusion_decoder_token_condition_dim", 32),
    }


def config_to_original(config: DiTConfig) -> dict[str, Any]:
    """The original constructor's arguments. Raises CheckpointError for adapters, which the original does not know."""
    refuse_adapters(config, decoders=True)
    return {
        **{theirs: getattr(config, ours) for theirs, ours in FIELDS.items()},
        **REQUIRED,
        "block_x_format": "THWBD",
        "pos_emb_interpolation": "crop",
        "in_channels": config.in_channels + config.condition_mask,
        "extra_per_block_abs_pos_emb": config.extra_pos_emb == "learnable",
        "extra_per_block_abs_pos_emb_type": "learnable",
        **({} if not config.coarse_channels else _decoder_arguments(config)),
    }


def _decoder_arguments(config: DiTConfig) -> dict[str, Any]:
    return {
        "is_diffusion_decoder": True,
        "diffusion_decoder_condition_on_token": bool(config.token_codes),
        "diffusion_decoder_condition_on_sigma": config.latent_condition,
        **({"diffusion_decoder_token_condition_voc_size": config.token_codes} if config.token_codes else {}),
        **({"diffusion_decoder_token_condition_dim": config.token_channels} if config.token_codes else {}),
    }


def from_original(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> DiT:
    """An eval-mode DiT, without gradients, from a published state dict and the original constructor's arguments.

    Accepts the dict nested under `model`, the `net.` prefix or none, and either patch embedding; TransformerEngine's
    `_extra_state` entries and the position counter are dropped, everything else must be used.
    """
    nested = state_dict.get("model")
    state = nested if isinstance(nested, Mapping) else state_dict
    tensors = {name.removeprefix("net."): t for name, t in state.items() if not name.endswith("_extra_state")}
    tensors.pop("pos_embedder.seq", None)
    if "x_embedder.proj.weight" in tensors:  # the legacy embedding is a convolution with stride = kernel
        tensors[PATCHES] = tensors.pop("x_embedder.proj.weight").flatten(1)
    ours = config_from_original(config, uncertainty="logvar.1.weight" in tensors)
    renamed = to_ours(tensors, ours)
    if ours.coarse_channels and "patch_embed.weight" in renamed:
        x, coarse, masks = _columns(renamed["patch_embed.weight"], ours)
        renamed |= {"patch_embed.weight": torch.cat([x, masks], dim=1), "coarse_input.embed.weight": coarse}
    return filled_dit(ours, renamed, where="the original checkpoint")


def _columns(weight: Tensor, config: DiTConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The published projection to patches in parts: for the noisy latents, for what is refined, for the masks."""
    patch = config.patch_temporal * config.patch_spatial**2
    sizes = [config.in_channels, config.coarse_channels, config.network_in_channels - config.in_channels]
    if weight.ndim != 2 or weight.shape[1] != patch * sum(sizes):
        raise CheckpointError(
            f"{PATCHES!r} of the original checkpoint is {list(weight.shape)!r}, but its config says {patch * sum(sizes)!r} columns."
        )
    x, coarse, masks = weight.split([patch * n for n in sizes], dim=1)
    return x, coarse, masks


def to_original(net: DiT) -> dict[str, Tensor]:
    """The published layout, `net.` prefix and uncertainty head included. Raises CheckpointError for adapters."""
    refuse_adapters(net.config, decoders=True)
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    if net.coarse_input is not None:
        of_x = net.config.in_channels * net.config.patch_temporal * net.config.patch_spatial**2
        x, masks = state["patch_embed.weight"].tensor_split([of_x], dim=1)
        state["patch_embed.weight"] = torch.cat([x, state.pop("coarse_input.embed.weight"), masks], dim=1)
    result = {"net.pos_embedder.seq": torch.arange(max(net.config.position_sizes), dtype=torch.float32)}
    for ours, theirs in names_in_original(net.config).items():
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            result[name if name.startswith("logvar.") else f"net.{name}"] = part.clone()
    return result


def names_in_original(config: DiTConfig) -> dict[str, tuple[str, ...]]:
    """Every tensor of ours → the original's names (without `net.`); several where ours holds theirs one above the other."""
    names: dict[str, tuple[str, ...]] = {ours: (theirs,) for ours, theirs in TOP.items()}
    if config.extra_pos_emb == "learnable":
        names |= {ours: (theirs,) for ours, theirs in POSITION.items()}
    if config.uncertainty:
        names |= {ours: (theirs,) for ours, theirs in UNCERTAINTY.items()}
    if config.token_codes:
        names["coarse_input.codes.weight"] = (TOKENS,)
    for i in range(config.num_blocks):
        for ours, theirs in BLOCK.items():
            parts = (theirs,) if isinstance(theirs, str) else theirs
            names[f"blocks.{i}.{ours}"] = tuple(f"blocks.block{i}.blocks.{part}" for part in parts)
    return names


def to_ours(tensors: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Original names → ours; what has no name of ours keeps its own, so that the strict load reports it."""
    left, renamed = dict(tensors), {}
    for ours, theirs in names_in_original(config).items():
        if all(name in left for name in theirs):
            parts = [left.pop(name) for name in theirs]
            renamed[ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return renamed | left


def filled_dit(config: DiTConfig, tensors: Mapping[str, Tensor], *, where: str) -> DiT:
    """A DiT in the tensors' dtype, eval mode, no gradients. Raises CheckpointError where tensors and config disagree."""
    with torch.device("meta"):
        net = DiT(config)
    dtype = tensors["patch_embed.weight"].dtype if "patch_embed.weight" in tensors else torch.float32
    net.to_empty(device="cpu").to(dtype)
    fill(net, tensors, where=where)
    return net.eval().requires_grad_(False)


def refuse_adapters(config: DiTConfig, *, decoders: bool = False) -> None:
    """Raises CheckpointError where the config has something that a published layout cannot hold; the original's knows decoders."""
    if config.coarse_channels and not decoders:
        raise CheckpointError("diffusers has no diffusion decoder.", "Convert it to the original layout.")
    if config.action_dim or config.prefix_context or config.skip_gates:
        raise CheckpointError(
            "This network has post-training adapters (action_dim, prefix_context, skip_gates), which the published layouts cannot hold.",
            "Convert the base model instead.",
        )
