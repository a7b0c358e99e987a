"""Which frames a slow network looks at: in time, where the picture changes, and all of them when asked."""

import numpy as np
import torch

from worldfoundry.core.contracts import VideoItem
from worldfoundry.guardrails.frames import pictures, spread, unreadable


def test_first_last_and_one_every_interval():
    frames = np.zeros((33, 20, 30, 3), np.uint8)
    assert spread(frames, 16, 0.5, 0.1) == [0, 8, 16, 24, 32]
    assert spread(frames, 24, 0.5, 0.1) == [0, 12, 24, 32]
    assert spread(frames, 24, 0, 0.1) == list(range(33))
    assert spread(frames[:1], 0, 0.5, 0.1) == [0]
    assert spread(frames[:2], 30, 100, 0.1) == [0, 1]


def test_another_picture_is_looked_at_even_if_it_is_shown_for_one_frame():
    frames = np.zeros((33, 200, 300, 3), np.uint8)
    frames[11] = 200
    assert spread(frames, 16, 0.5, 0.1) == [0, 8, 11, 12, 20, 28, 32]
    frames[11] = 20  # 8 % brighter
    assert 11 not in spread(frames, 16, 0.5, 0.1)


def test_pictures_are_the_whole_frames():
    frames = np.zeros((3, 40, 80, 3), np.uint8)
    frames[2, :, 40:] = (10, 20, 250)
    x = pictures(frames, [2, 0], 16)
    assert x.shape == (2, 3, 16, 16)
    torch.testing.assert_close(x[0, :, 5, -1], torch.tensor([10.0, 20.0, 250.0]))
    assert x[1].abs().max() == 0
    same = pictures(np.full((1, 16, 16, 3), 7, np.uint8), [0], 16)
    assert torch.equal(same, torch.full((1, 3, 16, 16), 7.0))


def test_what_cannot_be_read_is_said():
    good = VideoItem(frames=np.zeros((2, 4, 4, 3), np.uint8), fps=8)
    assert unreadable(good) == ""
    assert "NoneType" in unreadable(None)
    assert "(0, 4, 4, 3)" in unreadable(VideoItem(frames=good.frames[:0], fps=8))
    assert "float64" in unreadable(VideoItem(frames=good.frames * 1.0, fps=8))
    assert "frame rate is nan" in unreadable(VideoItem(frames=good.frames, fps=float("nan")))
    assert unreadable(VideoItem(frames=good.frames[:1], fps=0)) == ""
