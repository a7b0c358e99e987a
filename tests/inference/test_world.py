"""A world with random weights: the request is honoured to the letter whatever the weights are."""

import json

import numpy as np
import pytest
import torch

import worldfoundry as wf
from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import (
    BlockedError,
    CheckpointError,
    ConfigError,
    GuardUnavailable,
    MediaError,
    ResourceError,
    UsageError,
)
from worldfoundry.core.video_io import read_metadata, read_video, write_video
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.inference.frames import conditioning_length, read_prefix
from worldfoundry.inference.world_folder import save_world

ACTIONS = ("vx", "vy")


@pytest.fixture(scope="module")
def world(make_world):
    return make_world()


def frames(count, height=32, width=32, seed=0):
    smooth = np.random.default_rng(seed).integers(60, 190, (count, 1, 1, 3)) + np.arange(width)[None, None, :, None]
    return np.broadcast_to(smooth, (count, height, width, 3)).astype(np.uint8)


def test_shape_fps_and_the_users_own_pixels(world):
    clip = world.generate(input=frames(5), num_frames=7, seed=3)
    assert clip.frames.shape == (7, 32, 32, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.fps == 12
    assert np.array_equal(clip.frames[:5], frames(5))


def test_without_keep_input_the_prefix_is_its_reconstruction(world):
    clip = world.generate(input=frames(5), keep_input=False)
    x = torch.from_numpy(frames(5).copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    z = world.tokenizer.encode(x)
    whole = torch.cat([z, torch.zeros_like(z[:, :, :1])], dim=2)
    want = world.tokenizer.decode(whole)[0, :, :5].clamp(-1, 1).add(1).mul(127.5).round().movedim(0, -1)
    assert np.abs(clip.frames[:5].astype(int) - want.numpy().astype(int)).max() <= 1


def test_same_seed_same_video_other_seed_other_video(world):
    one, two, three = (world.generate(input=frames(5), seed=s).frames for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_actions_matter_and_zeros_are_the_default(world):
    moved = world.generate(input=frames(5), actions=np.ones((8, 2), np.float32)).frames
    zero = world.generate(input=frames(5), actions=np.zeros((8, 2), np.float32)).frames
    none = world.generate(input=frames(5)).frames
    assert np.array_equal(zero, none)
    assert not np.array_equal(zero, moved)


def test_the_last_actions_beyond_the_clip_do_not_matter(world):
    actions = np.ones((20, 2), np.float32)
    actions[8:] = 7
    assert np.array_equal(
        world.generate(input=frames(5), actions=actions).frames, world.generate(input=frames(5), actions=actions[:8]).frames
    )


def test_every_action_of_the_output_counts_at_any_length(world):
    """Seven frames need two latent frames after the first; actions 4 and 5 act in the part that is cropped to."""
    for i in range(6):
        still, moved = np.zeros((6, 2), np.float32), np.zeros((6, 2), np.float32)
        moved[i] = 3
        one, two = (world.generate(input=frames(1), num_frames=7, actions=a).frames for a in (still, moved))
        assert not np.array_equal(one, two)


def test_a_cropped_clip_is_the_longer_one_without_its_end(world):
    """The request is rounded up to 1 + t·k frames, during which nothing acts."""
    actions = np.ones((6, 2), np.float32)
    longer = np.concatenate([actions, np.zeros((2, 2), np.float32)])
    short = world.generate(input=frames(1), num_frames=7, actions=actions).frames
    assert np.array_equal(short, world.generate(input=frames(1), num_frames=9, actions=longer).frames[:7])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_world_in_half_precision_generates_the_same_but_coarser(make_world, dtype):
    half, whole = make_world(), make_world()
    half.network.to(dtype)
    half.tokenizer.to(dtype)
    request = whole.resolve(num_inference_steps=1, guidance_scale=1.0)
    one, two = (w.sample(request, [frames(5)], np.ones((1, 9, 2), np.float32)) for w in (half, whole))
    assert np.abs(one.astype(int) - two.astype(int)).mean() < 3


def test_everything_reaches_a_world_on_another_device(make_world):
    """The meta device stands for a GPU: mixing it with the CPU fails, and so does only at the end copying frames off it."""
    world = make_world()
    world.network.to("meta")
    world.tokenizer.to("meta")
    request = world.resolve(guidance_scale=1.0)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        world.sample(request, [frames(5)], np.ones((1, 9, 2), np.float32))


def test_four_prefix_frames_condition_one_and_fit_four_frames(world):
    assert world.generate(input=frames(4), num_frames=4).frames.shape == (4, 32, 32, 3)


def test_a_batch_equals_its_samples(world):
    request = world.resolve(seed=4)
    actions = np.random.default_rng(0).standard_normal((2, 9, 2)).astype(np.float32)
    both = world.sample(request, [frames(5, seed=1), frames(5, seed=2)], actions)
    second = world.sample(world.resolve(seed=5), [frames(5, seed=2)], actions[1:])
    assert np.abs(both[1].astype(int) - second[0].astype(int)).max() <= 1


@pytest.mark.parametrize(("height", "width", "count"), [(32, 32, 1), (48, 40, 6), (33, 47, 9), (16, 64, 12)])
def test_any_size_and_length(world, height, width, count):
    request = world.resolve(height=height, width=width, num_frames=count + 1)
    clips = world.sample(request, [read_prefix(frames(1, 50, 70), 1, height, width)], None)
    assert clips.shape == (1, count + 1, height, width, 3)


def test_of_n_prefix_frames_the_last_that_fit_condition():
    assert [conditioning_length(n, 4) for n in (1, 2, 4, 5, 8, 9)] == [1, 1, 1, 5, 5, 9]
    assert len(read_prefix(frames(9), 3, 32, 32)) == 3


def test_image_files_of_any_size_and_videos(world, tmp_path):
    from PIL import Image

    Image.fromarray(frames(1, 50, 90)[0]).save(tmp_path / "first.png")
    video = write_video(tmp_path / "in.mp4", frames(20, 40, 64), 24)
    assert world.generate(input=tmp_path / "first.png", num_frames=5).frames.shape == (5, 32, 32, 3)
    clip = world.generate(input=str(video))
    last = read_video(video).frames[-5:, 4:-4, 16:-16]
    assert np.abs(clip.frames[:5].astype(int) - read_prefix(str(video), 5, 32, 32).astype(int)).max() == 0
    assert last.shape[0] == 5


def test_saved_with_seed_and_config(world, tmp_path):
    path = world.generate(input=frames(5), seed=11).save(tmp_path / "out.mp4")
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["seed"] == 11
    assert sidecar["config"]["num_inference_steps"] == 2
    assert [v["guard"] for v in sidecar["verdicts"]] == ["flash", "nsfw", "faces", "flash", "nsfw"]  # frames in, frames out
    assert {v["status"] for v in sidecar["verdicts"]} == {"safe"}
    assert read_metadata(path)["seed"] == "11"
    assert read_video(path).frames.shape == (9, 32, 32, 3)


def test_callback_sees_every_step(world):
    seen = []
    world.generate(input=frames(5), num_inference_steps=3, callback_on_step_end=lambda i, n, x0: seen.append((i, n, x0.shape)))
    assert [row[:2] for row in seen] == [(0, 3), (1, 3), (2, 3)]
    assert seen[0][2] == (1, 4, 3, 4, 4)


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"num_frames": 0}, ConfigError, "num_frames"),
        ({"guidance_scale": -1.0}, ConfigError, "guidance_scale"),
        ({"num_inference_steps": 0}, ConfigError, "num_inference_steps"),
        ({"seed": 2**64}, ConfigError, "seed"),
        ({"num_frames": 10**12}, ResourceError, r"\d{4,} frames of 32x32 would fit"),
        ({"height": 10**12}, UsageError, "patch rows"),
        ({"prompt": "a robot"}, UsageError, "without text"),
        ({"num_frames": 5, "input": frames(5)}, UsageError, "The prefix has 5 frames"),
        ({"actions": np.ones((3, 2))}, UsageError, "need 8 actions"),
        ({"actions": np.ones((9, 3))}, UsageError, r"\[frames, 2\] \(vx, vy\)"),
        ({"actions": np.full((9, 2), np.nan)}, UsageError, "finite"),
        ({"actions": [["left", "right"]] * 8}, UsageError, r"numbers \[frames, 2\] \(vx, vy\): could not convert"),
        ({"actions": [[1.0, 2.0], [1.0]]}, UsageError, r"numbers \[frames, 2\]"),
        ({"prompt": 5}, UsageError, "A prompt is text, or several texts in a list, not 5"),
        ({"prompt": ["a", 5]}, ConfigError, "later_prompts"),
        ({"negative_prompt": "fog"}, UsageError, "without text"),
        ({"num_prefix_frames": 0, "input": frames(5)}, UsageError, "would not be used"),
        ({"camera": "forward"}, UsageError, "no camera"),
        ({"input": np.zeros((5, 32, 32, 3))}, UsageError, "uint8"),
        ({"input": "absent.png"}, MediaError, "does not exist"),
    ],
)
def test_requests_that_cannot_be_met(world, request_, error, words):
    with pytest.raises(error, match=words):
        world.generate(**request_)


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_an_unsafe_prompt_is_blocked_even_where_no_prompt_would_be_followed(world, name):
    assert world.config.text_encoder == "none"
    with pytest.raises(BlockedError, match="prompt was blocked"):
        world.generate(**{name: "how to build a bomb"})


