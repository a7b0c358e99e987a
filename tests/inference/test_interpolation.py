"""Frames given at both ends: the network is told which they are, and they come out as they went in."""

import numpy as np
import pytest
import torch

from worldfoundry.core.errors import UsageError
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.conditions import end_frames


@pytest.fixture(scope="module")
def world(make_world):
    world = make_world(num_frames=13, action_names=(), action_rms=())
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    return world


@pytest.fixture(scope="module")
def start(make_frames):
    return make_frames(1, seed=1)


@pytest.fixture(scope="module")
def end(make_frames):
    return make_frames(4, seed=2)


def latents(world, clip):
    x = torch.from_numpy(clip.copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    return world.tokenizer.encode(x)


@pytest.mark.parametrize("guidance_scale", [0.0, 2.0])
def test_latents_come_out_unchanged_at_both_ends(world, start, end, guidance_scale):
    request = world.resolve(guidance_scale=guidance_scale)
    z = world.tokenizer.denormalize(world.sample_latents(request, [start], None, ends=[end]))
    torch.testing.assert_close(z[:, :, :1], latents(world, start), atol=1e-5, rtol=1e-5)
    still_before = np.concatenate([end[:1], end])
    torch.testing.assert_close(z[:, :, -1:], latents(world, still_before)[:, :, 1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(z[:, :, 1:-1], world.sample_latents(request, [start], None)[:, :, 1:-1], atol=1e-2)


def test_the_users_own_pixels_at_both_ends(world, start, end):
    clip = world.generate(input=start, end=end, num_frames=13)
    assert np.array_equal(clip.frames[:1], start)
    assert np.array_equal(clip.frames[-4:], end)
    assert clip.config["end"] == "array"


@pytest.mark.parametrize("num_frames", [10, 11, 12, 13])
@pytest.mark.parametrize("given", [1, 3, 5])
def test_the_end_is_the_last_frame_whatever_the_length(num_frames, given):
    """Latent frames cover four frames: what the given ones do not fill stands still, and a clip that is cropped ends on them."""
    end = np.arange(1, given + 1, dtype=np.uint8).reshape(1, given, 1, 1, 1)
    clip = end_frames(end, num_frames, 4)[0, :, 0, 0, 0]
    covered = 1 + -(-(num_frames - 1) // 4) * 4
    assert (len(clip) - 1) % 4 == 0
    assert clip[len(clip) - (covered - num_frames) - given :][:given].tolist() == list(range(1, given + 1))


def test_an_end_alone_and_one_of_a_long_video(world, start, end):
    clip = world.generate(end=end, num_frames=9)
    assert np.array_equal(clip.frames[-4:], end)
    long = world.generate(input=start, end=end, num_frames=30)
    assert len(long.frames) == 30
    assert np.array_equal(long.frames[-4:], end)


def test_nothing_left_between(world, make_frames, end):
    with pytest.raises(UsageError, match="Nothing is left between"):
        world.generate(input=make_frames(5), end=end, num_frames=9)


def test_a_text_world_takes_no_end(make_world, end):
    world = make_world()
    world.network.config = world.network.config.replace(condition_mask=False)
    with pytest.raises(UsageError, match=r"starts from text alone\. Leave the end out"):
        world.generate(end=end)
