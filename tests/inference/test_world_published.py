"""Published pipeline folders, written here with our own converters: what is missing or not ours is one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import worldfoundry as wf
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.diffusion import diffusers as dit_layout
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.published import NEGATIVE_PROMPT, PARTS
from worldfoundry.inference.world_folder import save_world
from worldfoundry.tokenizers import diffusers as vae_layout
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

DIT = DiTConfig(
    in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=16, adaln_lora_dim=4,
    max_frames=8, max_h=16, max_w=16, condition_mask=True,
)  # fmt: skip
SCHEDULER = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "final_sigmas_type": "sigma_min"}


def write(path, fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))


def make_folder(folder, dit=DIT, pipeline="CosmosVideoToWorldPipeline", scheduler=SCHEDULER, width=16):
    network, tokenizer = DiT(dit), build_tokenizer(named_config("debug").replace(z_channels=4).to_dict())
    for name, state, config in (
        ("transformer", dit_layout.to_diffusers(network), dit_layout.config_to_diffusers(dit)),
        ("vae", vae_layout.to_diffusers(tokenizer), vae_layout.config_to_diffusers(tokenizer)),
    ):
        write(folder / name / "config.json", config)
        tensors = {key: tensor.contiguous() for key, tensor in state.items()}
        save_file(tensors, folder / name / "diffusion_pytorch_model.safetensors")
    write(folder / "scheduler" / "scheduler_config.json", scheduler)
    write(folder / "text_encoder" / "config.json", {"model_type": "t5", "d_model": width})
    write(folder / "tokenizer" / "tokenizer_config.json", {})
    write(folder / "model_index.json", {"_class_name": pipeline, "safety_checker": [None, None]})
    return folder


def test_published_defaults(tmp_path):
    world = wf.load(make_folder(tmp_path))
    assert world.resolve(prompt="a robot").to_dict() | {"prompt": ""} == {
        "prompt": "", "later_prompts": [], "negative_prompt": NEGATIVE_PROMPT, "num_frames": 121, "height": 704, "width": 1280, "fps": 24.0,
        "num_inference_steps": 35, "guidance_scale": 7.0, "seed": 0, "num_prefix_frames": 9, "keep_input": True, "step_cache": 0.0,
    }  # fmt: skip
    assert world.encoder.max_length == 512
    assert world.scheduler.sigma_data == 0.5


def test_a_text_to_world_takes_no_frames(tmp_path):
    world = wf.load(make_folder(tmp_path, DIT.replace(condition_mask=False), "CosmosTextToWorldPipeline"))
    with pytest.raises(UsageError, match="starts from text alone"):
        world.generate(input=np.zeros((1, 32, 32, 3), np.uint8), num_frames=5, height=32, width=32)


def test_sampling_that_ends_at_sigma_min_has_one_interval_less(tmp_path):
    world = wf.load(make_folder(tmp_path))
    seen = []
    request = world.resolve(num_inference_steps=3, num_frames=5, height=32, width=32, guidance_scale=0.0)
    world.sample(request, [None], None, callback_on_step_end=lambda i, n, x0: seen.append((i, n)))
    assert seen == [(0, 2), (1, 2)]
    with pytest.raises(UsageError, match="at least 2, not 1"):
        world.resolve(num_inference_steps=1)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(tmp_path, part):
    shutil.rmtree(make_folder(tmp_path) / part)
    with pytest.raises(CheckpointError, match=f"lacks its part '{part}'"):
        wf.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pipeline": "Cosmos3OmniPipeline"}, "'Cosmos3OmniPipeline'; worlds here are"),
        ({"scheduler": {"_class_name": "DDIMScheduler"}}, "_class_name = 'DDIMScheduler'; only 'EDMEulerScheduler' or"),
        ({"scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler"}}, "use_karras_sigmas = False; only True can be"),
        ({"scheduler": SCHEDULER | {"prediction_type": "v_prediction"}}, "prediction_type = 'v_prediction'"),
        ({"width": 24}, "text rows of width 16, its text_encoder gives 24"),
        ({"pipeline": "CosmosTextToWorldPipeline"}, "condition"),
    ],
)
def test_what_is_not_such_a_pipeline_says_so(tmp_path, changes, words):
    make_folder(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        wf.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_with_another_text_encoder_says_so(tmp_path):
    write(make_folder(tmp_path) / "text_encoder" / "config.json", {"model_type": "bert", "d_model": 16})
    with pytest.raises(CheckpointError, match="holds no T5 encoder"):
        wf.load(tmp_path)


def test_a_world_with_t5_is_saved_with_it(tmp_path):
    world = wf.load(make_folder(tmp_path / "published"))
    again = wf.load(save_world(tmp_path / "ours", world, provenance={}, card=""))
    assert again.config == world.config
    assert again.encoder.encoder == tmp_path / "ours" / "text_encoder"
    ask = world.resolve(num_inference_steps=2, num_frames=5, height=32, width=32, guidance_scale=0.0)
    one, two = (w.sample_latents(ask, [None], None) for w in (world, again))
    assert torch.equal(one, two)
    world.encoder = NullTextEncoder(16, 512)
    with pytest.raises(CheckpointError, match="lacks its part 'text_encoder'"):
        wf.load(save_world(tmp_path / "bare", world, provenance={}, card=""))
