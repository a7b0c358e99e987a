import pytest
import torch

from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.even_start import even_start


def correlation(a, b):
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


@pytest.mark.parametrize("name", ["debug-cv8x8x8", "debug-cv4x8x8", "debug-dv4x8x8", "debug-ci8x8", "nano-cv8x8x8"])
def test_the_clip_reaches_the_output_and_biases_say_nothing(name):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(NAMED[name].to_dict())
    even_start(tokenizer)
    shape = (1, 3, 1 + NAMED[name].temporal_compression, 32, 32)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        features, silent = (tokenizer._features(v) for v in (x, torch.zeros_like(x)))
    assert silent.abs().max() < 1e-5
    assert 0.05 < float(features.std()) < 20


def test_a_change_of_the_input_survives_both_networks():
    """What torch starts with loses it: the outputs for two clips are all but the same."""
    torch.manual_seed(0)
    plain, even = (build_tokenizer(NAMED["nano-cv8x8x8"].to_dict()) for _ in range(2))
    even_start(even)
    a, b = (torch.rand((1, 3, 9, 64, 64), generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (1, 2))
    with torch.no_grad():
        same = {module: correlation(module(a), module(b)) for module in (plain, even)}
    assert same[plain] > 0.9
    assert same[even] < 0.5
