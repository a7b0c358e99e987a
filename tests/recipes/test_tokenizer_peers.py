"""Every class of autoencoder that `diffusers` brings gives a row: measured factors, any length and size, counted values."""

import diffusers
import numpy as np
import pytest
import torch

from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.recipes.tokenizer_peers import DiffusersTokenizer, OurTokenizer, load_ours, load_peer, reconstruct
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

CPU = torch.device("cpu")
WIDTHS = (8, 8, 8, 8)
# class → (constructor's arguments, factors of time, height and width, latent channels)
TINY = {
    "AutoencoderKLCosmos": (
        {"latent_channels": 4, "encoder_block_out_channels": WIDTHS, "decode_block_out_channels": WIDTHS, "num_layers": 1},
        (8, 8, 8), 4,
    ),
    "AutoencoderKLCogVideoX": (
        {"block_out_channels": WIDTHS, "norm_num_groups": 2, "latent_channels": 4, "layers_per_block": 1}, (4, 8, 8), 4,
    ),
    "AutoencoderKLWan": (
        {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
         "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4},
        (4, 8, 8), 4,
    ),
    "AutoencoderKLLTXVideo": (
        {"latent_channels": 8, "block_out_channels": WIDTHS, "decoder_block_out_channels": WIDTHS,
         "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5},
        (8, 32, 32), 8,
    ),
    "AutoencoderKLHunyuanVideo": (
        {"latent_channels": 4, "block_out_channels": WIDTHS, "layers_per_block": 1, "norm_num_groups": 4}, (4, 8, 8), 4,
    ),
    "AutoencoderKL": (
        {"block_out_channels": (8, 8), "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 2,
         "up_block_types": ("UpDecoderBlock2D",) * 2},
        (1, 2, 2), 4,
    ),
}  # fmt: skip


def frames(count, height, width):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", TINY)
def test_a_diffusers_autoencoder_is_a_row(name, tmp_path):
    arguments, rule, channels = TINY[name]
    torch.manual_seed(0)
    getattr(diffusers, name)(**arguments).save_pretrained(tmp_path / "vae")
    peer = load_peer(f"{tmp_path}:vae", CPU, None)
    assert (peer.rule, peer.channels, peer.codebook, peer.dtype) == (rule, channels, 0, "float32")
    assert name.removeprefix("Autoencoder") in peer.name
    clip = frames(6, 40, 24)  # fits none of them
    made = reconstruct(peer, clip, CPU)
    t, h, w = rule
    assert made.frames.shape == clip.shape
    assert made.frames.dtype == np.uint8
    assert peer.frame_step == (8 if name == "AutoencoderKLCogVideoX" else t)
    assert made.values == channels * (1 + peer.frame_step * -(-5 // peer.frame_step) // t) * -(-40 // h) * -(-24 // w)
    assert made.bits == 16 * made.values
    whole = torch.from_numpy(frames(1 + peer.frame_step, 64, 64))[None].movedim(-1, 1).float() / 127.5 - 1
    with torch.inference_mode():
        assert peer.decode(peer.encode(whole)).shape == whole.shape


def test_our_cosmos_and_theirs_give_the_same_row(tmp_path):
    from worldfoundry.core.checkpoint import save_component
    from worldfoundry.inference.convert import convert

    torch.manual_seed(0)
    tokenizer = build_tokenizer(named_config("debug").replace(z_channels=4, latent_channels=4).to_dict())
    ours = save_component(tmp_path / "ours", tokenizer, kind="tokenizer", provenance={})
    theirs = convert(ours, tmp_path / "theirs", to="diffusers")
    clip = frames(5, 16, 24)
    rows = [reconstruct(load(str(place), CPU, None), clip, CPU) for load, place in ((load_ours, ours), (load_peer, theirs))]
    assert rows[0].values == rows[1].values
    assert np.abs(rows[0].frames.astype(int) - rows[1].frames).max() <= 1


def test_a_discrete_tokenizer_counts_the_bits_of_its_codebook():
    tokenizer = build_tokenizer(named_config("debug").replace(levels=(8, 5, 5, 5)).to_dict()).eval()
    made = reconstruct(OurTokenizer("d", tokenizer), frames(5, 16, 16), CPU)
    assert made.values == 2 * 2 * 2
    assert made.bits == pytest.approx(8 * np.log2(1000))
    assert made.codes is not None
    assert made.codes.shape == (1, 2, 2, 2)


def test_what_is_no_autoencoder_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere' cannot be loaded with diffusers"):
        load_peer(str(tmp_path / "nowhere"), CPU, None)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(CheckpointError, match="holds a 'UNet2DModel', no autoencoder"):
        load_peer(str(tmp_path), CPU, None)
    with pytest.raises(UsageError, match="no checkpoint folder"):
        load_ours(str(tmp_path / "nowhere"), CPU, None)


def test_the_adapter_takes_latents_without_a_distribution():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(3, 3, 1)

        def encode(self, x):
            return type("Out", (), {"latent": x[:, :, ::4, ::8, ::8]})()

        def decode(self, z):
            return type("Out", (), {"sample": z.repeat_interleave(8, 3).repeat_interleave(8, 4)})()

    peer = DiffusersTokenizer("plain", Plain())
    assert peer.rule == (4, 8, 8)
    with pytest.raises(CheckpointError, match="plain gave"):
        reconstruct(peer, frames(5, 16, 16), CPU)
