"""A world with random weights, at a size that takes no time."""

import numpy as np
import pytest
import torch

from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

ACTIONS = ("vx", "vy")


def tiny_world(**changes):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(named_config("debug").to_dict()).eval().requires_grad_(False)
    dit = DiTConfig(
        in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=16, adaln_lora_dim=4,
        max_frames=8, max_h=16, max_w=16, condition_mask=True, action_dim=2 * 4 * 2, prefix_context=True,
    )  # fmt: skip
    network = DiT(dit).eval().requires_grad_(False)
    for parameter in network.parameters():  # nothing stays at zero, so that every condition matters
        parameter.copy_(torch.randn(parameter.shape) * 0.2)
    defaults = WorldDefaults(
        num_frames=9, height=32, width=32, fps=12, num_prefix_frames=5, num_inference_steps=2, guidance_scale=0.0,
        context_rows=3, action_names=ACTIONS, action_rms=(1.0, 2.0),
    ).replace(**changes)  # fmt: skip
    return DiffusionWorld(network, tokenizer, SchedulerConfig(), defaults, encoder=NullTextEncoder(16, 3))


@pytest.fixture(scope="session")
def make_world():
    """Makes a world; keywords change its defaults."""
    return tiny_world


@pytest.fixture(scope="session")
def make_frames():
    """Makes `count` frames that differ by `seed`."""
    return smooth_frames


def smooth_frames(count, height=32, width=32, seed=0):
    smooth = np.random.default_rng(seed).integers(60, 190, (count, 1, 1, 3)) + np.arange(width)[None, None, :, None]
    return np.broadcast_to(smooth, (count, height, width, 3)).astype(np.uint8)
