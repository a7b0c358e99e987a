"""The tokenizers against outputs of NVIDIA's published networks (tiny random weights, float32).

A covering subset of the files lies beside this test; where the full set lies beside the repository, all of it is used.
"""

from pathlib import Path

import pytest
import torch
from golden_files import GOLDEN, read_golden

from worldfoundry.nn.frame_cache import FrameCache
from worldfoundry.nn.haar import patchify_image, patchify_video
from worldfoundry.tokenizers.original import config_to_original, from_original, to_original
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer

FULL_SET = Path(__file__).parents[3] / "shared" / "golden"
FOLDERS = {file.stem: file.parent for folder in (FULL_SET, GOLDEN) for file in sorted(folder.glob("tok_*.safetensors"))}
LATENT = {"atol": 1e-5, "rtol": 0}
PIXEL = {"atol": 1e-4, "rtol": 1e-5}  # pixels of these random networks reach 10

cases = pytest.mark.parametrize("case", sorted(FOLDERS))


def load(case):
    weights, golden, config = read_golden(case, FOLDERS[case])
    return from_original(weights, config["kwargs"]), weights, golden, config["kwargs"]


def clips(golden):
    """(tag, video with a frame axis, what takes the frame axis away again) for each input clip or image."""
    for name, x in golden.items():
        kind, _, tag = name.removeprefix("in.").partition("_")
        if kind == "video":
            yield tag, x, lambda out: out
        elif kind == "image":
            yield tag, x.unsqueeze(2), lambda out: out.squeeze(-3)


@cases
def test_encode_and_decode_equal_the_published_network(case):
    module, _, golden, _ = load(case)
    compared = 0
    for tag, video, flat in clips(golden):
        z = module.encode(video)
        if isinstance(module, DiscreteTokenizer):
            assert torch.equal(flat(module.encode_indices(video)), golden[f"out.indices_{tag}"])
            torch.testing.assert_close(flat(module._features(video)), golden[f"mid.pre_quant_{tag}"], **LATENT)
        want = golden[f"out.codes_{tag}" if isinstance(module, DiscreteTokenizer) else f"out.latent_{tag}"]
        torch.testing.assert_close(flat(z), want, **LATENT)
        torch.testing.assert_close(flat(module.decode(z)), golden[f"out.recon_{tag}"], **PIXEL)
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize("case", [case for case in sorted(FOLDERS) if case.startswith(("tok_cv", "tok_ci"))])
def test_haar_bands_equal_the_published_patcher(case):
    module, _, golden, config = load(case)
    patchify, kind = (patchify_video, "video") if module.config.modality == "video" else (patchify_image, "image")
    names = [name for name in golden if name.startswith("mid.patched_")]
    assert names
    for name in names:
        tag, _, part = name.removeprefix("mid.patched_").partition("_")
        bands = patchify(golden[f"in.{kind}_{tag}"], config["patch_size"])
        bands = bands[:, :, :2, :2, :2] if part else bands  # of long clips the files hold a corner
        torch.testing.assert_close(bands, golden[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", [case for case in sorted(FOLDERS) if case.startswith("tok_cv")])
def test_both_sides_of_the_bottleneck_equal_the_published_network(case):
    module, _, golden, _ = load(case)
    features = module.encoder(golden["in.video_t9"], FrameCache())
    torch.testing.assert_close(features.movedim(-1, 1), golden["mid.encoder_t9"], **LATENT)
    widened = module.from_latent(golden["out.latent_t9"].movedim(1, -1))
    torch.testing.assert_close(widened.movedim(-1, 1), golden["mid.post_quant_conv_t9"], **LATENT)


@pytest.mark.parametrize("case", [case for case in sorted(FOLDERS) if case.startswith(("tok_dv", "tok_di"))])
def test_indices_and_codes_equal_the_published_quantiser(case):
    module, _, golden, _ = load(case)
    quantizer = module.quantizer
    assert torch.equal(quantizer.indices_to_codes(golden["in.lut_indices"]), golden["out.lut_codes"])
    tags = [name.removeprefix("in.random_indices_") for name in golden if name.startswith("in.random_indices_")]
    assert tags
    for tag in tags:
        indices = golden[f"in.random_indices_{tag}"]
        assert torch.equal(quantizer.indices_to_codes(indices), golden[f"out.random_codes_{tag}"])
        if f"out.random_recon_{tag}" in golden:
            image = indices.ndim == 3
            video = module.decode_indices(indices.unsqueeze(1) if image else indices)
            video = video.squeeze(2) if image else video
            torch.testing.assert_close(video, golden[f"out.random_recon_{tag}"], **PIXEL)


@cases
def test_original_layout_round_trips(case):
    module, weights, _, config = load(case)
    back = to_original(module)
    assert back.keys() - weights.keys() <= {"quantizer.implicit_codebook"}  # 64 000 codes, left out of the files
    assert all(torch.equal(back[name].float(), weights[name]) for name in weights)
    arguments = config_to_original(module.config)
    assert {name: config[name] for name in arguments} == arguments
    again = from_original(back, arguments)
    assert again.config == module.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in module.state_dict().items())
