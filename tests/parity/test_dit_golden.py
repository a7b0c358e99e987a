"""The DiT against outputs of NVIDIA's published network (tiny random weights, float32)."""

import pytest
import torch
from golden_files import read_golden

from worldfoundry.diffusion.original import config_to_original, from_original, to_original
from worldfoundry.nn.rope import rope_tables

ATOL = 3e-5


@pytest.mark.parametrize("case", ["dit_t2w_a", "dit_v2w_a"])
def test_forward_equals_the_published_network(case):
    weights, golden, config = read_golden(case)
    net = from_original(weights, config["kwargs"])
    blocks = []
    net.blocks[0].register_forward_hook(lambda *call: blocks.append(call[-1]))
    out = net(
        golden["in.x"],
        golden["in.timesteps"],
        golden["in.crossattn_emb"],
        fps_B=golden["in.fps"],
        padding_mask_B1HW=golden["in.padding_mask"],
        condition_mask_B1THW=golden.get("in.condition_video_input_mask"),
    )
    torch.testing.assert_close(out, golden["out.net"], atol=ATOL, rtol=0)
    after_block = golden["mid.block0_out_THWBD"].permute(3, 0, 1, 2, 4).flatten(2, 3)
    torch.testing.assert_close(blocks[0], after_block, atol=ATOL, rtol=0)
    torch.testing.assert_close(net.uncertainty(golden["in.timesteps"]), golden["out.logvar"][:, 0], atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", ["dit_t2w_a", "dit_v2w_a"])
def test_intermediates_equal_the_published_network(case):
    weights, golden, config = read_golden(case)
    net = from_original(weights, config["kwargs"])
    embedding, base = net.time(golden["in.timesteps"])
    torch.testing.assert_close(embedding, golden["mid.affline_emb_after_norm_BD"], atol=ATOL, rtol=0)
    torch.testing.assert_close(base, golden["mid.adaln_lora_B3D"], atol=ATOL, rtol=0)
    t, h, w = golden["mid.extra_pos_emb_BTHWD"].shape[1:4]
    torch.testing.assert_close(net.position(t, h, w), golden["mid.extra_pos_emb_BTHWD"][0].flatten(1, 2), atol=ATOL, rtol=0)
    cos, _ = rope_tables((t, h, w), net.config.head_dim, net.config.rope_ratios, golden["in.fps"], torch.device("cpu"))
    half = golden["mid.rope_angles_L11D"][:, 0, 0, : net.config.head_dim // 2]
    torch.testing.assert_close(cos[0, 0], half.cos(), atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", ["dit_t2w_a", "dit_v2w_a"])
def test_original_layout_round_trips(case):
    weights, _, config = read_golden(case)
    net = from_original(weights, config["kwargs"])
    back = to_original(net)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert config_to_original(net.config) == config["kwargs"]
