"""Flashes are counted as the definition counts them; every frame is looked at."""

import numpy as np
import pytest

from worldfoundry.core.contracts import VideoItem
from worldfoundry.guardrails.flash import FlashConfig, FlashGuard, changes

GUARD = FlashGuard(FlashConfig())
BLACK, WHITE, RED, GREY = (0, 0, 0), (255, 255, 255), (255, 0, 0), (128, 128, 128)


def level(luminance):
    """The grey whose relative luminance comes closest (WCAG, inverse of its linearisation)."""
    value = 12.92 * luminance if luminance <= 0.0031308 else 1.055 * luminance ** (1 / 2.4) - 0.055
    return (round(255 * value),) * 3


def blink(one, other, hz, *, fps=60, seconds=2.0, area=1.0):
    """A field of `one` in which `area` of the width shows `other` during every second half period."""
    time_T = np.arange(round(fps * seconds)) / fps
    frames = np.empty((len(time_T), 32, 64, 3), np.uint8)
    frames[:] = one
    on_T = (2 * hz * time_T + 1e-9).astype(int) % 2 == 1
    frames[on_T, :, : round(64 * area)] = other
    return VideoItem(frames=frames, fps=fps)


@pytest.mark.parametrize(
    ("hz", "status"), [(0.5, "safe"), (1, "safe"), (3, "safe"), (4, "unsafe"), (10, "unsafe"), (30, "unsafe")]
)
def test_more_than_three_flashes_a_second(hz, status):
    assert GUARD.check(blink(BLACK, WHITE, hz)).status == status


def test_the_seventh_change_in_a_second_decides():
    """Three flashes are six changes between neighbouring peaks and valleys."""
    for count, status in ((6, "safe"), (7, "unsafe")):
        frames = np.zeros((60, 16, 16, 3), np.uint8)
        for i in range(count):
            frames[5 + 5 * i :] = 0 if i % 2 else 255
        verdict = GUARD.check(VideoItem(frames=frames, fps=60))
        assert verdict.evidence["max_changes"] == count
        assert verdict.status == status


@pytest.mark.parametrize(
    ("dark", "bright", "status"),
    [
        (0.30, 0.38, "safe"),  # less than 10 % of the maximum
        (0.30, 0.42, "unsafe"),
        (0.82, 0.98, "safe"),  # the darker image is not below 0.80
        (0.76, 0.98, "unsafe"),
        (0.00, 0.12, "unsafe"),
    ],
)
def test_how_much_light_makes_a_flash(dark, bright, status):
    assert GUARD.check(blink(level(dark), level(bright), 6)).status == status


@pytest.mark.parametrize(("area", "status"), [(0.125, "safe"), (0.1875, "safe"), (0.25, "unsafe"), (0.5, "unsafe")])
def test_a_quarter_of_the_frame(area, status):
    assert GUARD.check(blink(BLACK, WHITE, 6, area=area)).status == status


def test_halves_that_flash_in_opposition_are_found():
    item = blink(BLACK, WHITE, 6, area=0.5)
    frames = item.frames.copy()
    frames[:, :, 32:] = 255 - frames[:, :, :32]
    assert GUARD.check(VideoItem(frames=frames, fps=60)).status == "unsafe"


def test_red_flashes_count_where_the_light_hardly_changes():
    grey = level(0.2126)  # as bright as pure red
    verdict = GUARD.check(blink(RED, grey, 6))
    assert (verdict.status, verdict.evidence["kind"]) == ("unsafe", "red")
    assert GUARD.check(blink(RED, grey, 2)).status == "safe"
    assert GUARD.check(blink((0, 0, 255), level(0.0722), 6)).status == "safe"  # the same in blue is no red flash


def test_a_ramp_is_one_change_and_noise_on_it_is_none():
    ramp = np.linspace(0, 255, 60).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (60, 16, 16, 3))
    rise, fall, _, _ = changes(frames)
    assert rise.sum(axis=0).max() == 1
    assert fall.sum() == 0


def test_slow_flashes_built_of_steps_still_count():
    """Each step is under 10 %, the way from valley to peak is not."""
    wave = (0.3 + 0.3 * np.sin(2 * np.pi * 5 * np.arange(120) / 60)).clip(0, 1)
    frames = np.stack([np.full((16, 16, 3), level(y)[0], np.uint8) for y in wave])
    assert GUARD.check(VideoItem(frames=frames, fps=60)).status == "unsafe"


def test_a_bright_thing_that_sweeps_through_the_picture_is_no_flash():
    frames = np.zeros((48, 64, 64, 3), np.uint8)
    for i in range(48):
        x = (8 * i) % 64
        frames[i, :, x : x + 12] = 255
    assert GUARD.check(VideoItem(frames=frames, fps=24)).status == "safe"


def test_white_noise_is_an_excepted_pattern():
    noise = np.random.default_rng(0).integers(0, 256, (30, 128, 128, 3), dtype=np.uint8)
    assert GUARD.check(VideoItem(frames=noise, fps=30)).status == "safe"


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (1, 1, 1, 3), (50, 1, 1, 3), (30, 7, 300, 3)])
def test_still_pictures_of_any_size_are_safe_and_all_frames_are_counted(shape):
    verdict = GUARD.check(VideoItem(frames=np.full(shape, 200, np.uint8), fps=25))
    assert verdict.status == "safe"
    assert verdict.evidence["frames_checked"] == verdict.evidence["frames"] == shape[0]


def test_one_frame_needs_no_rate():
    assert GUARD.check(VideoItem(frames=np.zeros((1, 8, 8, 3), np.uint8), fps=0)).status == "safe"


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_several_frames_without_a_rate_cannot_be_judged(fps):
    verdict = GUARD.check(VideoItem(frames=np.zeros((2, 8, 8, 3), np.uint8), fps=fps))
    assert verdict.status == "error"
    assert "frame rate" in verdict.reason


@pytest.mark.parametrize(
    "item",
    [
        None,
        "video.mp4",
        np.zeros((2, 8, 8, 3), np.uint8),
        VideoItem(frames=np.full((2, 8, 8, 3), np.nan), fps=24),
        VideoItem(frames=np.zeros((2, 8, 8, 3), np.float32), fps=24),
        VideoItem(frames=np.zeros((0, 8, 8, 3), np.uint8), fps=24),
        VideoItem(frames=np.zeros((2, 8, 8, 4), np.uint8), fps=24),
        VideoItem(frames=np.zeros((2, 3, 8, 8), np.uint8), fps=24),
    ],
)
def test_what_is_no_video_is_an_error(item):
    assert GUARD.check(item).status == "error"


def test_the_last_second_is_checked_too():
    item = blink(BLACK, WHITE, 6, seconds=1.0)
    calm = np.zeros((240, 32, 64, 3), np.uint8)
    verdict = GUARD.check(VideoItem(frames=np.concatenate([calm, item.frames]), fps=60))
    assert verdict.status == "unsafe"
    assert verdict.evidence["frame"] > 240


def test_thresholds_are_options():
    strict = FlashGuard(FlashConfig(max_flashes_per_s=0))
    assert strict.check(blink(BLACK, WHITE, 1)).status == "unsafe"
    assert FlashGuard(FlashConfig(area=0.9)).check(blink(BLACK, WHITE, 6, area=0.5)).status == "safe"
