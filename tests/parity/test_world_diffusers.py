"""Whole published pipelines at a tiny size: the same folder, prompt, frames and noise give diffusers' video and ours."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import worldfoundry as wf
from worldfoundry.diffusion.samplers import initial_noise
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.frames import read_prefix

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
    text = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=120, d_model=20, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0)
    )
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -1.0 - i) for i, word in enumerate(WORDS))]
    tokenizer = transformers.T5TokenizerFast(vocab=vocabulary, extra_ids=0)
    kind = diffusers.CosmosVideoToWorldPipeline if video_to_world else diffusers.CosmosTextToWorldPipeline
    pipe = kind(
        text_encoder=random_(text), tokenizer=tokenizer, transformer=random_(transformer), vae=random_(vae),
        scheduler=diffusers.EDMEulerScheduler(**scheduler), safety_checker=NoGuard(),
    )  # fmt: skip
    with torch.no_grad():
        vae.decoder.conv_out.conv_t.weight.mul_(0.15)  # so that few pixels are clipped
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def shims(monkeypatch):
    """The one torchvision function that diffusers' padding mask needs, and no noise on the given frames (ours has none)."""
    resize = SimpleNamespace(resize=lambda x, size, interpolation: F.interpolate(x, size=size, mode=interpolation))
    shim = SimpleNamespace(functional=resize, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    monkeypatch.setattr(sys.modules[diffusers.CosmosTransformer3DModel.__module__], "transforms", shim, raising=False)
    module = sys.modules[diffusers.CosmosVideoToWorldPipeline.__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: torch.zeros(shape))


def their_video(pipe, seed, **ask):
    """Frames [T, H, W, 3] in [0, 1], as the pipeline has them before it rounds them to bytes for its guard."""
    noise = initial_noise((4, 3, 4, 6), 1.0, torch.Generator().manual_seed(seed), sigma_data=0.0)[None]
    noise *= (80.0**2 + 0.5**2) ** 0.5 / 80.0  # theirs starts from 80 · noise, ours from the deviation of data plus noise
    seen = []
    postprocess = pipe.video_processor.postprocess_video
    pipe.video_processor.postprocess_video = lambda *args, **kw: seen.append(postprocess(*args, **kw)) or seen[-1]
    pipe(prompt=PROMPT, negative_prompt=NEGATIVE, latents=noise, output_type="np", **ASK, **ask)
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
    theirs = their_video(pipe, seed=7)
    request = world.resolve(prompt=PROMPT, negative_prompt=NEGATIVE, seed=7, **ASK)
    ours = our_video(world, request, None)
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() <= 1e-3
    clip = world.generate(prompt=PROMPT, negative_prompt=NEGATIVE, seed=7, **ASK)
    assert np.abs(clip.frames / 255 - theirs).max() <= 1e-3 + 0.5 / 255


@pytest.mark.parametrize("given", [1, 5])
def test_video_to_world_equals_diffusers(shims, tmp_path, frames, given):
    pipe = pipeline(True, final_sigmas_type="sigma_min")
    pipe.save_pretrained(tmp_path)
    world = wf.load(tmp_path)
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    theirs = their_video(pipe, seed=8, video=[Image.fromarray(frame) for frame in frames[:given]])
    request = world.resolve(prompt=PROMPT, negative_prompt=NEGATIVE, seed=8, **ASK)
    ours = our_video(world, request, read_prefix(frames[:given], 9, 32, 48))
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() <= 1e-3
    clip = world.generate(prompt=PROMPT, negative_prompt=NEGATIVE, input=frames[:given], seed=8, keep_input=False, **ASK)
    assert np.abs(clip.frames / 255 - theirs).max() <= 1e-3 + 0.5 / 255
