"""The tokenizers that come with the package: they load by name, fit their budget, and know the pictures of their domain."""

import pytest
import torch

import worldfoundry as wf
from worldfoundry.core.shipped import shipped_models
from worldfoundry.core.video_io import read_video
from worldfoundry.data.sample import sample_footage
from worldfoundry.tokenizers.check import check_tokenizer
from worldfoundry.tokenizers.config import NAMED

LARGEST_MB = {"nano-cv8x8x8": 8.0, "nano-dv8x16x16": 4.0}
LEAST_PSNR = {"nano-cv8x8x8": 22.0, "nano-dv8x16x16": 17.0}  # in dB, on upscaled sample footage; a gray picture has about 14


@pytest.fixture(scope="module")
def clip_BCTHW():
    frames = read_video(sample_footage() / "episode_000000.mp4").frames[:17]
    x = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1
    return torch.nn.functional.interpolate(x, (128, 128), mode="bilinear").movedim(0, 1)[None]


@pytest.mark.parametrize("name", LARGEST_MB)
def test_it_is_the_named_network_within_its_budget(name):
    assert shipped_models()[name].size_mb <= LARGEST_MB[name]
    tokenizer = wf.load(name)
    assert tokenizer.config.replace(statistics_frames=1) == NAMED[name]
    assert tokenizer.dtype == torch.bfloat16
    assert tokenizer.latent_std.dtype == torch.float32
    assert tokenizer.provenance["metrics"]["held_out_psnr_db"] > 0


@pytest.mark.parametrize("name", LARGEST_MB)
def test_it_keeps_the_contract_and_gives_back_its_domain(name, clip_BCTHW):
    tokenizer = wf.load(name, dtype="float32")
    check_tokenizer(tokenizer)
    out = tokenizer.decode(tokenizer.encode(clip_BCTHW))
    psnr = float(-10 * torch.log10((out - clip_BCTHW).square().mean() / 4))
    assert psnr > LEAST_PSNR[name]


def test_latent_statistics_normalise_the_latents_of_the_domain(clip_BCTHW):
    tokenizer = wf.load("nano-cv8x8x8", dtype="float32")
    normal = tokenizer.normalize(tokenizer.encode(clip_BCTHW))
    assert 0.3 < float(normal.std()) < 3
