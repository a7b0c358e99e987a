"""The controls do what they say."""

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.baselines import background_control, copy_last_frame, nearest_training_clip
from worldfoundry.evaluation.check import moving_squares


@pytest.mark.parametrize("control", [copy_last_frame, background_control])
def test_the_prefix_is_kept_and_the_input_untouched(control):
    truth = moving_squares(clips=3)
    before = truth.copy()
    made = control(truth, 3)
    np.testing.assert_array_equal(made[:, :3], truth[:, :3])
    np.testing.assert_array_equal(truth, before)
    assert made.shape == truth.shape


def test_copy_last_frame_repeats_it():
    truth = moving_squares(clips=2)
    made = copy_last_frame(truth, 3)
    np.testing.assert_array_equal(made[:, 3:], np.repeat(truth[:, 2:3], truth.shape[1] - 3, axis=1))


def test_the_background_control_erases_what_passes_by():
    clip = np.full((1, 9, 8, 8, 3), 50, np.uint8)
    for t in range(8):
        clip[0, t, :, t] = 255  # a bar that is at each column once
    assert (background_control(clip, 2)[:, 2:] == 50).all()


def test_the_nearest_training_clip_is_found_by_its_prefix():
    training = np.random.default_rng(0).integers(0, 256, (600, 6, 8, 8, 3)).astype(np.uint8)
    reference = training[[550, 3]].copy()
    reference[:, 4:] = 0  # the future is not looked at
    reference[:, 0] = np.clip(reference[:, 0].astype(int) + 3, 0, 255)
    made = nearest_training_clip(reference, 4, [training[:3], training[3:]])
    np.testing.assert_array_equal(made[:, 4:], training[[550, 3], 4:])
    np.testing.assert_array_equal(made[:, :4], reference[:, :4])


def test_training_clips_of_another_size_are_refused():
    with pytest.raises(DataError, match="same size"):
        nearest_training_clip(moving_squares(clips=2), 2, [np.zeros((3, 8, 32, 32, 3), np.uint8)])
