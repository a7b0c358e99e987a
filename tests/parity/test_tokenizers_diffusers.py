"""The continuous video tokenizer against an independent implementation, `diffusers.AutoencoderKLCosmos`, random weights."""

import pytest
import torch

from worldfoundry.core.errors import CheckpointError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.diffusers import config_to_diffusers, from_diffusers, to_diffusers
from worldfoundry.tokenizers.original import config_to_original, from_original, to_original

diffusers = pytest.importorskip("diffusers")

WIDTHS = {"encoder_block_out_channels": [8, 16, 32, 32], "decode_block_out_channels": [16, 32, 32, 32]}
# (patch, spatial, temporal): every published rate and some more, at a tiny width.
RATES = [(4, 8, 8), (4, 16, 8), (4, 8, 4), (2, 8, 4), (2, 4, 4), (2, 4, 2), (4, 4, 4)]


def peer(patch=4, spatial=8, temporal=8, seed=0, **changes):
    """Their network with every weight random, norms and biases too."""
    torch.manual_seed(seed)
    config = {"num_layers": 1, "latent_channels": 6, "latents_mean": None, "latents_std": None, **WIDTHS, **changes}
    ratios = {"spatial_compression_ratio": spatial, "temporal_compression_ratio": temporal}
    net = diffusers.AutoencoderKLCosmos(patch_size=patch, **ratios, **config).eval().requires_grad_(False)
    for parameter in net.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn_like(parameter) * scale + (parameter == 1))
    return net


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("frames", [1, 9, 17])
def test_encode_and_decode_equal_diffusers(rates, frames):
    net = peer(*rates)
    module = from_diffusers(net.state_dict(), net.config)
    x = torch.rand(2, 3, frames, 2 * rates[1], 3 * rates[1], generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = net.encode(x).latent_dist.mode()
    close(module.encode(x), z)
    close(module.decode(z), net.decode(z).sample)


def test_attention_inside_levels_equals_diffusers():
    net = peer(2, 8, 4, resolution=64, attention_resolutions=[16, 8], num_layers=2)
    module = from_diffusers(net.state_dict(), net.config)
    x = torch.rand(1, 3, 9, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = net.encode(x).latent_dist.mode()
    close(module.encode(x), z)
    close(module.decode(z), net.decode(z).sample)


@pytest.mark.parametrize("rates", RATES)
def test_both_layouts_round_trip_exactly(rates):
    net = peer(*rates)
    theirs = net.state_dict()
    module = from_diffusers(theirs, net.config)
    back = to_diffusers(module)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    other = from_original(to_original(module), {"kwargs": config_to_original(module.config)})
    assert other.config == module.config
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in module.state_dict().items())


def test_our_config_builds_the_same_diffusers_network():
    net = peer(2, 8, 4, latents_mean=[0.1 * i for i in range(12)], latents_std=[1.0 + i for i in range(12)])
    module = from_diffusers(net.state_dict(), net.config)
    config = config_to_diffusers(module)
    again = diffusers.AutoencoderKLCosmos.from_config(config)
    again.load_state_dict(to_diffusers(module), strict=True)
    for name, value in config.items():
        if name.startswith("latents_"):
            assert value == pytest.approx(net.config[name], rel=1e-6)
        elif name != "_class_name":
            assert value == (list(net.config[name]) if isinstance(value, list) else net.config[name]), name


def test_latent_statistics_are_channel_by_channel():
    """As the published pipeline reads them: a list reshaped to [channels, frames]."""
    mean, std = [float(i) for i in range(12)], [1.0 + i for i in range(12)]
    net = peer(latents_mean=mean, latents_std=std)
    module = from_diffusers(net.state_dict(), net.config)
    z = torch.zeros(1, 6, 3, 1, 1)
    assert module.denormalize(z)[0, :, :, 0, 0].tolist() == [[2.0 * c, 2.0 * c + 1, 2.0 * c + 1] for c in range(6)]
    torch.testing.assert_close(module.denormalize(module.normalize(z + 0.5)), z + 0.5)


def test_the_published_statistics_are_sixteen_frames_of_sixteen_channels():
    """A network without a config of its own takes those of CV8x8x8; only their arrangement is tested."""
    torch.manual_seed(0)
    net = diffusers.AutoencoderKLCosmos(**WIDTHS, num_layers=1)
    module = from_diffusers(net.state_dict(), net.config)
    assert module.config.statistics_frames == NAMED["Cosmos-Tokenize1-CV8x8x8-720p"].statistics_frames
    stored = torch.tensor(net.config["latents_std"]).view(16, 16)
    assert torch.equal(module.latent_std, stored)
    assert config_to_diffusers(module)["latents_mean"] == pytest.approx(net.config["latents_mean"], rel=1e-6)


def test_bfloat16_weights_stay_bfloat16_and_statistics_exact():
    net = peer(latents_mean=[0.1234567] * 6, latents_std=[1.2345678] * 6).to(torch.bfloat16)
    module = from_diffusers(net.state_dict(), net.config)
    assert module.dtype == torch.bfloat16
    assert config_to_diffusers(module)["latents_mean"] == pytest.approx([0.1234567] * 6, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_type": "rearrange"}, "patch_type 'rearrange' is not supported"),
        ({"scaling_factor": 0.5}, "scaling_factor 0.5"),
        ({"_class_name": "AutoencoderKLWan"}, "AutoencoderKLWan"),
        ({"decode_block_out_channels": [16, 32, 32, 64]}, "not a Cosmos tokenizer's"),
        ({"encoder_block_out_channels": [8, 20, 32, 32]}, "not a Cosmos tokenizer's"),
        ({"latents_mean": [0.0] * 7, "latents_std": [1.0] * 7}, "7 and 7 values"),
    ],
)
def test_a_config_of_something_else_is_refused(changes, says):
    net = peer()
    with pytest.raises(CheckpointError, match=says):
        from_diffusers(net.state_dict(), {**net.config, **changes})


def test_weights_of_another_size_are_named():
    net = peer()
    state = net.state_dict()
    with pytest.raises(CheckpointError, match=r"decoder.conv_in.conv_s.weight is \[32, 6, 1, 3, 3\], config says \[32, 8"):
        from_diffusers(state, {**net.config, "latent_channels": 8})
    state["encoder.extra"] = state.pop("quant_conv.bias")
    with pytest.raises(CheckpointError, match=r"missing quant_conv.bias; unexpected encoder.extra"):
        from_diffusers(state, net.config)


@pytest.mark.parametrize("name", ["debug-dv4x8x8", "debug-ci8x8", "debug-cv8x8x8"])
def test_what_diffusers_cannot_hold_is_refused(name):
    module = build_tokenizer(NAMED[name].replace(z_channels=24).to_dict())
    with pytest.raises(CheckpointError, match="continuous video tokenizers with equal z_channels"):
        to_diffusers(module)
    with pytest.raises(CheckpointError, match="z_channels 24"):
        config_to_diffusers(module)
