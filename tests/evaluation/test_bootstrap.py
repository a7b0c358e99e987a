"""Intervals: they cover the truth about as often as they claim, and pairing removes what clips have in common."""

import numpy as np
import pytest

from worldfoundry.evaluation.bootstrap import ClipSums, interval, paired_difference, resampling_weights


def sums(values, decibel=False):
    values = np.asarray(values, dtype=float)
    return ClipSums(total_N=values, count_N=np.ones_like(values), decibel=decibel)


def test_intervals_cover_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        low, high = interval(sums(rng.normal(3.0, 2.0, 40)), resampling_weights(40, 400, seed))
        covered += low <= 3.0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_every_resample_draws_as_many_clips_as_there_are():
    weights = resampling_weights(7, 50, 3)
    assert (weights.sum(1) == 7).all()
    np.testing.assert_array_equal(weights, resampling_weights(7, 50, 3))


def test_resamples_of_equal_clips_are_all_the_value():
    low, high = interval(sums([4.0] * 9, decibel=True), resampling_weights(9, 100, 0))
    assert low == high == pytest.approx(10 * np.log10(255**2 / 4))


def test_a_constant_advantage_has_a_paired_interval_of_width_zero():
    values = np.random.default_rng(0).normal(20, 5, 30)
    weights = resampling_weights(30, 200, 0)
    difference, low, high = paired_difference(sums(values + 1.5), sums(values), weights)
    np.testing.assert_allclose([difference, low, high], 1.5)
    alone = interval(sums(values + 1.5), weights)
    assert alone[1] - alone[0] > 2


def test_one_clip_has_no_interval():
    assert np.isnan(interval(sums([3.0]), resampling_weights(1, 100, 0))).all()
