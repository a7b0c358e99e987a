"""The transformer's identities: no token knows its future, and decoding with a cache is the full pass."""

import pytest
import torch

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig, YarnConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.core.errors import UsageError

PLAIN = TransformerConfig(
    vocab_size=50, dim=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_hidden_size=24, latent_shape=(3, 2, 3),
    max_seq_len=24,
)  # fmt: skip
VARIANTS = {
    "plain": PLAIN,
    "yarn": PLAIN.replace(yarn=YarnConfig(original_latent_shape=(2, 2, 2)).to_dict()),
    "text": PLAIN.replace(bov=True, abs_pos_emb=True, context_dim=12, num_layers=3, cross_attn_every=2),
    "one axis": PLAIN.replace(rope="1d", qk_norm=False),
    "one head": PLAIN.replace(num_heads=1, num_kv_heads=1),
}


def drawn(config, seed=0):
    """A network whose every weight matters: nothing is left at its initial value."""
    network, generator = Transformer(config), torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3, generator=generator)
    return network.eval().requires_grad_(False)


def inputs(config, batch=2, length=19):
    generator = torch.Generator().manual_seed(1)
    length = min(length, config.bov + config.tokens_per_clip)
    tokens = torch.randint(config.vocab_size, (batch, length), generator=generator)
    if config.bov:
        tokens[:, 0] = config.vocab_size
    if not config.context_dim:
        return tokens, None
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])[:batch]
    return tokens, TextContext(rows_BMD=torch.randn(batch, 4, config.context_dim, generator=generator), mask_BM=mask)


def cache_for(config, batch=2):
    return KVCache.empty(config, batch, config.max_seq_len, torch.float32)


@pytest.mark.parametrize("name", VARIANTS)
def test_any_split_into_calls_gives_the_full_pass(name):
    config = VARIANTS[name]
    network, (tokens, text) = drawn(config), inputs(config)
    whole = network(tokens, text)
    for sizes in ([1] * tokens.shape[1], [7, 1, 1, 5, 4], [tokens.shape[1]]):
        cache, parts = cache_for(config), tokens.split([*sizes, tokens.shape[1] - sum(sizes)], dim=1)
        logits = torch.cat([network(part, text, cache) for part in parts if part.shape[1]], dim=1)
        torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-4)
        assert cache.length == tokens.shape[1]


@pytest.mark.parametrize("name", VARIANTS)
def test_no_token_knows_its_future(name):
    config = VARIANTS[name]
    network, (tokens, text) = drawn(config), inputs(config)
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % config.vocab_size
    before, after = network(tokens, text), network(changed, text)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.isclose(before[:, 9:], after[:, 9:]).all(dim=-1).any()


def test_what_was_truncated_is_forgotten():
    network, (tokens, _) = drawn(PLAIN), inputs(PLAIN)
    cache = cache_for(PLAIN)
    network(tokens[:, :8], None, cache)
    network(tokens[:, 3:7], None, cache)  # guesses that turn out wrong
    cache.truncate(8)
    torch.testing.assert_close(network(tokens[:, 8:], None, cache), network(tokens)[:, 8:], atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="cannot be cut to 99"):
        cache.truncate(99)


def test_samples_of_a_batch_do_not_see_each_other():
    config = VARIANTS["text"]
    network, (tokens, text) = drawn(config), inputs(config)
    second = TextContext(rows_BMD=text.rows_BMD[1:], mask_BM=text.mask_BM[1:])
    torch.testing.assert_close(network(tokens[1:], second), network(tokens, text)[1:], atol=1e-5, rtol=1e-4)


def test_masked_text_rows_do_not_matter_and_others_do():
    config = VARIANTS["text"]
    network, (tokens, text) = drawn(config), inputs(config)

    def logits(where):
        return network(tokens, TextContext(rows_BMD=text.rows_BMD + where[..., None].float(), mask_BM=text.mask_BM))

    plain = logits(torch.zeros_like(text.mask_BM))
    assert torch.equal(logits(~text.mask_BM), plain)
    assert not torch.allclose(logits(text.mask_BM), plain)


def test_a_cache_serves_one_text_after_another():
    config = VARIANTS["text"]
    network, (tokens, text) = drawn(config), inputs(config)
    other = TextContext(rows_BMD=text.rows_BMD.flip(1), mask_BM=text.mask_BM)
    cache = cache_for(config)
    network(tokens, text, cache)
    cache.truncate(0)
    torch.testing.assert_close(network(tokens, other, cache), network(tokens, other), atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_weight():
    config = VARIANTS["text"].replace(medusa_heads=0)
    network, (tokens, text) = drawn(config).requires_grad_(True), inputs(config)
    network(tokens, text).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_fresh_network_is_the_same_for_the_same_seed_and_undecided():
    one, two, other = Transformer(PLAIN, seed=3), Transformer(PLAIN, seed=3), Transformer(PLAIN, seed=4)
    tokens, _ = inputs(PLAIN)
    assert torch.equal(one(tokens), two(tokens))
    assert not torch.equal(one(tokens), other(tokens))
    assert one(tokens).std() < 0.2


def test_bad_input_gets_one_clear_line():
    network, (tokens, _) = drawn(PLAIN), inputs(PLAIN)
    with pytest.raises(UsageError, match="context holds 24 tokens, not 25"):
        network(torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(UsageError, match="context holds 24 tokens, not 25"):
        KVCache.empty(PLAIN, 1, 25, torch.float32)
    with pytest.raises(UsageError, match="cache is for a batch of 3, not of 2"):
        network(tokens, None, cache_for(PLAIN, batch=3))
    full = KVCache.empty(PLAIN, 2, 8, torch.float32)
    with pytest.raises(UsageError, match="holds 8 tokens; 0 are in it and 18 more do not fit"):
        network(tokens, None, full)
    assert full.length == 0
    text = TextContext(rows_BMD=torch.zeros(2, 4, 12), mask_BM=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(UsageError, match="takes no text"):
        network(tokens, text)
    with pytest.raises(UsageError, match="rows of width 12, not 5"):
        drawn(VARIANTS["text"])(tokens, TextContext(rows_BMD=torch.zeros(2, 4, 5), mask_BM=text.mask_BM))
