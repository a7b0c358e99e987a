"""The moving mask, by hand."""

import numpy as np

from worldfoundry.evaluation.moving import THRESHOLD, dilate, moving_mask


def clip_with(changes, frames=4, size=16):
    clip = np.full((1, frames, size, size, 3), 100, np.uint8)
    for t, y, x, channel, value in changes:
        clip[0, t, y, x, channel] = value
    return clip


def test_one_changed_pixel_marks_five_by_five():
    mask = moving_mask(clip_with([(3, 8, 5, 1, 100 + THRESHOLD + 1)]), 2)[0]
    expected = np.zeros((16, 16), bool)
    expected[6:11, 3:8] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_change_of_the_threshold_itself_is_still():
    assert not moving_mask(clip_with([(3, 8, 5, 1, 100 + THRESHOLD)]), 2).any()


def test_darker_counts_like_brighter():
    assert moving_mask(clip_with([(2, 8, 5, 2, 100 - THRESHOLD - 1)]), 2).sum() == 25


def test_motion_inside_the_prefix_does_not_count():
    clip = clip_with([(0, 8, 8, 0, 250)])
    assert not moving_mask(clip, 2).any()


def test_the_edge_cuts_the_square():
    assert moving_mask(clip_with([(2, 0, 0, 0, 250)]), 1).sum() == 9


def test_dilation_is_the_union_of_shifts():
    mask = np.random.default_rng(0).random((20, 30)) > 0.95
    padded = np.pad(mask, 1)
    union = np.logical_or.reduce([padded[i : i + 20, j : j + 30] for i in range(3) for j in range(3)])
    np.testing.assert_array_equal(dilate(mask, 3), union)
