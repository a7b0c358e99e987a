"""The nudity guard: harmless footage passes, the threshold and k of n decide, doubt widens the search, damage blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from worldfoundry.core import shipped
from worldfoundry.core.contracts import VideoItem
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.video_io import read_video
from worldfoundry.data import sample
from worldfoundry.guardrails.check import check_guard
from worldfoundry.guardrails.nsfw import NsfwConfig, NsfwGuard

FOOTAGE = Path(sample.__file__).parent / "sample_footage"


@pytest.fixture(scope="module")
def guard():
    return NsfwGuard(NsfwConfig(interval_s=2))


class Brightness(torch.nn.Module):
    """Stands in for the network: the score of a picture is its brightness."""

    def forward(self, x_BCHW):
        return x_BCHW.mean((1, 2, 3)) / 255


def brightness(scores, **options):
    """A guard whose scores are known, and a video that has them."""
    guard = NsfwGuard(NsfwConfig(**options))
    guard.network = Brightness()
    frames = np.zeros((len(scores), 8, 8, 3), np.uint8)
    frames[:] = np.round(np.array(scores) * 255)[:, None, None, None]
    return guard.check(VideoItem(frames=frames, fps=8))


def test_it_keeps_the_contract(guard):
    check_guard(guard)


@pytest.mark.parametrize("name", ["city.mp4", "episode_000000.mp4"])
def test_harmless_footage_passes(guard, name):
    clip = read_video(FOOTAGE / name, max_frames=40)
    verdict = guard.check(VideoItem(frames=clip.frames, fps=clip.fps))
    assert verdict.status == "safe"
    assert verdict.evidence["score"] < 0.2


def test_one_frame_over_the_threshold_blocks_and_is_named():
    scores = [0.1] * 9
    scores[5] = 0.9
    verdict = brightness(scores)
    assert (verdict.status, verdict.category) == ("unsafe", "sexual")
    assert verdict.evidence["frame"] == 5
    assert verdict.evidence["frames_over"] == 1
    assert "frame 5" in verdict.reason


def test_k_of_n_frames():
    scores = [0.1] * 8 + [0.9] * 3
    assert brightness(scores, frames_needed=3).status == "unsafe"
    assert brightness(scores, frames_needed=4).status == "safe"
    assert brightness([0.9], frames_needed=4).status == "unsafe"  # there is only one


def test_doubt_makes_it_look_at_every_frame():
    calm, doubtful = [0.3] * 30, [0.3] * 14 + [0.5] * 16
    assert brightness(calm).evidence["frames_checked"] < 10
    assert brightness(doubtful, change=0.9).evidence["frames_checked"] == 30
    assert brightness(calm, interval_s=0).evidence["frames_checked"] == 30


@pytest.mark.parametrize(("side", "sees"), [(128, 160), (160, 160), (161, 224)])
def test_small_frames_are_looked_at_small(side, sees):
    guard, sizes = NsfwGuard(NsfwConfig()), []
    guard.network = lambda x: sizes.append(x.shape[2]) or torch.zeros(len(x))
    guard.check(VideoItem(frames=np.zeros((1, 64, side, 3), np.uint8), fps=0))
    assert sizes == [sees]


def test_a_network_that_gives_no_number_is_an_error():
    guard = NsfwGuard(NsfwConfig())
    guard.network = lambda x: torch.full((len(x),), float("nan"))
    assert guard.check(VideoItem(frames=np.zeros((3, 8, 8, 3), np.uint8), fps=8)).status == "error"


def test_damaged_weights_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    (tmp_path / "open-nsfw").mkdir()
    (tmp_path / "open-nsfw" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="SHA-256") as caught:
        NsfwGuard(NsfwConfig())
    assert "\n" not in str(caught.value)
    assert "pip install" in caught.value.hint
