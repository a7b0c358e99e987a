"""Positions of objects that masks point out: closed forms, and silence where colours cannot tell objects apart."""

import numpy as np
import pytest

from worldfoundry.evaluation.compare import evaluate_predictions
from worldfoundry.evaluation.masks import MaskCentroidError, positions
from worldfoundry.evaluation.metrics import METRICS
from worldfoundry.evaluation.present import summary_table


def scene(colour=(200, 40, 90), shift=0, background=90):
    """(clip, masks): an 8x8 square that moves 2 pixels a frame to the right over a plain background, `shift` pixels lower."""
    clip, masks = np.full((1, 6, 48, 64, 3), background, np.uint8), np.zeros((1, 6, 48, 64), np.uint8)
    for t in range(6):
        where = np.s_[0, t, 10 + shift : 18 + shift, 4 + 2 * t : 12 + 2 * t]
        clip[where], masks[where] = colour, 1
    return clip, masks


def score(clip, masks, made, prefix_frames=2):
    return MaskCentroidError(masks)(reference=clip, generated=made, prefix_frames=prefix_frames)


def test_the_truth_scores_zero_and_a_shifted_object_its_shift():
    clip, masks = scene()
    assert score(clip, masks, clip).value == pytest.approx(0)
    assert score(clip, masks, scene(shift=5)[0]).value == pytest.approx(5)


def test_a_copied_frame_is_wrong_by_the_way_gone():
    clip, masks = scene()
    made = clip.copy()
    made[:, 2:] = made[:, 1:2]
    assert score(clip, masks, made).value == pytest.approx(np.mean([2, 4, 6, 8]))


def test_a_vanished_object_counts_as_the_centre():
    clip, masks = scene()
    made = np.full_like(clip, 90)
    x = 4 + 2 * np.arange(2, 6) + 3.5
    assert score(clip, masks, made).value == pytest.approx(np.hypot(x - 31.5, 13.5 - 23.5).mean())


def test_an_object_in_the_backgrounds_colour_is_not_scored_and_that_is_said():
    clip, masks = scene(colour=(90, 90, 90))
    result = score(clip, masks, clip)
    assert np.isnan(result.value)
    assert result.note == "no clip has anything to score here"


def test_other_masks_are_another_protocol():
    clip, masks = scene()
    assert score(clip, masks, clip).protocol != score(clip, np.roll(masks, 1, axis=2), clip).protocol


def test_rows_say_what_the_true_clips_themselves_score():
    """A shadow of the object's colour beside it: in the truth too, colours are found right of the mask by a known part of a pixel."""
    clip, masks = scene()
    for t in range(6):
        clip[0, t, 10:18, 12 + 2 * t] = (200, 40, 90)  # a ninth column, which the mask leaves out
    made = clip.copy()
    made[:, 2:] = made[:, 1:2]
    found = evaluate_predictions(clip, {"same": clip, "still": made}, 2, metrics=[MaskCentroidError(masks), METRICS["psnr"]])
    for horizon in found.horizons:
        assert found.row("centroid_error_masks", "still", horizon).floor == pytest.approx(0.5)
        assert np.isnan(found.row("psnr", "still", horizon).floor)
    assert found.value("centroid_error_masks", "same") == pytest.approx(0.5)
    row = next(row for row in found.to_dict()["rows"] if row["metric"] == "centroid_error_masks")
    assert row["real_against_real"] == pytest.approx(0.5)
    assert "the true clips themselves score 0.5." in summary_table(found).note


def test_positions_are_centroids():
    weight = np.zeros((2, 5, 7))
    weight[0, 1, 2], weight[0, 3, 6] = 1, 3
    np.testing.assert_allclose(positions(weight), [[5, 2.5], [3, 2]])
