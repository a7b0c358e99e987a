"""The packaged recipes of autoregressive training: found by name, their networks stand, their windows fit, as the paper has them."""

import pytest
import torch

from worldfoundry.autoregressive.config import ar_size
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.config import parse_args
from worldfoundry.core.errors import ConfigError
from worldfoundry.recipes.train_autoregressive import shaped
from worldfoundry.recipes.train_autoregressive_config import TrainAutoregressiveConfig
from worldfoundry.recipes.windows import check_window
from worldfoundry.tokenizers.config import named_config

COSMOS = "Cosmos-Tokenize1-DV8x16x16-720p"
# name → tokenizer, width of text rows, parameters in billions, tokens of a clip
KNOWN = {
    "nano-ar": ("nano-dv8x16x16", 0, None, 320),
    "nano-ar-gpu": ("nano-dv8x16x16", 384, None, 320),
    "cosmos-ar-4b": (COSMOS, 0, 4.01, 12800),
    "cosmos-ar-5b": (COSMOS, 1024, 4.58, 12800),
    "cosmos-ar-12b": (COSMOS, 0, 11.56, 12800),
    "cosmos-ar-13b": (COSMOS, 1024, 13.32, 12800),
    "cosmos-ar-4b-320x512": (COSMOS, 0, 4.01, 5 * 640),
}


def read(name):
    arguments = ["clips", "--out", "x", "--config", name, "--tokenizer", KNOWN[name][0]]
    return parse_args(TrainAutoregressiveConfig, arguments + (["--t5", "t5"] if KNOWN[name][1] == 1024 else []), "train")


def test_all_packaged_configs_are_known_and_a_typo_is_told():
    assert {file.stem for file in TrainAutoregressiveConfig.packaged.glob("*.yaml")} == set(KNOWN)
    with pytest.raises(ConfigError, match="no packaged config 'nano-arr'") as caught:
        parse_args(TrainAutoregressiveConfig, ["clips", "--out", "x", "--config", "nano-arr"], "train")
    assert "'nano-ar'" in caught.value.hint


@pytest.mark.parametrize("name", KNOWN)
def test_the_network_stands_and_covers_its_windows(name):
    tokenizer, text_width, billions, tokens = KNOWN[name]
    config, spec = read(name), named_config(tokenizer).spec
    check_window(config.window, spec)
    network = shaped(ar_size(config.model), config.window, spec, text_width)
    assert network.tokens_per_clip == tokens
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Transformer(network).parameters())
    if billions is None:
        assert parameters * 2 <= (12e6 if text_width else 10e6)  # in half precision; what ships takes no text
    else:
        assert parameters == pytest.approx(billions * 1e9, rel=0.005)
    assert network.num_kv_heads % config.loop.parallel.tensor == 0


@pytest.mark.parametrize("name", ["cosmos-ar-4b", "cosmos-ar-5b", "cosmos-ar-12b", "cosmos-ar-13b"])
def test_published_trainings_have_the_networks_as_published(name):
    """At the published size the window changes nothing of the named network."""
    tokenizer, text_width, _, _ = KNOWN[name]
    config = read(name)
    assert shaped(ar_size(config.model), config.window, named_config(tokenizer).spec, text_width) == ar_size(config.model)
    assert (config.loop.optim.decay, config.loop.optim.final_lr_ratio, config.loop.optim.warmup_steps) == ("linear", 0.0, 5000)
    first = config.stages[0].num_frames if config.stages else config.window.num_frames
    assert first == (33 if text_width else 17)
    assert bool(config.image_share) == bool(text_width)
