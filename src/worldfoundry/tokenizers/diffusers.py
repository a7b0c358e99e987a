"""The layout of `diffusers`: an `AutoencoderKLCosmos` folder's `config.json` and weights.

It covers the continuous video tokenizers with z_channels = latent_channels. Latent statistics live in its config as flat
lists, channel by channel, one value per latent frame.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.checkpoint import weightless
from worldfoundry.core.errors import CheckpointError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import TokenizerConfig
from worldfoundry.tokenizers.renaming import Rules, fill_renamed, rename
from worldfoundry.tokenizers.tokenizer import STATISTICS, Tokenizer

CLASS_NAME = "AutoencoderKLCosmos"

_RULES: Rules = (
    (r"^to_latent\.", "quant_conv."),
    (r"^from_latent\.", "post_quant_conv."),
    (r"^encoder\.levels\.", "encoder.down_blocks."),
    (r"^decoder\.levels\.", "decoder.up_blocks."),
    (r"\.blocks\.", ".resnets."),
    (r"\.attentions\.(\d+)\.space\.", r".attentions.\1."),
    (r"\.attentions\.(\d+)\.time\.", r".temp_attentions.\1."),
    (r"\.middle\.block1\.", ".mid_block.resnets.0."),
    (r"\.middle\.block2\.", ".mid_block.resnets.1."),
    (r"\.middle\.attention\.space\.", ".mid_block.attentions.0."),
    (r"\.middle\.attention\.time\.", ".mid_block.temp_attentions.0."),
    (r"\.downsample\.spatial\.", ".downsamplers.0.conv1."),
    (r"\.downsample\.temporal\.", ".downsamplers.0.conv2."),
    (r"\.downsample\.mix\.", ".downsamplers.0.conv3."),
    (r"\.upsample\.temporal\.", ".upsamplers.0.conv1."),
    (r"\.upsample\.spatial\.", ".upsamplers.0.conv2."),
    (r"\.upsample\.mix\.", ".upsamplers.0.conv3."),
    (r"\.spatial\.", ".conv_s."),
    (r"\.temporal\.", ".conv_t."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.([qkv])\.", r".to_\1."),
    (r"\.out\.", ".to_out.0."),
    (r"(norm\w*)\.(weight|bias)$", r"\1.norm.\2"),
)


def from_diffusers(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tokenizer:
    """Weights and `config.json` of an AutoencoderKLCosmos → our tokenizer, in the stored dtype.

    Raises CheckpointError for a config outside the Cosmos family and for weights that do not fit it.
    """
    with weightless():
        module = build_tokenizer(_fields(config))
    module = fill_renamed(module, _names(module), state_dict, layout="diffusers")
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        channels = module.config.latent_channels
        if len(mean) % channels or len(mean) != len(std) or not mean:
            raise CheckpointError(
                f"diffusers config: latents_mean and latents_std have {len(mean)} and {len(std)} values; "
                f"both need the same multiple of latent_channels {channels}."
            )
        module.set_statistics(torch.tensor(mean).view(channels, -1), torch.tensor(std).view(channels, -1))
    return module


def to_diffusers(module: Tokenizer) -> dict[str, Tensor]:
    """Our tokenizer → state dict of an AutoencoderKLCosmos. Sampler weights that never run are dropped.

    Raises CheckpointError for a tokenizer that this class cannot express: image, discrete, or z_channels ≠ latent_channels.
    """
    _check_expressible(module.config)
    state, names = module.state_dict(), _names(module)
    if module.config.unused_samplers:
        with weightless():
            runs = build_tokenizer(module.config.replace(unused_samplers=False).to_dict()).state_dict()
        names = {ours: theirs for ours, theirs in names.items() if ours in runs}
    return {theirs: state[ours] for ours, theirs in names.items()}


def config_to_diffusers(module: Tokenizer) -> dict[str, Any]:
    """The `config.json` of an AutoencoderKLCosmos, latent statistics included. Raises CheckpointError as `to_diffusers`."""
    config = module.config
    _check_expressible(config)
    down = [config.channels * mult for mult in config.channels_mult]
    up = [config.channels * mult for mult in config.decoder_channels_mult or config.channels_mult]
    return {
        "_class_name": CLASS_NAME,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": [config.channels, *down],
        "decode_block_out_channels": [*up, up[-1]],
        "attention_resolutions": list(config.attn_resolutions),
        "resolution": config.resolution,
        "num_layers": config.num_res_blocks,
        "patch_size": config.patch_size,
        "patch_type": "haar",
        "scaling_factor": 1.0,
        "spatial_compression_ratio": config.spatial_compression,
        "temporal_compression_ratio": config.temporal_compression,
        "latents_mean": module.latent_mean.float().flatten().tolist(),
        "latents_std": module.latent_std.float().flatten().tolist(),
    }


def _check_expressible(config: TokenizerConfig) -> None:
    if config.modality != "video" or config.levels or config.z_channels != config.latent_channels:
        raise CheckpointError(
            f"{CLASS_NAME} holds continuous video tokenizers with equal z_channels and latent_channels only; this one is "
            f"{config.modality!r} with levels {config.levels!r}, z_channels {config.z_channels}, latent_channels "
            f"{config.latent_channels}.",
            "Write it in the original or the worldfoundry layout.",
        )


def _names(module: Tokenizer) -> dict[str, str]:
    return {ours: rename(ours, _RULES) for ours in module.state_dict() if ours not in STATISTICS}


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` → the fields of our config."""
    for name, expected in (("patch_type", "haar"), ("scaling_factor", 1.0), ("_class_name", CLASS_NAME)):
        if config.get(name, expected) != expected:
            raise CheckpointError(f"diffusers config: {name} {config[name]!r} is not supported.", f"Cosmos has {expected!r}.")
    same = ("in_channels", "latent_channels", "resolution", "patch_size")
    renamed = {name: name for name in same} | {
        "num_res_blocks": "num_layers",
        "attn_resolutions": "attention_resolutions",
        "spatial_compression": "spatial_compression_ratio",
        "temporal_compression": "temporal_compression_ratio",
    }
    blocks = ("encoder_block_out_channels", "decode_block_out_channels", "out_channels")
    absent = [name for name in (*renamed.values(), *blocks) if name not in config]
    if absent:
        raise CheckpointError(
            f"diffusers config: {', '.join(absent)} missing.", f"It must be the config.json of a {CLASS_NAME}."
        )
    fields = {ours: config[theirs] for ours, theirs in renamed.items()}
    return {**fields, **_widths(config), "z_channels": config["latent_channels"]}


def _widths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Their lists of widths → base width and multiples. Their decoder list names the coarsest width twice."""
    base, *down = config["encoder_block_out_channels"]
    *up, middle = config["decode_block_out_channels"]
    fits = down and up and middle == up[-1] and all(width % base == 0 for width in (*down, *up))
    if not fits or config["in_channels"] != config["out_channels"]:
        raise CheckpointError(
            f"diffusers config: widths {[base, *down]!r} and {[*up, middle]!r}, channels {config['in_channels']!r} and "
            f"{config['out_channels']!r} are not a Cosmos tokenizer's.",
            "Widths must be multiples of the first, and the decoder's two coarsest equal.",
        )
    mult, decoder_mult = [width // base for width in down], [width // base for width in up]
    return {"channels": base, "channels_mult": mult, "decoder_channels_mult": [] if decoder_mult == mult else decoder_mult}