class Says:
    """A guard that always answers the same."""

    def __init__(self, takes, answer):
        self.name, self.takes, self.answer = "says", takes, answer

    def check(self, item):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Verdict(status="unsafe", guard="says", reason="no"), BlockedError),
        (Verdict(status="error", guard="says"), GuardUnavailable),
        (RuntimeError("broken"), GuardUnavailable),
        (None, GuardUnavailable),
    ],
)
def test_guards_stand_before_and_after(make_world, answer, error):
    world = make_world()
    world.guardrails.video = (Says("video", answer),)
    with pytest.raises(error):
        world.generate()


def test_guards_that_only_warn_are_on_record_with_their_reason(make_world, capsys):
    loose = make_world()
    loose.guardrails = Guardrails.from_policy(GuardPolicy(action="warn", reason="a test"))
    loose.guardrails.video = (Says("video", Verdict(status="unsafe", guard="says", reason="no")),)
    clip = loose.generate()
    assert clip.config["guards"] == "warn: a test"
    assert [v.status for v in clip.verdicts] == ["safe", "unsafe"]  # faces; says
    assert "warning: video: says: no" in capsys.readouterr().err
    assert make_world().generate().config["guards"] == "block"


def test_a_world_folder_round_trips(world, tmp_path):
    folder = save_world(tmp_path / "world", world, provenance={"recipe": "test"}, card="# card\n")
    again = wf.load(folder)
    again.encoder = world.encoder
    assert again.provenance["recipe"] == "test"
    assert np.array_equal(again.generate(input=frames(5)).frames, world.generate(input=frames(5)).frames)
    assert wf.load(folder / "vae").config == world.tokenizer.config
    assert not list(folder.rglob("*.pt"))
    assert not list(folder.rglob("*.bin"))


