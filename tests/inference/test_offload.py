"""Weights that wait elsewhere change nothing: what is computed is the same at every level, and nothing else is touched."""

import numpy as np
import pytest
import torch

import worldfoundry as wf
from worldfoundry.core.errors import CheckpointError, ResourceError
from worldfoundry.inference import memory, rollout
from worldfoundry.inference import world as world_module
from worldfoundry.inference.memory import denoise_bytes, memory_errors_explained, what_fits
from worldfoundry.inference.offload import Offloader, Sizes, choose_level
from worldfoundry.inference.world_folder import save_world


@pytest.mark.parametrize("level", ["parts", "sequential"])
@pytest.mark.parametrize("num_frames", [9, 21])
def test_the_same_video_with_weights_that_wait_on_the_meta_device(make_world, make_frames, level, num_frames):
    """Meta tensors hold no numbers: whatever worked with a parked weight would fail."""
    actions = np.ones((1, num_frames, 2), np.float32)
    whole = make_world()
    request = whole.resolve(guidance_scale=1.0, num_frames=num_frames)
    want = whole.sample(request, [make_frames(5)], actions)
    world = make_world()
    world.offload(Offloader(torch.device("cpu"), level, parked="meta"))
    assert all(p.is_meta for part in (world.network, world.tokenizer) for p in part.parameters())
    assert np.array_equal(world.sample(request, [make_frames(5)], actions), want)
    assert all(p.is_meta for part in (world.network, world.tokenizer) for p in part.parameters())
    with pytest.raises(CheckpointError, match="for generating, not for saving"):
        save_world("never", world, provenance={}, card="")
    world.place(torch.device("cpu"))
    assert not any(p.is_meta for p in world.network.parameters())
    assert np.array_equal(world.sample(request, [make_frames(5)], actions), want)


def test_sequentially_at_most_one_block_is_there(make_world):
    world = make_world()
    world.offload(Offloader(torch.device("cpu"), "sequential", parked="meta"))
    with world.running(world.network):
        assert not world.network.patch_embed.weight.is_meta
        assert all(p.is_meta for p in world.network.blocks.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
@pytest.mark.parametrize("level", ["parts", "sequential"])
def test_a_world_that_lay_on_the_device_leaves_it_and_may_skip_steps(make_world, make_frames, level):
    actions, device = np.ones((1, 9, 2), np.float32), torch.device("cuda")
    world = make_world()
    request = world.resolve(num_inference_steps=6, step_cache=0.2)
    world.place(device, "none")
    want = world.sample(request, [make_frames(5)], actions)
    world.place(device, level)
    assert world.offloader is not None
    assert all(p.device.type == "cpu" for places in world.offloader._places.values() for p in (q.master for q in places))
    assert np.array_equal(world.sample(request, [make_frames(5)], actions), want)


SIZES = Sizes(text=10, network=8, tokenizer=2, denoise=4, decode=6)


@pytest.mark.parametrize(("free", "level"), [(26, "none"), (25, "parts"), (12, "parts"), (11, "sequential"), (1, "sequential")])
def test_the_level_follows_from_the_free_memory(free, level):
    assert choose_level(SIZES, free) == level


def test_what_does_not_fit_says_what_would(make_world, monkeypatch):
    world = make_world()
    monkeypatch.setattr(world_module, "free_memory", lambda device: 300_000)
    with pytest.raises(ResourceError, match=r"need about .* GiB .* are free on 'cpu'\. \d+ frames of \d+x\d+ would fit\."):
        world.generate(num_frames=9, height=128, width=128)


def test_the_hint_is_the_largest_that_fits(make_world):
    request = make_world().resolve(num_frames=99, height=512, width=1024)
    assert what_fits(request, lambda _: False).startswith("Use fewer and smaller frames")
    both = what_fits(request, lambda r: r.num_frames * r.height * r.width <= 50 * 512 * 1024)
    assert both == "50 frames of 1024x512 or 99 frames of 512x256 would fit."
    assert what_fits(request, lambda r: r.height <= 256) == "99 frames of 512x256 would fit."


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_running_out_of_memory_is_explained(error):
    with pytest.raises(ResourceError, match="needs more"), memory_errors_explained(lambda: ResourceError("needs more")):
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors_explained(lambda: ResourceError("needs more")):
        raise RuntimeError("shapes")


def test_guidance_splits_its_pass_where_both_branches_do_not_fit(make_world, monkeypatch):
    world, seen = make_world(), []
    network, request = world.denoiser, world.resolve(guidance_scale=1.0)
    world.denoiser = lambda x, sigma, condition: seen.append(len(x)) or network(x, sigma, condition)
    one = world.sample_latents(request, [None], None)
    monkeypatch.setattr(rollout, "free_memory", lambda device: denoise_bytes(world.network.config, 1, (3, 4, 4), world.dtype))
    other = world.sample_latents(request, [None], None)
    assert seen == [2, 2, 1, 1, 1, 1]
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_pictures_too_large_to_decode_at_once_are_decoded_in_tiles(make_world, monkeypatch):
    world = make_world()
    request = world.resolve(num_frames=1)
    whole = world.sample(request, [None], None)
    monkeypatch.setattr(rollout, "decode_bytes", lambda *_: 2**62)
    assert np.array_equal(world.sample(request, [None], None), whole)  # one tile covers it


def test_int8_weights_are_close_small_and_not_saved(make_world, make_frames, tmp_path):
    world = make_world()
    folder = save_world(tmp_path / "world", world, provenance={}, card="")
    small = wf.load(folder, weights="int8")
    assert small.dtype == world.dtype
    assert memory.module_bytes(small.network.blocks) < 0.4 * memory.module_bytes(world.network.blocks)
    request, actions = world.resolve(), np.ones((1, 9, 2), np.float32)
    one, two = (w.sample(request, [make_frames(5)], actions).astype(int) for w in (world, small))
    assert 0 < np.abs(one - two).mean() < 4
    with pytest.raises(CheckpointError, match="for generating, not for saving"):
        save_world(tmp_path / "again", small, provenance={}, card="")
