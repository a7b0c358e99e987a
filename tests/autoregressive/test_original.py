"""The published layout: prefixes, shards, and what it cannot say."""

import pytest
import torch

import worldfoundry as wf
from worldfoundry.autoregressive.config import TransformerConfig, YarnConfig, ar_size
from worldfoundry.autoregressive.original import (
    PUBLISHED,
    config_from_original,
    config_to_original,
    merge_shards,
    shard_axis,
    split_shards,
    to_original,
)
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.errors import CheckpointError

CONFIG = TransformerConfig(
    vocab_size=64, dim=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_hidden_size=24, latent_shape=(2, 2, 2),
    max_seq_len=16, bov=True, abs_pos_emb=True, context_dim=12, cross_attn_every=2, yarn=YarnConfig(),
)  # fmt: skip
ARGUMENTS = config_to_original(CONFIG)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {f"model.{n}": t for n, t in s.items()}])
def test_every_wrapping_of_a_checkpoint_loads(wrap):
    network = Transformer(CONFIG)
    state = {**to_original(network), "layers.0.attention._extra_state": torch.zeros(1)}
    again = wf.from_original("autoregressive", wrap(state), ARGUMENTS)
    assert equal(again.state_dict(), network.state_dict())
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("num_shards", [1, 2])
def test_shards_merge_to_what_was_split(num_shards):
    state = to_original(Transformer(CONFIG))
    shards = split_shards(state, num_shards)
    assert len(shards) == num_shards
    assert equal(merge_shards(shards), state)
    for name, tensor in state.items():
        assert (tensor.ndim == 1) == (shard_axis(name) is None), name
        assert shards[0][name].numel() == tensor.numel() // (num_shards if tensor.ndim > 1 else 1)


def test_a_rank_holds_whole_heads_and_the_matching_columns():
    """Two ranks that each compute their half of the heads give halves that add up to the whole."""
    state = to_original(Transformer(CONFIG))
    one, two = split_shards(state, 2)
    x = torch.randn(3, CONFIG.dim, generator=torch.Generator().manual_seed(0))

    def values_out(s):  # attention to oneself alone: the output is that of the values, each serving its group of heads
        v = (x @ s["layers.0.attention.wv.weight"].T).unflatten(-1, (-1, CONFIG.head_dim))
        return v.repeat_interleave(2, dim=-2).flatten(-2) @ s["layers.0.attention.wo.weight"].T

    torch.testing.assert_close(values_out(one) + values_out(two), values_out(state))


def test_shards_that_do_not_fit():
    state = to_original(Transformer(CONFIG))
    with pytest.raises(CheckpointError, match="does not divide into 3 shards"):
        split_shards(state, 3)
    one, two = split_shards(state, 2)
    del two["norm.weight"]
    with pytest.raises(CheckpointError, match=r"different tensors, for example 'norm\.weight'"):
        merge_shards([one, two])


def test_norms_that_differ_between_ranks_are_averaged():
    one, two = split_shards(to_original(Transformer(CONFIG)), 2)
    two["norm.weight"] = two["norm.weight"] + 1
    assert torch.equal(merge_shards([one, two])["norm.weight"], torch.full((CONFIG.dim,), 1.5))


def test_arguments_go_both_ways():
    assert config_from_original(ARGUMENTS) == CONFIG
    for size in PUBLISHED.values():
        assert config_from_original(config_to_original(ar_size(size))) == ar_size(size)


def test_what_the_original_derives():
    left_out = {k: v for k, v in ARGUMENTS.items() if k not in {"head_dim", "n_kv_heads", "max_seq_len"}}
    config = config_from_original({**left_out, "head_dim": None, "dim": 48})
    assert (config.head_dim, config.num_kv_heads, config.max_seq_len) == (12, 4, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pytorch_rope_version": "v1"}, "pytorch_rope_version = 'v1'; only 'v2'"),
        ({"norm_type": "layernorm"}, "norm_type = 'layernorm'; only 'rmsnorm'"),
        ({"rope_dim": "2D"}, "rope_dim = '2D'; only '3D' and '1D'"),
    ],
)
def test_a_network_that_is_not_this_one(change, message):
    with pytest.raises(CheckpointError, match=message):
        config_from_original({**ARGUMENTS, **change})


def test_medusa_heads_have_no_published_layout():
    with pytest.raises(CheckpointError, match="1 Medusa heads"):
        to_original(Transformer(CONFIG.replace(medusa_heads=1)))
    state = to_original(Transformer(CONFIG))
    with pytest.raises(CheckpointError, match="unexpected medusa_head"):
        wf.from_original("autoregressive", {**state, "medusa_head.0.weight": torch.zeros(1)}, ARGUMENTS)
