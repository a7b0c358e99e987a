"""Bucket names: nearest aspect in log ratio; images apart; steps reached, not exceeded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldfoundry.data.buckets import ASPECTS, bucket_name, bucket_size, nearest_aspect

SIDE = st.integers(min_value=1, max_value=8000)


@pytest.mark.parametrize(
    ("width", "height", "frames", "name"),
    [
        (1920, 1080, 150, "1080p_16x9_f128"),
        (1080, 1920, 33, "1080p_9x16_f032"),
        (640, 480, 127, "480p_4x3_f064"),
        (64, 64, 160, "064p_1x1_f128"),
        (65, 47, 1, "000p_4x3_f001"),
    ],
)
def test_examples(width: int, height: int, frames: int, name: str) -> None:
    assert bucket_name(width, height, frames) == name


@given(SIDE, SIDE)
def test_turning_a_picture_turns_its_aspect(width: int, height: int) -> None:
    upright, turned = nearest_aspect(width, height), nearest_aspect(height, width)
    assert ASPECTS[upright] * ASPECTS[turned] == pytest.approx(1)


@given(SIDE, SIDE, st.integers(min_value=1, max_value=5000))
def test_images_and_clips_never_share_a_bucket(width: int, height: int, frames: int) -> None:
    assert bucket_name(width, height, 1, image=True) != bucket_name(width, height, frames)


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        bucket_name(0, 5, 3)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_all_aspects_hold_about_as_many_pixels(aspect: str) -> None:
    height, width = bucket_size(aspect, 704, 1280, 16)
    assert height % 16 == width % 16 == 0
    assert height * width == pytest.approx(704 * 1280, rel=0.03)
    assert width / height == pytest.approx(ASPECTS[aspect], rel=0.03)


def test_small_sizes_keep_at_least_one_patch() -> None:
    assert bucket_size("16x9", 16, 16, 16) == (16, 16)
