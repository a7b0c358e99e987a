import pytest
import torch

from worldfoundry.core.errors import ConfigError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED, TokenizerConfig, named_config

# Parameters in millions of the published networks.
PUBLISHED = {
    "Cosmos-0.1-Tokenizer-CV4x8x8": 104.67,
    "Cosmos-0.1-Tokenizer-DV4x8x8": 104.67,
    "Cosmos-0.1-Tokenizer-CV8x8x8": 105.65,
    "Cosmos-Tokenize1-CV8x8x8-720p": 105.65,
    "Cosmos-0.1-Tokenizer-CV8x16x16": 110.90,
    "Cosmos-Tokenize1-DV8x16x16-720p": 110.90,
    "Cosmos-Tokenize1-CV4x8x8-360p": 110.21,
}
PUBLISHED_ROUNDED = {"Cosmos-0.1-Tokenizer-CI8x8": 77, "Cosmos-0.1-Tokenizer-DI8x8": 79}


def millions(name):
    with torch.device("meta"):
        module = build_tokenizer(NAMED[name].to_dict())
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_video_sizes_have_the_published_number_of_parameters(name, size):
    assert round(millions(name), 2) == size


@pytest.mark.parametrize(("name", "size"), PUBLISHED_ROUNDED.items())
def test_image_sizes_have_the_published_number_of_parameters(name, size):
    assert round(millions(name)) == size


@pytest.mark.parametrize("name", NAMED)
def test_names_say_what_the_config_does(name):
    config = NAMED[name]
    if name == "debug":
        return
    kind, *factors = next(part for part in name.lower().split("-") if part[:2] in ("ci", "di", "cv", "dv")).split("x")
    kind, first = kind[:2], kind[2:]
    assert (config.modality == "video") == (kind[1] == "v")
    assert bool(config.levels) == (kind[0] == "d")
    sides = [int(first), *map(int, factors)]
    spec = config.spec
    assert sides == ([spec.t, spec.h, spec.w] if kind[1] == "v" else [spec.h, spec.w])


def test_every_published_name_is_there():
    kinds = {"0.1-Tokenizer": 10, "1.0-Tokenizer": 2, "Tokenize1": 8}
    for family, number in kinds.items():
        assert sum(name.startswith(f"Cosmos-{family}-") for name in NAMED) == number
    assert all(NAMED[name].codebook_size == 64_000 for name in NAMED if name.startswith("Cosmos") and NAMED[name].levels)


def schedule(levels):
    return ["t" * level.temporal + "s" * level.spatial for level in levels]


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [
        # t halves or doubles time (and then space too), s space alone; the decoder runs coarse to fine.
        ("Cosmos-Tokenize1-CV8x8x8-720p", ["ts", "", ""], ["", "ts", ""]),
        ("Cosmos-Tokenize1-DV8x16x16-720p", ["ts", "s", ""], ["s", "ts", ""]),
        ("Cosmos-Tokenize1-CV4x8x8-360p", ["ts", "s", ""], ["s", "ts", ""]),
        ("Cosmos-0.1-Tokenizer-CV4x8x8", ["s", "", ""], ["s", "", ""]),
        ("Cosmos-0.1-Tokenizer-CI8x8", ["s", "", ""], ["s", "", ""]),
        ("Cosmos-Tokenize1-CI16x16-360p", ["s", "s", "s"], ["s", "s", "s"]),
        ("debug-cv4x4x4", [""], [""]),
        ("debug-cv4x8x8", ["s", ""], ["s", ""]),
    ],
)
def test_what_each_level_samples(name, down, up):
    assert schedule(NAMED[name].encoder_levels()) == down
    assert schedule(NAMED[name].decoder_levels()) == up


def test_no_released_size_has_attention_at_a_level():
    for config in NAMED.values():
        assert not any(level.attention for level in config.encoder_levels() + config.decoder_levels())


def test_attention_resolutions_count_down_from_the_nominal_one():
    config = TokenizerConfig(patch_size=2, temporal_compression=4, resolution=64, attn_resolutions=(16, 8))
    assert [level.attention for level in config.encoder_levels()] == [False, True, True]  # 32, 16, 8
    assert [level.attention for level in config.decoder_levels()] == [True, True, False]
    images = {"modality": "image", "temporal_compression": 1, "num_groups": 32, "resolution": 64, "attn_resolutions": (8,)}
    image = TokenizerConfig.from_dict({**images, "patch_size": 4, "spatial_compression": 8})
    assert [level.attention for level in image.encoder_levels()] == [False, True, True]  # 16, 8, 8: one halving happens
    assert [level.attention for level in image.decoder_levels()] == [False, True, True]  # 4, 8, 8: one doubling happens


def test_a_config_survives_json():
    for config in NAMED.values():
        assert TokenizerConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"patch_size": 3}, "patch_size must be a power of two, not 3"),
        ({"spatial_compression": 2}, "at least the patch size 4"),
        ({"channels_mult": (1, 2)}, "decoder of 2 levels has 0 and 0"),
        ({"decoder_channels_mult": (1,), "temporal_compression": 4}, "decoder of 1 levels"),
        ({"levels": (8, 5)}, "2 levels need latent_channels 2, not 16"),
        ({"levels": (2000,) * 3, "latent_channels": 3}, "8000000000 codes"),
        ({"modality": "image"}, "temporal_compression 1, not 8"),
        ({"num_groups": 32}, "num_groups is 1, not 32"),
        ({"modality": "image", "temporal_compression": 1, "num_groups": 32, "channels": 48}, "multiple of num_groups 32"),
        ({"channels_mul": (1, 2)}, "channels_mult"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
    ],
)
def test_fields_that_do_not_fit_are_refused_in_words(fields, says):
    with pytest.raises(ConfigError, match=says):
        TokenizerConfig.from_dict(fields)


def test_an_unknown_name_is_answered_with_close_ones():
    with pytest.raises(ConfigError, match="Cosmos-Tokenize1-CV8x8x8-720p"):
        named_config("Cosmos-Tokenizer1-CV8x8x8-720p")
    assert named_config("debug") is NAMED["debug"]
