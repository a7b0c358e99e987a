"""The named sizes hold as many parameters as published, and a config that cannot be is refused."""

import pytest
import torch

from worldfoundry.autoregressive.config import SIZES, TransformerConfig, YarnConfig, ar_size
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.errors import ConfigError

PUBLISHED_BILLIONS = {"4b": 4.01, "5b-video2world": 4.58, "12b": 11.56, "13b-video2world": 13.32}


def num_parameters(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(config).parameters())


@pytest.mark.parametrize("name", PUBLISHED_BILLIONS)
def test_published_sizes_have_the_published_parameters(name):
    """The text variants' embedding has 64 rows more than the vocabulary, for <bov>."""
    config = ar_size(name)
    assert round(num_parameters(config) / 1e9, 2) == PUBLISHED_BILLIONS[name]
    assert config.embedding_rows == 64000 + 64 * config.bov


def test_nano_fits_its_share_of_the_wheel():
    """In bfloat16, Medusa heads included."""
    config = ar_size("nano")
    assert config.medusa_heads
    assert 2 * num_parameters(config) <= 8.8e6
    assert config.tokens_per_clip == 320


def test_debug_is_small():
    assert num_parameters(ar_size("debug")) < 50_000


def test_an_unknown_size_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"Unknown autoregressive size '4bb'.*Did you mean '4b'"):
        ar_size("4bb")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kv_heads": 3}, "num_heads 32 is not a multiple of num_kv_heads 3"),
        ({"max_seq_len": 100}, "max_seq_len 100 is less than the 12800 tokens of a clip"),
        ({"bov": True}, "max_seq_len 12800 is less than the 12801 tokens"),
        ({"head_dim": 4}, "head_dim 4 cannot be split"),
        ({"head_dim": 7}, "head_dim: must be a multiple of 2"),
        ({"latent_shape": (0, 8, 8)}, "at least one frame, row and column"),
        ({"rope": "1d", "abs_pos_emb": True}, "belong to rope 3d"),
        ({"yarn": {"beta_fast": 1.0}}, "beta_fast 1.0 must exceed beta_slow 1.0"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TransformerConfig.from_dict(change)


def test_every_size_survives_its_dictionary():
    for config in SIZES.values():
        assert TransformerConfig.from_dict(config.to_dict()) == config
    assert isinstance(SIZES["12b"].yarn, YarnConfig)
