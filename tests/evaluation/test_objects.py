"""Centroids of coloured blobs whose place is known."""

import numpy as np
import pytest

from worldfoundry.evaluation.objects import BLOCK, PUSHER, VISIBLE, centroids


def picture(colour, rows, columns, size=64):
    frame = np.full((size, size, 3), 120, np.uint8)
    frame[rows, columns] = colour
    return frame


@pytest.mark.parametrize(("thing", "colour"), [(PUSHER, (255, 0, 255)), (BLOCK, (25, 204, 25)), (BLOCK, (25, 64, 242))])
def test_a_rectangle_has_its_centroid_in_the_middle(thing, colour):
    xy, mass = centroids(picture(colour, slice(10, 20), slice(30, 36))[None], thing)
    np.testing.assert_allclose(xy[0], (32.5, 14.5), atol=1e-4)
    assert mass[0] > VISIBLE


def test_each_object_ignores_the_other_and_the_table():
    frame = picture((255, 0, 255), slice(10, 20), slice(30, 36))
    frame[40:50, 5:15] = (25, 204, 25)
    np.testing.assert_allclose(centroids(frame[None], PUSHER)[0][0], (32.5, 14.5), atol=1e-4)
    np.testing.assert_allclose(centroids(frame[None], BLOCK)[0][0], (9.5, 44.5), atol=1e-4)


def test_nothing_to_see_is_the_centre_with_no_mass():
    xy, mass = centroids(np.full((1, 32, 64, 3), 120, np.uint8), PUSHER)
    np.testing.assert_allclose(xy[0], (31.5, 15.5))
    assert mass[0] == 0
