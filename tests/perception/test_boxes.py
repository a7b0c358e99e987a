"""Overlap of boxes in closed form; of boxes that overlap, the best stays."""

import numpy as np

from worldfoundry.perception.boxes import best_boxes, overlaps

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [2, 2, 4, 4]], float)


def test_overlap_is_shared_area_over_the_area_of_both():
    np.testing.assert_allclose(overlaps(BOXES[:1], BOXES)[0], [1, 50 / 150, 0, 4 / 100])
    np.testing.assert_allclose(overlaps(BOXES[:1], BOXES, of_smaller=True)[0], [1, 0.5, 0, 1])
    np.testing.assert_allclose(overlaps(BOXES, BOXES), overlaps(BOXES, BOXES).T)
    assert overlaps(np.zeros((0, 4)), BOXES).shape == (0, 4)


def test_the_best_of_overlapping_boxes_stays():
    scores = np.array([0.5, 0.9, 0.1, 0.7])
    assert best_boxes(BOXES, scores, 0.3).tolist() == [1, 3, 2]  # 0 overlaps the better 1 by a third
    assert best_boxes(BOXES, scores, 0.4).tolist() == [1, 3, 0, 2]
    assert best_boxes(BOXES, scores, 0.6, of_smaller=True).tolist() == [1, 3, 2]  # 3 lies wholly in 0
    assert best_boxes(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
