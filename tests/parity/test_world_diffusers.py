"""Whole published pipelines at a tiny size: the same folder, prompt, frames and noise give diffusers' video and ours."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import worldfoundry as wf
from worldfoundry.core.errors import CheckpointError
from worldfoundry.diffusion.samplers import initial_noise
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.frames import read_prefix
from worldfoundry.inference.world_folder import save_world

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

ASK = {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 5, "guidance_scale": 2.0, "fps": 16}
PROMPT, NEGATIVE = "the arm lifts a red cube", "a dark cube"
WORDS = ["▁the", "▁arm", "▁lifts", "▁a", "▁red", "▁cube", "▁dark", "▁", "e", "x"]


class NoGuard:
    """Stands where the pipelines want NVIDIA's guard."""

    def to(self, device):
        return self

    def check_text_safety(self, text):
        return True

    def check_video_safety(self, frames):
        return frames


def random_(module, scale=0.9):
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(1 + 0.1 * noise if parameter.ndim == 1 else scale * noise * fan_in**-0.5)
    return module.eval()


def text_parts():
    """A T5 encoder and its tokenizer."""
    config = transformers.T5Config(vocab_size=120, d_model=20, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -1.0 - i) for i, word in enumerate(WORDS))]
    tokenizer = transformers.T5TokenizerFast(vocab=vocabulary, extra_ids=0)
    return {"text_encoder": random_(transformers.T5EncoderModel(config)), "tokenizer": tokenizer}


def pipeline(video_to_world, **scheduler):
    """diffusers' own class around tiny random networks; everything in it is what a published folder would hold."""
    torch.manual_seed(3)
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4 + video_to_world, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        text_embed_dim=20, adaln_lora_dim=8, max_size=(8, 16, 16),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8, 16, 32, 32), decode_block_out_channels=(16, 32, 32, 32), num_layers=1,
        patch_size=2, temporal_compression_ratio=4, latents_mean=[0.1 * i for i in range(12)],
        latents_std=[1 + 0.1 * i for i in range(12)],
    )  # fmt: skip
    kind = diffusers.CosmosVideoToWorldPipeline if video_to_world else diffusers.CosmosTextToWorldPipeline
    pipe = kind(
        transformer=random_(transformer), vae=random_(vae), scheduler=diffusers.EDMEulerScheduler(**scheduler),
        safety_checker=NoGuard(), **text_parts(),
    )  # fmt: skip
    with torch.no_grad():
        vae.decoder.conv_out.conv_t.weight.mul_(0.15)  # so that few pixels are clipped
    pipe.set_progress_bar_config(disable=True)
    return pipe


