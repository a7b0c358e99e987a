"""Intervals: they cover the truth about as often as they claim, and pairing removes what clips have in common."""

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.bootstrap import (
    ClipSums,
    few_draws,
    interval,
    paired_difference,
    resampling_weights,
    source_indices,
)


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


def test_with_alike_clips_only_intervals_over_sources_keep_their_promise():
    """8 windows of each of 20 videos: what differs is mostly the video."""
    rng = np.random.default_rng(0)
    source_N = np.repeat(np.arange(20), 8)
    by_clip = by_source = 0
    for seed in range(200):
        clips = sums((3.0 + rng.normal(0, 2.0, 20))[source_N] + rng.normal(0, 0.5, 160))
        low, high = interval(clips, resampling_weights(160, 300, seed))
        by_clip += low <= 3.0 <= high
        low, high = interval(clips.by_source(source_N), resampling_weights(20, 300, seed))
        by_source += low <= 3.0 <= high
    assert by_source / 200 >= 0.88
    assert by_clip / 200 < 0.65


def test_sources_change_the_interval_and_never_the_value():
    values = np.random.default_rng(1).normal(30, 9, 12)
    clips = ClipSums(total_N=values, count_N=np.arange(1.0, 13.0), decibel=True)
    assert clips.by_source(np.repeat([2, 0, 1], 4)).value() == pytest.approx(clips.value())
    twice = ClipSums(total_N=np.repeat(values, 2), count_N=np.repeat(clips.count_N, 2), decibel=True)
    weights = resampling_weights(12, 200, 0)
    np.testing.assert_allclose(interval(twice.by_source(np.repeat(np.arange(12), 2)), weights), interval(clips, weights))


def test_sources_are_numbered_as_they_appear_and_one_is_needed_per_clip():
    assert source_indices(["b", "a", "b", 7], 4).tolist() == [0, 1, 0, 2]
    assert source_indices(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="2 groups for 3 clips"):
        source_indices("ab", 3)


def test_few_draws_are_said():
    assert few_draws(np.arange(8)) == ""
    assert few_draws(np.arange(7)) == "fewer than 8 clips: the interval is too narrow"
    assert few_draws(np.repeat([0, 4], 30)) == "fewer than 8 sources: the interval is too narrow"
    assert few_draws(np.zeros(9)) == "one source: no interval"
    assert few_draws(np.zeros(1)) == "one clip: no interval"


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
