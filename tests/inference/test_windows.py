"""Windows cover a clip of any length, each begins where the one before has been, and their joins are not seen."""

import itertools

import numpy as np
import pytest
import torch

from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.windows import Window, plan_windows, prompt_at
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config


@pytest.mark.parametrize("end", [0, 1, 2, 3])
@pytest.mark.parametrize("overlap", [1, 2, 4])
def test_every_window_adds_frames_that_the_next_goes_on_from_and_is_of_the_trained_length(overlap, end):
    for frames, given in itertools.product(range(1, 40), range(5)):
        windows = plan_windows(frames, 5, overlap, given=given, end=end)
        assert all(w.length == min(frames, 5) for w in windows)
        for window, following in itertools.pairwise(windows):
            assert window.first_new < following.first_new <= window.start + window.length
            assert window.start <= following.start
            assert 1 <= following.overlap <= overlap or given > window.start == 0
        last = windows[-1]
        assert last.start + last.length == frames if end else last.first_new < frames <= last.start + last.length
        if end and given + end < frames and len(windows) > 1:
            assert given <= last.first_new < frames - end, "something is left to make by what knows the end"


def test_the_last_window_is_given_no_more_than_others_of_what_did_not_know_the_end():
    assert plan_windows(6, 5, 2, end=1) == [Window(start=0, length=5, overlap=0), Window(start=1, length=5, overlap=2)]


@pytest.mark.parametrize("extension", ["latents", "frames"])
def test_an_end_is_known_to_all_that_the_last_window_makes(extension):
    """Frames 0 … 12 are made before the end is known; the last window goes on from there and makes the rest."""
    world = make_world(extension=extension)
    request = world.resolve(num_frames=25)
    end = np.full((4, 16, 16, 3), 200, np.uint8)
    video = world.sample(request, [None], None, ends=[end])
    *before, told = (condition for condition in world.denoiser.told[::2])
    assert all(condition.suffix_BCTHW is None for condition in before)
    assert (told.prefix_BCTHW.shape[2], told.suffix_BCTHW.shape[2]) == (2, 1)
    if extension == "latents":
        z = world.sample_latents(request, [None], None, ends=[end])
        torch.testing.assert_close(z.diff(dim=2), torch.full_like(z[:, :, 1:], Continues.STEP / 0.5), atol=1e-5, rtol=0)
    else:
        x = torch.from_numpy(video[:, 8:13].copy()).movedim(-1, 1).float() / 127.5 - 1
        want = world.tokenizer.normalize(world.tokenizer.encode(x)) * 0.5
        torch.testing.assert_close(told.prefix_BCTHW, want, atol=0.02, rtol=0)
    assert video.shape == (1, 25, 16, 16, 3)
    assert (video[:, -4:] == 200).all()


def test_an_overlap_that_would_leave_nothing_new_is_cut():
    assert plan_windows(4, 3, 9)[1] == Window(start=1, length=3, overlap=2)


def test_prompts_share_a_clip_out_evenly():
    windows = plan_windows(17, 5, 1)
    assert [prompt_at(w, 2, 17) for w in windows] == [0, 0, 1, 1]
    assert [prompt_at(w, 1, 17) for w in windows] == [0, 0, 0, 0]


class Continues:
    """A denoiser that knows the motion: a ramp by `STEP` per latent frame, which goes on from the given frames."""

    STEP = 0.05

    def __init__(self):
        self.told = []

    def __call__(self, x_BCTHW, sigma_B, condition):
        frames = torch.arange(x_BCTHW.shape[2], dtype=torch.float32)
        self.told.append(condition)
        prefix = condition.prefix_BCTHW
        from_ = torch.zeros(1, 1, 1, 1, 1) if prefix is None else prefix[:, :, -1:]
        given = 1 if prefix is None else prefix.shape[2]
        ramp = from_ + self.STEP * (frames - (given - 1)).view(1, 1, -1, 1, 1)
        ramp = ramp.expand_as(x_BCTHW).clone()
        if prefix is not None:
            ramp[:, :, :given] = prefix
        return ramp


def make_world(**changes):
    tokenizer = build_tokenizer(named_config("debug").to_dict()).eval().requires_grad_(False)
    dit = DiTConfig(
        in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=16, adaln_lora_dim=4,
        max_frames=5, max_h=8, max_w=8, condition_mask=True, action_dim=4 * 2,
    )  # fmt: skip
    defaults = WorldDefaults(
        num_frames=17, height=16, width=16, num_prefix_frames=5, num_inference_steps=2, guidance_scale=0.0, context_rows=2,
        action_names=("v",), action_rms=(1.0,),
    ).replace(**changes)  # fmt: skip
    world = DiffusionWorld(DiT(dit).eval().requires_grad_(False), tokenizer, SchedulerConfig(), defaults)
    world.denoiser = Continues()
    return world


