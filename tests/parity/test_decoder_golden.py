"""The diffusion decoder against outputs of NVIDIA's published networks (tiny random weights, float32)."""

import pytest
import torch
from golden_files import read_golden

import worldfoundry as wf
from worldfoundry.core.errors import CheckpointError
from worldfoundry.diffusion.diffusers import to_diffusers
from worldfoundry.diffusion.original import config_from_original, config_to_original, to_original

ATOL = 3e-5
CASES = ["ldd_a", "ldd_c_continuous_sigma"]
UNUSED = {"diffusion_decoder_token_condition_voc_size", "diffusion_decoder_token_condition_dim"}


def arguments(config):
    return config.get("kwargs", config)


def coarse_of(golden):
    if "in.latent_condition_sigma" in golden:
        return torch.cat([golden["in.latent_condition"], golden["in.latent_condition_sigma"]], dim=1)
    return golden["in.latent_condition"][:, 0]


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_published_decoder(case):
    weights, golden, config = read_golden(case)
    net = wf.from_original("diffusion_decoder", weights, arguments(config))
    tokens, blocks = [], []
    net.blocks[0].register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0]))
    net.blocks[0].register_forward_hook(lambda *call: blocks.append(call[-1]))
    out = net(
        golden["in.x"], golden["in.timesteps"], golden["in.crossattn_emb"], fps_B=golden["in.fps"],
        padding_mask_B1HW=golden["in.padding_mask"], coarse=coarse_of(golden),
    )  # fmt: skip
    torch.testing.assert_close(out, golden["out.net"], atol=ATOL, rtol=0)
    torch.testing.assert_close(tokens[0], golden["mid.x_embedder_out_BTHWD"].flatten(2, 3), atol=ATOL, rtol=0)
    after_block = golden["mid.block0_out_THWBD"].permute(3, 0, 1, 2, 4).flatten(2, 3)
    torch.testing.assert_close(blocks[0], after_block, atol=ATOL, rtol=0)
    torch.testing.assert_close(net.uncertainty(golden["in.timesteps"]), golden["out.logvar"][:, 0], atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_original_layout_round_trips(case):
    weights, _, config = read_golden(case)
    net = wf.from_original("diffusion_decoder", weights, arguments(config))
    back = to_original(net)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    wanted, found = arguments(config), config_to_original(net.config)
    by_token = wanted["diffusion_decoder_condition_on_token"]
    assert {k: found[k] for k in wanted if by_token or k not in UNUSED} == {
        k: v for k, v in wanted.items() if by_token or k not in UNUSED
    }
    assert config_from_original(found, uncertainty=True) == net.config


def test_what_does_not_fit_is_said():
    weights, _, config = read_golden("ldd_a")
    both = {**arguments(config), "diffusion_decoder_condition_on_sigma": True}
    with pytest.raises(CheckpointError, match="shown tokens or latents"):
        wf.from_original("diffusion_decoder", weights, both)
    narrow = {**arguments(config), "diffusion_decoder_token_condition_dim": 5}
    with pytest.raises(CheckpointError, match="40 columns"):
        wf.from_original("diffusion_decoder", weights, narrow)
    with pytest.raises(CheckpointError, match="no diffusion decoder"):
        to_diffusers(wf.from_original("diffusion_decoder", weights, arguments(config)))
