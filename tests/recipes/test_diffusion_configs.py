"""The packaged recipes of diffusion training: found by name, their networks stand, their windows fit, their stages are the paper's."""

import pytest
import torch

from worldfoundry.core.config import parse_args
from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.flops import tokens
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.recipes.train_diffusion import dit_config
from worldfoundry.recipes.windows import check_window
from worldfoundry.tokenizers.config import named_config

COSMOS = "Cosmos-Tokenize1-CV8x8x8-720p"
# name → tokenizer, width of text rows, channels that come in (latents and masks)
KNOWN = {
    "nano-diffusion": ("nano-cv8x8x8", 384, None),
    "nano-diffusion-gpu": ("nano-cv8x8x8", 384, None),
    "cosmos-7b-text2world": (COSMOS, 1024, 17),
    "cosmos-7b-video2world": (COSMOS, 1024, 18),
}


def read(name):
    return parse_args(TrainDiffusionConfig, ["clips", "--out", "x", "--config", name, "--tokenizer", KNOWN[name][0]], "train")


def test_all_packaged_configs_are_known_and_a_typo_is_told():
    assert {file.stem for file in TrainDiffusionConfig.packaged.glob("*.yaml")} == set(KNOWN)
    with pytest.raises(ConfigError, match="no packaged config 'nano-difusion'") as caught:
        parse_args(TrainDiffusionConfig, ["clips", "--out", "x", "--config", "nano-difusion"], "train")
    assert "'nano-diffusion'" in caught.value.hint


@pytest.mark.parametrize("name", KNOWN)
def test_the_network_stands_and_covers_its_windows(name):
    tokenizer, text_width, channels = KNOWN[name]
    config, spec = read(name), named_config(tokenizer).spec
    dit = dit_config(config, spec, text_width)
    with torch.device("meta"):
        network = DiT(dit)
    parameters = sum(p.numel() for p in network.parameters())
    if channels is None:
        assert parameters * 2 <= 14e6  # in half precision, as it is to be shipped
    else:
        assert parameters == pytest.approx(7.24e9, rel=0.005)
        assert (dit.network_in_channels, dit.uncertainty, dit.prefix_context, dit.skip_gates) == (channels, True, False, False)
    check_window(config.window, spec)
    network.check_size(
        (spec.latent_frames(config.window.num_frames), config.window.height // spec.h, config.window.width // spec.w)
    )


@pytest.mark.parametrize("name", ["cosmos-7b-text2world", "cosmos-7b-video2world"])
def test_the_stages_have_the_published_tokens(name):
    config, spec = read(name), named_config(COSMOS).spec
    windows = [
        config.window.replace(**{k: getattr(config.stages[0], k) for k in ("num_frames", "height", "width")}),
        config.window,
    ]
    dit = dit_config(config, spec, 1024)
    counts = [tokens(dit, (spec.latent_frames(w.num_frames), w.height // spec.h, w.width // spec.w)) for w in windows]
    assert counts == [10_240, 56_320]
    assert (config.loop.optim.lr, config.loop.optim.betas, config.loop.ema) == (2**-15, (0.9, 0.99), "power")


def test_given_frames_are_uniform_with_a_fifth_of_none():
    weights = read("cosmos-7b-video2world").loss.prefix_weights
    assert weights == pytest.approx([0.2 + 0.8 / 5] + [0.8 / 5] * 4)
