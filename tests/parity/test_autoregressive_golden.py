"""The autoregressive transformer against outputs of NVIDIA's published network (tiny random weights, float32)."""

import pytest
import torch
from golden_files import read_golden

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import YarnConfig
from worldfoundry.autoregressive.original import config_from_original, config_to_original, from_original, to_original
from worldfoundry.autoregressive.positions import axis_angles, frequencies, position_tables
from worldfoundry.autoregressive.transformer import TextContext
from worldfoundry.nn.rope import apply_rope

ATOL = 1e-5
CASES = ["ar_base_a", "ar_cross_a", "ar_yarn_a"]


def published(case):
    """(network, golden tensors, constructor arguments, text or None)."""
    weights, golden, config = read_golden(case)
    network, text = from_original(weights, config["kwargs"]), None
    if "in.context" in golden:
        text = TextContext(rows_BMD=golden["in.context"], mask_BM=golden["in.context_mask"])
    return network, golden, config["kwargs"], text


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_prefix_and_decode_steps_equal_the_published_network(case):
    network, golden, kwargs, text = published(case)
    tokens, prefix = golden["in.tokens"], kwargs["n_prefix"]
    after_block = []
    network.blocks[0].register_forward_hook(lambda *call: after_block.append(call[-1]))
    cache = KVCache.empty(network.config, len(tokens), kwargs["max_seq_len"], torch.float32)
    close(network(tokens[:, :prefix], text, cache), golden["out.logits_prefix"])
    close(after_block[0], golden["mid.layer0_out_prefix"])
    steps = [network(tokens[:, place : place + 1], text, cache) for place in range(prefix, tokens.shape[1])]
    close(torch.cat(steps, dim=1), golden["out.logits_decode"])
    close(cache.keys[0][:, :, : cache.length], golden["mid.cache_k_layer0_after_decode"])


@pytest.mark.parametrize("case", CASES)
def test_one_full_pass_gives_the_published_decode_steps(case):
    network, golden, _, text = published(case)
    full = torch.cat([golden["out.logits_prefix"], golden["out.logits_decode"]], dim=1)
    close(network(golden["in.tokens"], text), full)


def test_without_the_text_mask_all_rows_are_attended():
    network, golden, kwargs, text = published("ar_cross_a")
    everything = TextContext(rows_BMD=text.rows_BMD, mask_BM=torch.ones_like(text.mask_BM))
    close(network(golden["in.tokens"][:, : kwargs["n_prefix"]], everything), golden["out.logits_prefix_no_context_mask"])
    assert not text.mask_BM.all()


@pytest.mark.parametrize("case", CASES)
def test_position_tables_equal_the_published(case):
    network, golden, _, _ = published(case)
    tables = position_tables(network.config, torch.device("cpu"))
    close(tables.cos_Pe.repeat(1, 2), golden["mid.rope_cos_table"])
    close(tables.sin_Pe.repeat(1, 2), golden["mid.rope_sin_table"])
    probe = golden["in.rope_probe"].transpose(1, 2)
    places = probe.shape[2]
    turned = apply_rope(probe, tables.cos_Pe[:places], tables.sin_Pe[:places])
    close(turned.transpose(1, 2), golden["out.rope_probe"])
    if tables.absolute_PD is not None:
        assert torch.equal(tables.absolute_PD, golden["mid.abs_pos_emb_bf16_rounded"][0])


def test_rotation_over_three_axes_and_one():
    _, golden, config = read_golden("ar_rope_probe_a")
    angles = axis_angles(tuple(config["rope3d"]["latent_shape"]), config["dim"], config["rope3d"]["rope_theta"])
    close(rotated(golden["in.q3"], angles), golden["out.rope3d_v2"])
    one = config["rope1d"]
    yarn = YarnConfig(scale=one["scale"], beta_fast=one["beta_fast"], beta_slow=one["beta_slow"])
    for name, stretch in (("0", None), ("1", yarn)):
        per_step = frequencies(config["dim"], one["rope_theta"], stretch, one["original_max_position_embeddings"])
        angles = torch.outer(torch.arange(golden["in.q"].shape[1]).float(), per_step)
        close(rotated(golden["in.q"], angles), golden[f"out.rope1d_v2_yarn{name}"])


def rotated(q_BLhd, angles_Le):
    return apply_rope(q_BLhd.transpose(1, 2), angles_Le.cos(), angles_Le.sin()).transpose(1, 2)


@pytest.mark.parametrize("case", CASES)
def test_original_layout_round_trips(case):
    weights, _, config = read_golden(case)
    network = from_original(weights, config["kwargs"])
    back = to_original(network)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert config_from_original(config_to_original(network.config)) == network.config
