"""Cropping covers, padding keeps the whole picture, and the mask says where the picture is not."""

import numpy as np
import pytest

from worldfoundry.data.resize import fit, pad_to, padding_mask, picture_place


def picture(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4, columns * 4, rows + columns], axis=-1).astype(np.uint8)[None]


def test_a_picture_of_the_size_is_left_alone():
    frames = picture(16, 24)
    assert fit(frames, 16, 24) is frames
    assert np.array_equal(pad_to(frames, 16, 24), frames)
    assert not padding_mask(16, 24, 16, 24).any()


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16), (17, 31), (64, 16)])
def test_the_picture_lies_in_the_middle_and_its_reflection_around_it(height, width):
    frames, mask = picture(16, 16), padding_mask(16, 16, height, width)
    padded = pad_to(frames, height, width)
    top, left, down, across = picture_place(16, 16, height, width)
    inside = padded[:, top : top + down, left : left + across]
    assert padded.shape == (1, height, width, 3)
    assert abs(2 * top + down - height) <= 1
    assert abs(2 * left + across - width) <= 1
    assert (mask == 0).sum() == down * across
    assert not mask[top : top + down, left : left + across].any()
    if down == across == 16:
        assert np.array_equal(inside, frames)
    if left:
        assert np.array_equal(padded[:, :, left - 1], padded[:, :, left + 1])  # reflected about the outermost column
    if top:
        assert np.array_equal(padded[:, top - 1], padded[:, top + 1])


def test_cropping_covers():
    assert fit(picture(16, 32), 8, 8).shape == (1, 8, 8, 3)
