"""Fewer operations, the same function: whole, cached, in either precision, and without a trace on the original."""

import pytest
import torch

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig, YarnConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.nn.int8 import Int8Linear, quantize_linears

PLAIN = TransformerConfig(
    vocab_size=50, dim=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_hidden_size=24, latent_shape=(3, 2, 3),
    max_seq_len=24, medusa_heads=2,
)  # fmt: skip
VARIANTS = {
    "plain": PLAIN,
    "yarn": PLAIN.replace(yarn=YarnConfig(original_latent_shape=(2, 2, 2)).to_dict()),
    "text": PLAIN.replace(bov=True, abs_pos_emb=True, context_dim=12, num_layers=3, cross_attn_every=2),
    "one axis": PLAIN.replace(rope="1d", qk_norm=False, num_kv_heads=4),
}
TOKENS = torch.arange(2 * 17).reshape(2, 17) % 50


def drawn(config):
    network, generator = Transformer(config), torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3, generator=generator)
    return network.eval().requires_grad_(False)


def text_for(config):
    if not config.context_dim:
        return None
    rows = torch.randn(2, 4, config.context_dim, generator=torch.Generator().manual_seed(1))
    return TextContext(rows_BMD=rows, mask_BM=torch.tensor([[True, True, False, True], [True, False, False, False]]))


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_same_logits_and_caches_in_any_split_into_calls(name):
    config = VARIANTS[name]
    network, text = drawn(config), text_for(config)
    lean = network.for_decoding()
    whole = network(TOKENS, text)
    torch.testing.assert_close(lean(TOKENS, text), whole, atol=1e-5, rtol=1e-4)
    cache = KVCache.empty(config, 2, 17, torch.float32)
    network(TOKENS[:, :6], text, cache)  # begun by the one, continued by the other
    parts = [lean(part, text, cache) for part in TOKENS[:, 6:].split([1, 4, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole[:, 6:], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_medusa_heads_are_the_same():
    network = drawn(PLAIN)
    lean, hidden = network.for_decoding(), network.hidden(TOKENS)
    torch.testing.assert_close(lean.medusa(hidden), network.medusa(hidden), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(lean.logits(hidden), network.logits(hidden), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_original():
    network, text = drawn(VARIANTS["text"]), text_for(VARIANTS["text"])
    half = drawn(VARIANTS["text"]).bfloat16()
    truth = network(TOKENS, text)

    def error(which):
        return (which(TOKENS, text).float() - truth).square().mean().sqrt()

    assert 0 < error(half.for_decoding()) < 1.5 * error(half)


@torch.inference_mode()
def test_weights_in_8_bits_stay_so():
    network = drawn(PLAIN)
    quantize_linears(network.blocks)
    lean = network.for_decoding()
    assert isinstance(lean.blocks[0].to_qkv, Int8Linear)
    torch.testing.assert_close(lean(TOKENS), network(TOKENS), atol=1e-5, rtol=1e-4)


def test_the_original_can_go_on_training():
    network = Transformer(PLAIN).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.for_decoding()
    assert network.training
    network(TOKENS).sum().backward()
    assert all(p.requires_grad for p in network.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
