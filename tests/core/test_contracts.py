"""The arithmetic of TokenizerSpec, and the small values that travel between rooms."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldfoundry.core.contracts import Guard, TokenizerSpec, Verdict, VideoItem, WorldVideo
from worldfoundry.core.video_io import read_metadata, read_video


def spec(t):
    return TokenizerSpec(t=t, h=8, w=8, channels=16, causal=True)


@given(t=st.sampled_from([1, 2, 4, 8]), k=st.integers(0, 50))
def test_a_clip_of_1_plus_tk_frames_has_1_plus_k_latent_frames(t, k):
    frames = 1 + t * k
    assert spec(t).latent_frames(frames) == 1 + k
    assert spec(t).round_up_frames(frames) == frames


@given(t=st.sampled_from([1, 2, 4, 8]), n=st.integers(1, 400))
def test_rounding_up_gives_the_smallest_clip_that_fits(t, n):
    up = spec(t).round_up_frames(n)
    assert n <= up < n + t
    assert (up - 1) % t == 0


def test_published_shapes():
    assert spec(8).latent_frames(121) == 16  # the 121 frames of Cosmos are 16 latent frames at 8x8x8
    assert spec(8).latent_frames(1) == 1
    assert spec(8).round_up_frames(0) == 1


def test_levels_make_a_tokenizer_discrete():
    assert not spec(8).discrete
    assert TokenizerSpec(t=8, h=8, w=8, channels=6, causal=True, levels=(8, 8, 8, 5, 5, 5)).discrete


@pytest.mark.parametrize(("status", "blocks"), [("safe", False), ("unsafe", True), ("skipped", True), ("error", True)])
def test_anything_but_safe_blocks(status, blocks):
    assert Verdict(status=status, guard="g").blocks is blocks


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Verdict(status="unsafe", guard="g").status = "safe"


def test_guard_protocol_is_structural():
    class Mine:
        name = "mine"
        takes = "text"

        def check(self, item):
            return Verdict(status="safe", guard=self.name)

    assert isinstance(Mine(), Guard)
    assert not isinstance(VideoItem(frames=np.zeros((1, 2, 2, 3), np.uint8), fps=0), Guard)


def test_a_saved_world_video_carries_seed_config_and_verdicts(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    verdict = Verdict(status="safe", guard="flash", evidence={"frames": 5})
    video = WorldVideo(frames=frames, fps=10, seed=7, config={"prompt": "a cube"}, verdicts=(verdict,))
    path = video.save(tmp_path / "out.mp4")
    assert read_metadata(path)["seed"] == "7"
    assert json.loads(read_metadata(path)["worldfoundry"]) == {"prompt": "a cube"}
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["seed"], record["num_frames"], record["config"]) == (7, 5, {"prompt": "a cube"})
    assert record["verdicts"][0]["guard"] == "flash"
    assert read_video(path).frames.shape == frames.shape
