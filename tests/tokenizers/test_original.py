import pytest
import torch

from worldfoundry.core.errors import CheckpointError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.diffusers import config_to_diffusers, from_diffusers, to_diffusers
from worldfoundry.tokenizers.original import config_to_original, from_original, to_original

DEBUG = [name for name in NAMED if name.startswith("debug")]


def make(name, **changes):
    torch.manual_seed(0)
    return build_tokenizer(NAMED[name].replace(**changes).to_dict()).eval().requires_grad_(False)


@pytest.mark.parametrize("name", [name for name in DEBUG if NAMED[name].num_groups in (1, 32)])
def test_state_and_arguments_round_trip(name):
    module = make(name)
    again = from_original(to_original(module), config_to_original(module.config))
    assert again.config == module.config
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in module.state_dict().items())


def test_image_networks_round_trip():
    module = make("debug-di8x8", channels=32, num_groups=32)
    again = from_original(to_original(module), config_to_original(module.config))
    assert again.config == module.config
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in module.state_dict().items())


def test_keys_are_those_of_the_published_files():
    """The key patterns that NVIDIA's files are known to hold, from a full-size network without weights."""
    with torch.device("meta"):
        module = build_tokenizer(NAMED["Cosmos-Tokenize1-CV8x8x8-720p"].to_dict())
    keys = to_original(module).keys()
    for key in (
        "encoder.patcher3d.wavelets",
        "encoder.patcher3d.patch_size_buffer",
        "encoder.conv_in.1.conv3d.weight",
        "encoder.down.1.block.0.nin_shortcut.conv3d.bias",
        "encoder.down.0.downsample.conv2.conv3d.weight",
        "encoder.mid.attn_1.1.proj_out.conv3d.weight",
        "encoder.norm_out.norm.weight",
        "decoder.up.1.upsample.conv1.conv3d.weight",
        "decoder.up.0.block.2.conv2.1.conv3d.weight",
        "post_quant_conv.conv3d.bias",
    ):
        assert key in keys
    assert not any(key.startswith(("encoder.down.1.downsample", "decoder.up.2.upsample")) for key in keys)


def test_samplers_that_never_run_are_kept_for_the_first_generation_only():
    module = make("debug", channels_mult=(1, 2, 2), unused_samplers=True)
    state = to_original(module)
    assert "encoder.down.1.downsample.conv3.conv3d.weight" in state
    assert "encoder.patcher3d.wavelets" not in state
    again = from_original(state, config_to_original(module.config))
    assert again.config.unused_samplers
    x = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), module(x))


def test_samplers_that_never_run_are_dropped_on_the_way_to_diffusers():
    module = make("debug", channels_mult=(1, 2, 2), unused_samplers=True, z_channels=4)
    lean = from_diffusers(to_diffusers(module), config_to_diffusers(module))
    assert lean.config == module.config.replace(unused_samplers=False)
    x = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lean(x), module(x))


def test_encoder_and_decoder_files_may_be_merged():
    """decoder.jit of a discrete tokenizer carries the quantiser a second time."""
    module = make("debug-dv4x8x8")
    state = to_original(module)
    state |= {f"inv_quant.{name}": tensor for name, tensor in state.items() if name.startswith("quantizer.")}
    assert from_original(state, config_to_original(module.config)).config == module.config


def test_the_stored_dtype_is_kept():
    module = make("debug").to(torch.bfloat16)
    again = from_original(to_original(module), config_to_original(module.config))
    assert again.dtype == torch.bfloat16
    assert not again.training


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_method": "rearrange"}, "patch_method 'rearrange' is not supported"),
        ({"formulation": "VAE"}, "formulation 'VAE'"),
        ({"legacy_mode": True}, "legacy_mode True"),
        ({"z_factor": 2}, "z_factor 2"),
        ({"out_channels": 4}, "out_channels 4 differs"),
    ],
)
def test_arguments_outside_the_published_family_are_refused(changes, says):
    module = make("debug")
    with pytest.raises(CheckpointError, match=says):
        from_original(to_original(module), {**config_to_original(module.config), **changes})


def test_missing_arguments_are_named():
    with pytest.raises(CheckpointError, match="patch_size, spatial_compression"):
        from_original({}, {"temporal_compression": 8})


def test_weights_that_do_not_fit_are_named():
    module = make("debug")
    state, arguments = to_original(module), config_to_original(module.config)
    with pytest.raises(CheckpointError, match=r"decoder.conv_in.0.conv3d.bias is \[16\], config says \[32\];.* and \d+ more"):
        from_original(state, {**arguments, "channels": 16})
    state["encoder.conv_in.0.conv3d.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN"):
        from_original(state, arguments)


def test_a_quantiser_of_other_levels_is_refused():
    module = make("debug-dv4x8x8")
    with pytest.raises(CheckpointError, match=r"made with levels \(8, 5, 5, 5\), the config says \(8, 5, 5, 4\)"):
        from_original(to_original(module), {**config_to_original(module.config), "levels": [8, 5, 5, 4]})


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("debug-ci8x8", {}, "32 groups in every norm; this one has 8"),
        ("debug", {"decoder_channels_mult": (2, 2)}, r"no widths for the decoder alone; this one has \(2, 2\)"),
    ],
)
def test_what_the_original_cannot_express_is_refused(name, changes, says):
    module = make(name, **changes)
    with pytest.raises(CheckpointError, match=says):
        to_original(module)
    with pytest.raises(CheckpointError, match=says):
        config_to_original(module.config)
