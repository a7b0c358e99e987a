"""Codecs keep to their budget, use most of it, and say when they cannot."""

import numpy as np
import pytest

from worldfoundry.recipes.codec_peers import bicubic, comment_bytes, h264, h264_at, jpeg


@pytest.fixture(scope="module")
def clip():
    """Eight frames of a smooth pattern that moves, with some noise, of odd size."""
    y, x = np.mgrid[0:47, 0:61]
    rng = np.random.default_rng(0)
    frames = [128 + 90 * np.sin((x[..., None] + 3 * t) / (5 + np.arange(3))) * np.cos(y[..., None] / 9) for t in range(8)]
    return (np.stack(frames) + rng.normal(0, 4, (8, 47, 61, 3))).clip(0, 255).astype(np.uint8)


def mse(a, b):
    return float(np.square(a.astype(float) - b).mean())


@pytest.mark.parametrize("code", [jpeg, h264])
def test_a_codec_spends_what_it_may_and_more_buys_more(code, clip):
    small, large = (code(clip, bits) for bits in (40_000, 80_000))
    assert small.frames.shape == large.frames.shape == clip.shape
    for coded, bits in ((small, 40_000), (large, 80_000)):
        assert not coded.over
        assert 0.8 * bits < coded.spent <= bits
    assert mse(large.frames, clip) < mse(small.frames, clip)


@pytest.mark.parametrize("code", [jpeg, h264])
def test_a_budget_that_is_too_small_is_admitted(code, clip):
    coded = code(clip, 100.0)
    assert coded.over
    assert coded.spent > 100
    assert coded.frames.shape == clip.shape


def test_the_comment_is_not_counted_and_pictures_are():
    """x264 writes its settings, about 700 bytes, into the stream: more than eight black frames take."""
    stream, bits = h264_at(np.zeros((8, 32, 32, 3), np.uint8), 51.0)
    assert b"x264 - core" in stream
    assert 0 < bits < 8 * 400
    unit = b"\0\0\0\1"
    assert (
        comment_bytes(unit + b"\x67abc" + unit + b"\x06comment" + unit + b"\x65picture") == len(unit) - 1 + 8
    )  # of a start code the first zero ends the unit before


def test_bicubic_keeps_to_its_number_of_values(clip):
    for values in (700.0, 5000.0):
        made = bicubic(clip, values)
        assert made.spent <= values
        assert made.spent > 0.6 * values
        assert not made.over
    assert np.array_equal(bicubic(clip, clip.size).frames, clip)
    assert bicubic(clip, 10.0).over  # three values a frame is the least
    flat = np.full((2, 16, 16, 3), 77, np.uint8)
    assert np.array_equal(bicubic(flat, 12).frames, flat)