@pytest.mark.parametrize("num_frames", [18, 21, 40, 97])
def test_a_known_motion_goes_on_across_windows(num_frames):
    """Differences between latent frames are the same everywhere, joins included."""
    world = make_world(extension="latents")
    request = world.resolve(num_frames=num_frames)
    z = world.sample_latents(request, [None], None)
    assert z.shape[2] == 1 + -(-(num_frames - 1) // 4)
    torch.testing.assert_close(z.diff(dim=2), torch.full_like(z[:, :, 1:], Continues.STEP / 0.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("extension", ["latents", "frames"])
def test_windows_are_decoded_as_one_clip(extension):
    """What comes out is what the decoder makes of all latents at once: windows meet inside the clip, not at its cuts."""
    world = make_world(extension=extension)
    request = world.resolve(num_frames=45)
    video = world.sample(request, [None], None)
    with torch.no_grad():
        z = world.sample_latents(request, [None], None)
        whole = world.tokenizer.decode(world.tokenizer.denormalize(z))[0, :, :45]
    want = whole.clamp(-1, 1).add(1).mul(127.5).round().movedim(0, -1).numpy()
    assert video.shape == (1, 45, 16, 16, 3)
    assert np.abs(video[0].astype(int) - want.astype(int)).max() <= 1


def test_the_next_window_is_given_the_encoded_last_frames():
    world = make_world(extension="frames")
    request = world.resolve(num_frames=29)
    video = world.sample(request, [None], None)
    second = next(told for told in world.denoiser.told if told.prefix_BCTHW is not None)
    x = torch.from_numpy(video[:, 12:17].copy()).movedim(-1, 1).float() / 127.5 - 1
    want = world.tokenizer.normalize(world.tokenizer.encode(x)) * 0.5
    torch.testing.assert_close(second.prefix_BCTHW, want, atol=0.02, rtol=0)


def test_actions_and_prompts_are_those_of_the_window():
    world = make_world(extension="latents", text_encoder="minilm")
    world.encoder = ByLength()
    actions = np.arange(1, 41, dtype=np.float32).reshape(1, 40, 1)
    world.sample_latents(world.resolve(num_frames=37, prompt=["a", "bbb"]), [None], actions)
    told = world.denoiser.told[::2]
    assert [int(condition.context_BLD[0, 0, 0]) for condition in told] == [1, 3, 3]
    # Frame f of a window that begins at 12·n is driven by action 12·n + f - 1, which has the value 12·n + f.
    for n, condition in enumerate(told):
        driving = condition.actions_BTA[0, 1:].reshape(-1, 2)[:, 0]
        want = [float(12 * n + f) if 12 * n + f <= 37 else 0.0 for f in range(1, 17)]
        assert driving.tolist() == want


class ByLength:
    """An encoder whose rows say how long the prompt is."""

    name, width, max_length = "minilm", 16, 2

    def encode(self, prompts):
        return torch.tensor([float(len(p)) for p in prompts]).view(-1, 1, 1).expand(-1, 2, 16)


def test_steps_are_counted_over_all_windows():
    world, seen = make_world(extension="latents"), []
    request = world.resolve(num_frames=29)
    world.sample_latents(request, [None], None, callback_on_step_end=lambda i, n, x0: seen.append((i, n)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_prompts_that_no_window_would_follow_are_refused():
    world = make_world(text_encoder="minilm")
    world.encoder = ByLength()
    with pytest.raises(UsageError, match="3 prompts cannot share a video that is made in one window: 'b' would not be used"):
        world.generate(prompt=["a", "b", "c"], upsample_prompt=False)
    with pytest.raises(UsageError, match="made in 2 windows: 'b' would not be used"):
        world.generate(prompt=["a", "b", "c"], num_frames=21, upsample_prompt=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input": 13}, "The prefix has 13 frames, but .* 21 frames is made in windows of 9, of which at most 8 fit"),
        ({"end": 5}, "The end has 5 frames, but .* at most 4 fit beside what it makes. Lower num_prefix_frames"),
    ],
)
def test_given_frames_that_fill_a_window_are_refused_before_any_work(given, words, monkeypatch):
    world = make_world(trained_frames=9)
    monkeypatch.setattr(world, "sample", None)
    frames = {name: np.full((count, 16, 16, 3), 99, np.uint8) for name, count in given.items()}
    with pytest.raises(UsageError, match=words):
        world.generate(**frames, num_frames=21, num_prefix_frames=13)


def test_given_frames_that_leave_a_window_something_are_taken():
    world = make_world(trained_frames=9)
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    frames = np.full((8, 16, 16, 3), 99, np.uint8)
    clip = world.generate(input=frames, end=frames[:4], num_frames=21, num_prefix_frames=8)
    assert len(clip.frames) == 21


def test_windows_that_cannot_go_on_from_frames_say_so_once(monkeypatch, capsys):
    world = make_world(extension="frames")
    monkeypatch.setattr("worldfoundry.inference.rollout.decode_bytes", lambda *_: 2**62)
    world.sample(world.resolve(num_frames=40), [None], None)
    assert capsys.readouterr().err.count("go on from the latents of the one before, not from its frames") == 1
    world.sample(world.resolve(num_frames=17), [None], None)
    assert "go on from" not in capsys.readouterr().err
