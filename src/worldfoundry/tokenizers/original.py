"""The layout of NVIDIA's own checkpoints: what `encoder.jit`, `decoder.jit`, `autoencoder.jit` and `model.pt` hold.

`config` is the dictionary of keyword arguments of the original constructor. Two generations exist: Cosmos-Predict1's also
stores the constants of its wavelets and quantiser; the first one (Cosmos-Tokenizer 0.1) instead stores sampler convolutions
that never run, and may have a decoder of fewer levels than its config says. Both are told from the weights.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.checkpoint import weightless
from worldfoundry.core.errors import CheckpointError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import TokenizerConfig
from worldfoundry.tokenizers.fsq import FSQ
from worldfoundry.tokenizers.renaming import Rules, fill_renamed, rename
from worldfoundry.tokenizers.tokenizer import STATISTICS, Tokenizer

_COMMON: Rules = (
    (r"^to_latent\.", "quant_conv."),
    (r"^from_latent\.", "post_quant_conv."),
    (r"\.blocks\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.middle\.block", ".mid.block_"),
    (r"\.middle\.attention\.", ".mid.attn_1."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.out\.", ".proj_out."),
)
_IMAGE: Rules = (*_COMMON, (r"\.(up|down)sample\.", r".\1sample.conv."))
_VIDEO: Rules = (
    *_COMMON,
    (r"\.downsample\.spatial\.", ".downsample.conv1."),
    (r"\.downsample\.temporal\.", ".downsample.conv2."),
    (r"\.upsample\.temporal\.", ".upsample.conv1."),
    (r"\.upsample\.spatial\.", ".upsample.conv2."),
    (r"sample\.mix\.", "sample.conv3."),
    (r"\.(spatial|space)\.", ".0."),
    (r"\.(temporal|time)\.", ".1."),
    (r"(norm\w*)\.(weight|bias)$", r"\1.norm.\2"),
    (r"(?<!\.norm)\.(weight|bias)$", r".conv3d.\1"),
)
_CONSTANTS = (
    r"(encoder|decoder)\.(un)?patcher(3d)?\.(wavelets|_arange|patch_size_buffer)"
    r"|(inv_quant\.)?quantizer\.(_levels|_basis|implicit_codebook)"
)
# Arguments that change the numbers and that no published tokenizer sets to anything else.
_FIXED: dict[str, tuple[Any, ...]] = {
    "patch_method": ("haar",),
    "formulation": ("AE",),
    "quantizer": ("FSQ",),
    "z_factor": (1,),
    "legacy_mode": (False,),
    "encoder": ("FACTORIZED", "Default"),
    "decoder": ("FACTORIZED", "Default"),
}


def from_original(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tokenizer:
    """Original weights and constructor arguments → our tokenizer, in the stored dtype.

    `config` may also be a mapping that holds the arguments under `kwargs`. Raises CheckpointError for arguments outside
    the published family and for weights that do not fit them, ConfigError for arguments that contradict each other.
    """
    fields = _fields(config.get("kwargs", config))
    fields["unused_samplers"] = _stores_unused_samplers(state_dict, TokenizerConfig.from_dict(fields, where="original config"))
    found = {int(match[1]) for match in (re.match(r"decoder\.up\.(\d+)\.", name) for name in state_dict) if match}
    if found and len(found) < len(fields["channels_mult"]):
        fields["decoder_channels_mult"] = fields["channels_mult"][: len(found)]
    with weightless():
        module = build_tokenizer(fields)
    _check_quantizer(state_dict, module.config)
    return fill_renamed(module, _names(module), state_dict, layout="original Cosmos", ignore=_CONSTANTS)


def to_original(module: Tokenizer) -> dict[str, Tensor]:
    """Our tokenizer → original state dict, with the constants unless it is of the first generation.

    Latent statistics have no place in this layout and are left out. Raises CheckpointError for what it cannot express.
    """
    _check_expressible(module.config)
    state = module.state_dict()
    original = {theirs: state[ours] for ours, theirs in _names(module).items()}
    return original if module.config.unused_samplers else original | _constants(module)


def config_to_original(config: TokenizerConfig) -> dict[str, Any]:
    """The original constructor's arguments. Raises CheckpointError for what they cannot express."""
    _check_expressible(config)
    video, discrete = config.modality == "video", bool(config.levels)
    same = ("patch_size", "spatial_compression", "in_channels", "channels", "num_res_blocks", "z_channels", "resolution")
    arguments = {name: getattr(config, name) for name in same} | {
        "name": ("D" if discrete else "C") + ("V" if video else "I"),
        "out_channels": config.in_channels,
        "channels_mult": list(config.channels_mult),
        "attn_resolutions": list(config.attn_resolutions),
        "dropout": 0.0,
        "patch_method": "haar",
        "z_factor": 1,
        "encoder": "FACTORIZED" if video else "Default",
        "decoder": "FACTORIZED" if video else "Default",
    }
    if video:
        arguments |= {"temporal_compression": config.temporal_compression, "num_groups": 1, "legacy_mode": False}
    if discrete:
        return arguments | {"quantizer": "FSQ", "embedding_dim": config.latent_channels, "levels": list(config.levels)}
    return arguments | {"formulation": "AE", "latent_channels": config.latent_channels}


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments → the fields of our config."""
    for name, allowed in _FIXED.items():
        if name in config and config[name] not in allowed:
            raise CheckpointError(
                f"original config: {name} {config[name]!r} is not supported.",
                f"The published tokenizers have {' or '.join(map(repr, allowed))}.",
            )
    if config.get("out_channels", config.get("in_channels")) != config.get("in_channels"):
        raise CheckpointError(f"original config: out_channels {config['out_channels']!r} differs from in_channels.")
    video, discrete = "temporal_compression" in config, "levels" in config
    same = ("patch_size", "spatial_compression", "in_channels", "channels", "channels_mult", "num_res_blocks", "z_channels")
    renamed = {name: name for name in (*same, "attn_resolutions", "resolution")}
    renamed["latent_channels"] = "embedding_dim" if discrete else "latent_channels"
    if video:
        renamed["temporal_compression"] = "temporal_compression"
    if discrete:
        renamed["levels"] = "levels"
    absent = [theirs for theirs in renamed.values() if theirs not in config]
    if absent:
        raise CheckpointError(
            f"original config: {', '.join(absent)} missing.", "It must hold the arguments of the original constructor."
        )
    fixed = {"modality": "video"} if video else {"modality": "image", "temporal_compression": 1, "num_groups": 32}
    return {**fixed, **{ours: config[theirs] for ours, theirs in renamed.items()}}


def _check_expressible(config: TokenizerConfig) -> None:
    if config.modality == "image" and config.num_groups != 32:
        raise CheckpointError(f"The original image networks have 32 groups in every norm; this one has {config.num_groups}.")
    shorter = config.decoder_channels_mult
    if shorter and shorter != config.channels_mult[: len(shorter)]:
        raise CheckpointError(f"The original layout has no widths for the decoder alone; this one has {shorter!r}.")


def _names(module: Tokenizer) -> dict[str, str]:
    """Our tensor names → theirs. Their decoder counts levels from the finest; ours in the order in which they run."""
    coarsest = len(module.config.decoder_levels()) - 1
    rules = (
        (r"^encoder\.levels\.", "encoder.down."),
        *((rf"^decoder\.levels\.{i}\.", f"decoder.up.{coarsest - i}.") for i in range(coarsest + 1)),
        *(_VIDEO if module.config.modality == "video" else _IMAGE),
    )
    return {ours: rename(ours, rules) for ours in module.state_dict() if ours not in STATISTICS}


def _stores_unused_samplers(state_dict: Mapping[str, Tensor], config: TokenizerConfig) -> bool:
    """Whether a convolution is stored for something that a level of the encoder does not do."""
    if config.modality == "image":
        return False
    unused = [
        f"encoder.down.{i}.downsample.conv{conv}.conv3d.weight"
        for i, level in enumerate(config.encoder_levels())
        for conv, runs in ((1, level.spatial), (2, level.temporal), (3, level.spatial or level.temporal))
        if not runs
    ]
    return any(name in state_dict for name in unused)


def _check_quantizer(state_dict: Mapping[str, Tensor], config: TokenizerConfig) -> None:
    for name in ("quantizer._levels", "inv_quant.quantizer._levels"):
        if name in state_dict and tuple(state_dict[name].tolist()) != config.levels:
            raise CheckpointError(
                f"The weights were made with levels {tuple(state_dict[name].tolist())!r}, the config says {config.levels!r}."
            )


def _constants(module: Tokenizer) -> dict[str, Tensor]:
    """The buffers that Cosmos-Predict1 stores: two filter taps, their signs' exponents, the patch size, the code grid."""
    config, suffix = module.config, "3d" if module.config.modality == "video" else ""
    constants = {}
    for prefix in (f"encoder.patcher{suffix}", f"decoder.unpatcher{suffix}"):
        constants[f"{prefix}.wavelets"] = torch.full((2,), 0.5**0.5)
        constants[f"{prefix}._arange"] = torch.arange(2)
    if config.modality == "video":
        constants["encoder.patcher3d.patch_size_buffer"] = torch.tensor([config.patch_size], dtype=torch.int32)
    if config.levels:
        levels = torch.tensor(config.levels, dtype=torch.int32)
        codes = FSQ(config.levels).indices_to_codes(torch.arange(config.codebook_size), module.dtype)
        constants["quantizer._levels"] = levels
        constants["quantizer._basis"] = torch.cat((levels.new_ones(1), levels[:-1])).cumprod(0, dtype=torch.int32)
        constants["quantizer.implicit_codebook"] = codes
    return constants