def next_pipeline(video_to_world):
    """Cosmos-Predict2's, with its Wan tokenizer and rectified flow."""
    torch.manual_seed(4)
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4 + video_to_world, out_channels=4, num_attention_heads=2, attention_head_dim=32, num_layers=2,
        text_embed_dim=20, adaln_lora_dim=8, max_size=(8, 16, 16), rope_scale=(1.0, 4.0, 4.0), extra_pos_embed_type=None,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, num_res_blocks=1, latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0]
    )
    kind = diffusers.Cosmos2VideoToWorldPipeline if video_to_world else diffusers.Cosmos2TextToImagePipeline
    pipe = kind(
        transformer=random_(transformer), vae=random_(vae), safety_checker=NoGuard(), **text_parts(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
    )  # fmt: skip
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(4.0)  # so that pixels vary, and few are clipped
        vae.decoder.conv_out.bias.zero_()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def shims(monkeypatch):
    """The one torchvision function that diffusers' padding mask needs."""
    resize = SimpleNamespace(resize=lambda x, size, interpolation: F.interpolate(x, size=size, mode=interpolation))
    shim = SimpleNamespace(functional=resize, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    monkeypatch.setattr(sys.modules[diffusers.CosmosTransformer3DModel.__module__], "transforms", shim, raising=False)


@pytest.fixture
def noise_on_given_frames(monkeypatch):
    """Their draws at every step, for the prompt and then for the negative one, from the generator that ours draws from."""
    generator = torch.Generator().manual_seed(8)
    initial_noise((4, 3, 4, 6), 80.0, generator)
    module = sys.modules[diffusers.CosmosVideoToWorldPipeline.__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: torch.randn(shape[1:], generator=generator)[None])


def their_video(pipe, seed, frames=3, sigma_data=0.5, **ask):
    """Frames [T, H, W, 3] in [0, 1], as the pipeline has them before it rounds them to bytes for its guard."""
    noise = initial_noise((4, frames, 4, 6), 80.0, torch.Generator().manual_seed(seed), sigma_data=sigma_data)[None] / 80.0
    seen = []
    postprocess = pipe.video_processor.postprocess_video
    pipe.video_processor.postprocess_video = lambda *args, **kw: seen.append(postprocess(*args, **kw)) or seen[-1]
    pipe(prompt=PROMPT, negative_prompt=NEGATIVE, latents=noise, output_type="np", **ask)
    return seen[0][0]


def our_video(world, request, prefix):
    """The same of ours."""
    z = world.sample_latents(request, [prefix], None)
    with torch.no_grad():
        x = world.tokenizer.decode(world.tokenizer.denormalize(z))
    return x[0].add(1).div(2).clamp(0, 1).movedim(0, -1).numpy()


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("last", ["sigma_min", "zero"])
def test_text_to_world_equals_diffusers(shims, tmp_path, last):
    pipe = pipeline(False, final_sigmas_type=last)
    pipe.save_pretrained(tmp_path)
    world = wf.load(tmp_path)
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    theirs = their_video(pipe, seed=7, **ASK)
    request = world.resolve(prompt=PROMPT, negative_prompt=NEGATIVE, seed=7, **ASK)
    ours = our_video(world, request, None)
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() <= 1e-3
    clip = world.generate(prompt=PROMPT, negative_prompt=NEGATIVE, seed=7, upsample_prompt=False, **ASK)
    assert np.abs(clip.frames / 255 - theirs).max() <= 1e-3 + 0.5 / 255


@pytest.mark.parametrize("given", [1, 5])
def test_video_to_world_equals_diffusers(shims, noise_on_given_frames, tmp_path, frames, given):
    pipe = pipeline(True, final_sigmas_type="sigma_min")
    pipe.save_pretrained(tmp_path)
    world = wf.load(tmp_path)
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    assert world.scheduler.augment_noise
    assert world.scheduler.augment_sigma == 0.001
    theirs = their_video(pipe, seed=8, video=[Image.fromarray(frame) for frame in frames[:given]], **ASK)
    request = world.resolve(prompt=PROMPT, negative_prompt=NEGATIVE, seed=8, **ASK)
    ours = our_video(world, request, read_prefix(frames[:given], 9, 32, 48))
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() <= 1e-3
    clip = world.generate(prompt=PROMPT, negative_prompt=NEGATIVE, input=frames[:given], seed=8, keep_input=False, **ASK)
    assert np.abs(clip.frames / 255 - theirs).max() <= 1e-3 + 0.5 / 255


def test_text_to_image_of_the_next_generation_equals_diffusers(shims, tmp_path):
    pipe = next_pipeline(video_to_world=False)
    pipe.save_pretrained(tmp_path)
    world = wf.load(tmp_path)
    ask = {key: value for key, value in ASK.items() if key not in ("num_frames", "fps")}
    theirs = their_video(pipe, seed=9, frames=1, sigma_data=1.0, **ask)
    request = world.resolve(prompt=PROMPT, negative_prompt=NEGATIVE, seed=9, **ask)
    ours = our_video(world, request, None)
    assert theirs.std() > 0.1
    assert ours.shape == theirs.shape == (1, 32, 48, 3)
    assert np.abs(ours - theirs).max() <= 1e-3
    with pytest.raises(CheckpointError, match="WanTokenizer cannot be written"):
        save_world(tmp_path / "copy", world, provenance={}, card="")


@pytest.mark.parametrize("given", [1, 5])
def test_video_to_world_of_the_next_generation_equals_diffusers(shims, monkeypatch, tmp_path, frames, given):
    """Given frames go in without noise, at a noise level of their own. Their latents are the posterior's mean (theirs: a draw)."""
    module = sys.modules[diffusers.Cosmos2VideoToWorldPipeline.__module__]
    monkeypatch.setattr(module, "retrieve_latents", lambda encoded, generator: encoded.latent_dist.mode())
    pipe = next_pipeline(video_to_world=True)
    pipe.save_pretrained(tmp_path)
    world = wf.load(tmp_path)
    assert world.resolve().num_frames == 93
    assert world.scheduler.frame_levels
    theirs = their_video(pipe, seed=8, sigma_data=1.0, video=[Image.fromarray(frame) for frame in frames[:given]], **ASK)
    request = world.resolve(prompt=PROMPT, negative_prompt=NEGATIVE, seed=8, **ASK)
    ours = our_video(world, request, read_prefix(frames[:given], 5, 32, 48))
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() <= 1e-3
