"""The layout of diffusers' `CosmosTransformer3DModel` folders (`transformer/` of a pipeline) to ours and back.

Tensor names go through the original layout (`original.py`), which diffusers' names mirror part by part. diffusers does not
keep the uncertainty head, which only training uses.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from worldfoundry.core.errors import CheckpointError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.original import filled_dit, names_in_original, refuse_adapters, to_ours

CLASS_NAME = "CosmosTransformer3DModel"
# Prefixes of the original's names → diffusers', tried in this order. Within a block see `_name_in_block`.
PREFIXES = {
    "x_embedder.proj.1.": "patch_embed.proj.",
    "t_embedder.1.": "time_embed.t_embedder.",
    "affline_norm.": "time_embed.norm.",
    "extra_pos_embedder.": "learnable_pos_embed.",
    "final_layer.linear.": "proj_out.",
    "final_layer.adaLN_modulation.": "norm_out.linear_",
}
# What the class assumes where a config.json leaves a field out.
DEFAULTS: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 32,
    "attention_head_dim": 128,
    "num_layers": 28,
    "mlp_ratio": 4.0,
    "text_embed_dim": 1024,
    "adaln_lora_dim": 256,
    "max_size": (128, 240, 240),
    "patch_size": (1, 2, 2),
    "rope_scale": (2.0, 1.0, 1.0),
    "concat_padding_mask": True,
    "extra_pos_embed_type": "learnable",
}
# Options of later models that change the network; with these values it is the one in dit.py.
NEUTRAL: dict[str, Any] = {
    "use_crossattn_projection": False,
    "controlnet_block_every_n": None,
    "img_context_dim_in": None,
}


def config_from_diffusers(fields: Mapping[str, Any]) -> DiTConfig:
    """DiTConfig from a `config.json` of diffusers. Raises CheckpointError for a network that is not this one."""
    for name, wanted in NEUTRAL.items():
        if fields.get(name, wanted) != wanted:
            raise CheckpointError(f"The diffusers config has {name} = {fields[name]!r}; only {wanted!r} is this network.")
    fields = DEFAULTS | dict(fields)
    patch_t, patch_h, patch_w = fields["patch_size"]
    if patch_h != patch_w:
        raise CheckpointError(f"The diffusers config has patch_size {fields['patch_size']!r}; only square patches are known.")
    masks = fields["in_channels"] - fields["out_channels"]
    if masks not in (0, 1):
        raise CheckpointError(
            f"The diffusers config has in_channels = {fields['in_channels']!r} and out_channels = {fields['out_channels']!r};"
            " only as many (text-to-world) or one more in (video-to-world) is this network."
        )
    max_frames, max_h, max_w = fields["max_size"]
    rope_t, rope_h, rope_w = fields["rope_scale"]
    return DiTConfig.from_dict(
        {
            "in_channels": fields["out_channels"],
            "out_channels": fields["out_channels"],
            "patch_spatial": patch_h,
            "patch_temporal": patch_t,
            "model_channels": fields["num_attention_heads"] * fields["attention_head_dim"],
            "num_blocks": fields["num_layers"],
            "num_heads": fields["num_attention_heads"],
            "mlp_ratio": fields["mlp_ratio"],
            "crossattn_emb_channels": fields["text_embed_dim"],
            "adaln_lora_dim": fields["adaln_lora_dim"],
            "max_frames": max_frames,
            "max_h": max_h,
            "max_w": max_w,
            "rope_ratio_t": rope_t,
            "rope_ratio_h": rope_h,
            "rope_ratio_w": rope_w,
            "extra_pos_emb": fields["extra_pos_embed_type"] or "none",
            "concat_padding_mask": fields["concat_padding_mask"],
            "condition_mask": bool(masks),
        },
        where="diffusers config",
    )


def config_to_diffusers(config: DiTConfig) -> dict[str, Any]:
    """The fields of diffusers' `config.json`, `_class_name` included. Raises CheckpointError for adapters."""
    refuse_adapters(config)
    return {
        "_class_name": CLASS_NAME,
        "in_channels": config.in_channels + config.condition_mask,
        "out_channels": config.out_channels,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.num_blocks,
        "mlp_ratio": config.mlp_ratio,
        "text_embed_dim": config.crossattn_emb_channels,
        "adaln_lora_dim": config.adaln_lora_dim,
        "max_size": [config.max_frames, config.max_h, config.max_w],
        "patch_size": [config.patch_temporal, config.patch_spatial, config.patch_spatial],
        "rope_scale": list(config.rope_ratios),
        "concat_padding_mask": config.concat_padding_mask,
        "extra_pos_embed_type": None if config.extra_pos_emb == "none" else config.extra_pos_emb,
    }


def from_diffusers(state_dict: Mapping[str, Tensor], fields: Mapping[str, Any]) -> DiT:
    """An eval-mode DiT, without gradients, from diffusers' tensors and `config.json`; strict."""
    config = config_from_diffusers(fields)
    back = {_name_in_diffusers(name): name for names in names_in_original(config).values() for name in names}
    tensors = to_ours({back.get(name, name): tensor for name, tensor in state_dict.items()}, config)
    return filled_dit(config, tensors, where="the diffusers checkpoint")


def to_diffusers(net: DiT) -> dict[str, Tensor]:
    """diffusers' tensors (without the uncertainty head). Raises CheckpointError for adapters."""
    refuse_adapters(net.config)
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    result = {}
    for ours, theirs in names_in_original(net.config.replace(uncertainty=False)).items():
        parts = state[ours].chunk(len(theirs))
        result |= {_name_in_diffusers(name): part.clone() for name, part in zip(theirs, parts, strict=True)}
    return result


def layer_names_in_diffusers(config: DiTConfig) -> dict[str, tuple[str, ...]]:
    """Every layer of ours with published weights → diffusers' names; several where ours holds theirs one above the other.

    Post-training adapters, which diffusers' network lacks, are not among them.
    """
    pairs = names_in_original(config.replace(uncertainty=False)).items()
    return {_layer(ours): tuple(_layer(_name_in_diffusers(name)) for name in theirs) for ours, theirs in pairs}


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _name_in_diffusers(original: str) -> str:
    """`x_embedder.proj.1.weight` → `patch_embed.proj.weight`, and so on."""
    if original.startswith("blocks.block"):
        block, _, rest = original.removeprefix("blocks.block").partition(".blocks.")
        return f"transformer_blocks.{block}.{_name_in_block(rest)}"
    for theirs, prefix in PREFIXES.items():
        if original.startswith(theirs):
            return prefix + original.removeprefix(theirs)
    return original


def _name_in_block(original: str) -> str:
    """`0.block.attn.to_q.1.weight` → `attn1.norm_q.weight`; the leading number is the sub-block."""
    part, rest = int(original[0]), original[2:]
    if rest.startswith("adaLN_modulation."):
        return f"norm{part + 1}.linear_{rest.removeprefix('adaLN_modulation.')}"
    if part == 2:
        return {"block.layer1.weight": "ff.net.0.proj.weight", "block.layer2.weight": "ff.net.2.weight"}[rest]
    projection, index = rest.removeprefix("block.attn.").removesuffix(".weight").split(".")
    name = projection.replace("to_", "norm_") if index == "1" else projection
    return f"attn{part + 1}.{name + '.0' if name == 'to_out' else name}.weight"