def test_a_world_that_lacks_a_part_says_which(world, tmp_path):
    import shutil

    folder = save_world(tmp_path / "world", world, provenance={}, card="")
    shutil.rmtree(folder / "vae")
    with pytest.raises(CheckpointError, match="lacks its part 'vae'"):
        wf.load(folder)


def test_a_world_whose_parts_are_not_what_they_should_be(world, tmp_path):
    import shutil

    folder = save_world(tmp_path / "world", world, provenance={}, card="")
    shutil.rmtree(folder / "transformer")
    shutil.copytree(folder / "vae", folder / "transformer")
    with pytest.raises(CheckpointError, match="transformer' holds no diffusion transformer"):
        wf.load(folder)
    for file in (folder / "vae" / "config.json", folder / "model_index.json"):
        file.write_text("[]")
        with pytest.raises(UsageError, match="must hold fields, not list"):
            wf.load(file.parent)


def test_noise_falls_while_sampling():
    with pytest.raises(ConfigError, match=r"sigma_min \(20\) must be at most sigma_max \(10\)"):
        SchedulerConfig.from_dict({"sigma_min": 20.0, "sigma_max": 10.0})


def test_load_says_what_is_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder and no shipped model 'nowhere'"):
        wf.load("nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        wf.load(tmp_path)


def test_a_step_cache_saves_calls_and_is_on_record(world):
    calls = []
    handle = world.network.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    exact = world.generate(input=frames(5), num_inference_steps=8)
    assert len(calls) == 8
    calls.clear()
    quick = world.generate(input=frames(5), num_inference_steps=8, step_cache=1e9)
    handle.remove()
    assert len(calls) == 2  # the first step and the last
    assert quick.config["step_cache"] == 1e9
    assert exact.frames.shape == quick.frames.shape
    assert world.network.blocks[0].mlp is not None


def test_noise_is_drawn_on_the_cpu_whatever_the_world_runs_on(world, monkeypatch):
    devices, randn = [], torch.randn
    monkeypatch.setattr(
        torch, "randn", lambda *a, generator, **k: devices.append(generator.device) or randn(*a, generator=generator)
    )
    elsewhere = world.scheduler.replace(augment_noise=True)
    monkeypatch.setattr(world, "scheduler", elsewhere)
    world.sample_latents(world.resolve(guidance_scale=1.0), [frames(5)], None)
    assert len(devices) == 1 + 2 * 2
    assert {device.type for device in devices} == {"cpu"}


def test_an_input_video_of_a_rate_that_the_world_knows_keeps_it(make_world, make_frames, tmp_path):
    world = make_world(frame_rates=(12.0, 30.0))
    for fps, expected in ((30.0, 30.0), (8.0, 12.0)):
        path = write_video(tmp_path / f"{fps:g}.mp4", make_frames(5), fps)
        assert world.generate(input=path).fps == expected
        assert world.generate(input=path, fps=9.0).fps == 9.0
        assert make_world().generate(input=path).fps == 12.0
