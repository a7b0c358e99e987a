"""Views of the cache: one memory for all layers, and what is new lies at its end."""

import torch

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig

CONFIG = TransformerConfig(
    vocab_size=50, dim=16, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, ffn_hidden_size=24, latent_shape=(3, 2, 3),
    max_seq_len=24,
)  # fmt: skip


def test_what_is_written_to_new_places_is_what_layers_read():
    cache = KVCache.empty(CONFIG, 2, 10, torch.float32)
    for number, places in enumerate(cache.places(3, 7), start=1):
        assert places.keys.shape == places.values.shape == (2, 2, 7, 8)
        assert places.new_keys.shape == places.new_values.shape == (2, 2, 4, 8)
        places.new_keys.fill_(number), places.new_values.fill_(-number)
        assert torch.equal(places.keys[:, :, 3:], places.new_keys)
        assert not places.keys[:, :, :3].any()
        assert torch.equal(places.values[:, :, 3:], places.new_values)
        assert not places.values[:, :, :3].any()
    assert len(cache.keys) == len(cache.values) == CONFIG.num_layers
    for number, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True), start=1):
        held = torch.zeros(2, 2, 10, 8)
        held[:, :, 3:7] = number  # no layer wrote another's, and none beyond its last place
        assert torch.equal(keys, held)
        assert torch.equal(values, -held)
