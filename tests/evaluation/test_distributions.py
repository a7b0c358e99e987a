"""FD, KD and the perceptual distance as metrics: contract, intervals, floors, pairing, and what is said about small sets."""

import numpy as np
import pytest
import torch

from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.baselines import COPY_LAST
from worldfoundry.evaluation.bootstrap import resampling_weights
from worldfoundry.evaluation.check import check_metric, moving_squares
from worldfoundry.evaluation.compare import ALL, evaluate_predictions
from worldfoundry.evaluation.distributions import FrechetDistance, KernelDistance, _halvings
from worldfoundry.evaluation.features import ClipFeatures, FrameFeatures, spread
from worldfoundry.evaluation.perceptual import Perceptual
from worldfoundry.evaluation.present import sections
from worldfoundry.perception.lpips import PerceptualDistance
from worldfoundry.perception.vgg16 import CAFFE, Vgg16Trunk

TRUTH = moving_squares(clips=10)


class Toy(torch.nn.Module):
    """Means of coloured regions: a feature network that a test can follow."""

    def __init__(self, grid=3):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(grid)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.looked_at = 0

    def forward(self, x):
        self.looked_at += len(x)
        low, high = self.pool(x), self.pool(x.square())
        return (torch.cat([low, high], 1) * self.scale).flatten(1)


def toy(grid=3, **options):
    net = Toy(grid).eval().requires_grad_(False)
    return FrameFeatures(name="toy", network=net, describe=net, size=48, **options)


def perceptual(**options):
    torch.manual_seed(0)
    net = PerceptualDistance(Vgg16Trunk(bgr=True, scale=CAFFE)).eval().requires_grad_(False)
    return Perceptual(net, name="LPIPS-like[random]", tier="packaged", **options)


@pytest.mark.parametrize(
    "metric", [KernelDistance(toy()), FrechetDistance(toy()), perceptual(frames_per_clip=1)], ids=["KD", "FD", "perceptual"]
)
def test_the_contract_is_kept(metric):
    check_metric(metric)


def test_names_and_tiers_say_whose_features_they_are():
    metric = KernelDistance(toy())
    assert (metric.name, metric.tier) == ("KD[toy]", "packaged")
    assert FrechetDistance(toy()).name == "FD[toy]"
    assert FrechetDistance(toy(tier="reference"), name="FID").name == "FID"


def test_other_weights_or_frames_are_another_protocol():
    def protocol(extractor):
        return KernelDistance(extractor)(reference=TRUTH, generated=TRUTH, prefix_frames=2).protocol

    changed = toy()
    with torch.no_grad():
        changed.network.scale.fill_(3.0)
    hashes = [protocol(one) for one in (toy(), changed, toy(frames_per_clip=2))]
    assert len(set(hashes)) == 3
    assert protocol(toy()) == hashes[0]


def test_rows_have_a_floor_a_paired_difference_and_the_whole_future_only():
    noisy = np.clip(TRUTH + np.random.default_rng(0).normal(0, 20, TRUTH.shape), 0, 255).astype(np.uint8)
    metrics = [KernelDistance(toy()), FrechetDistance(toy()), perceptual(frames_per_clip=3)]
    found = evaluate_predictions(TRUTH, {"truth": TRUTH, "noisy": noisy}, 2, metrics=metrics, resamples=200)
    for name in ("KD[toy]", "FD[toy]"):
        rows = [row for row in found.rows if row.result.name == name]
        assert {row.horizon for row in rows} == {ALL}
        assert all(np.isfinite(row.floor) for row in rows)
        row = found.row(name, "noisy")
        assert row.difference == pytest.approx(row.result.value - found.value(name, COPY_LAST))
        assert row.difference_low <= row.difference <= row.difference_high
        assert found.value(name, "truth") == pytest.approx(0, abs=1e-9)
        assert name not in found.curves
    assert "2000" in found.row("FD[toy]", "noisy").result.note
    assert {row.horizon for row in found.rows if row.result.name == "LPIPS-like[random]"} == set(found.horizons)
    rows = found.to_dict()["rows"]
    assert all((row["real_against_real"] is not None) == row["metric"].startswith(("KD", "FD")) for row in rows)
    table = sections(found)[0]
    assert "halves of the true clips" in table.note


def test_a_network_shared_by_two_metrics_looks_once_at_each_set():
    extractor = toy()
    evaluate_predictions(TRUTH, {}, 2, metrics=[KernelDistance(extractor), FrechetDistance(extractor)], resamples=100)
    # truth and constant velocity: 4 frames of each of 10 clips; copy-last-frame and the background: one picture per clip.
    assert extractor.network.looked_at == 40 + 40 + 10 + 10


def test_the_floor_is_what_true_halves_score():
    rng = np.random.default_rng(0)
    metric = KernelDistance(toy())
    floors = [metric.floor(rng.standard_normal((40, 1, 6)), np.arange(40), seed) for seed in range(3)]
    assert all(floor > 0 for floor in floors)
    far = rng.standard_normal((40, 1, 6)) + 3
    assert metric.estimate(
        rng.standard_normal((40, 1, 6)), far, np.arange(40), resampling_weights(40, 100, 0)
    ).value > 10 * max(floors)
    assert np.isnan(metric.floor(rng.standard_normal((3, 1, 6)), np.arange(3), 0))
    frechet = FrechetDistance(toy()).floor(rng.standard_normal((40, 1, 6)), np.arange(40), 0)
    assert frechet > 0.1  # 20 against 20 clips in 6 dimensions: the bias alone


@pytest.mark.parametrize("kind", [KernelDistance, FrechetDistance])
def test_a_clip_given_twice_of_one_source_is_no_more_than_given_once(kind):
    x, y = np.random.default_rng(2).standard_normal((2, 30, 2, 3))
    once = kind(toy()).estimate(x, y + 1, np.arange(30), resampling_weights(30, 200, 0))
    source = np.repeat(np.arange(30), 2)
    twice = kind(toy()).estimate(x.repeat(2, 0), y.repeat(2, 0) + 1, source, resampling_weights(30, 200, 0))
    np.testing.assert_allclose([twice.value, *twice.interval()], [once.value, *once.interval()], rtol=0.05)
    if kind is KernelDistance:
        np.testing.assert_allclose(twice.resampled, once.resampled)


def test_true_halves_are_of_different_sources():
    """Ten sources far apart, four equal clips each: halves that shared a source would look alike."""
    far = np.repeat(np.eye(10)[:, None] * 9, 4, axis=0)
    source = np.repeat(np.arange(10), 4)
    halves = _halvings(source, 20, 0)
    assert all(not set(source[a]) & set(source[b]) and len(a) == len(b) == 20 for a, b in halves)
    assert KernelDistance(toy()).floor(far, source, 0) >= 0
    assert np.isnan(KernelDistance(toy()).floor(far[:12], source[:12], 0))


@pytest.mark.parametrize(("kind", "shift"), [(KernelDistance, 0.8), (FrechetDistance, 0.8)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(kind, shift):
    """Two Gaussians in few dimensions; FD against its own expectation at this n, which its bias makes the thing estimated."""
    rng = np.random.default_rng(1)
    estimates = []
    for _ in range(60):
        x, y = rng.standard_normal((50, 1, 3)), shift + rng.standard_normal((50, 1, 3))
        estimates.append(kind(toy()).estimate(x, y, np.arange(50), resampling_weights(50, 200, 0)))
    centre = np.mean([one.value for one in estimates])
    covered = np.mean([low <= centre <= high for low, high in (one.interval() for one in estimates)])
    assert 0.85 <= covered <= 1.0


def test_one_clip_is_refused_and_few_are_remarked_on():
    metric = KernelDistance(toy())
    with pytest.raises(DataError, match="got 1 clip"):
        metric(reference=TRUTH[:1], generated=TRUTH[:1], prefix_frames=2)
    with pytest.raises(DataError, match="got 1 clip"):
        evaluate_predictions(TRUTH[:1], {}, 2, metrics=[metric], resamples=100)
    assert "fewer than 8" in metric(reference=TRUTH[:3], generated=TRUTH[1:4], prefix_frames=2).note


def test_frames_are_spread_and_the_last_is_always_there():
    assert spread(28, 4).tolist() == [0, 9, 18, 27]
    assert spread(3, 4).tolist() == [0, 1, 2]
    assert spread(5, 1).tolist() == [4]
    assert spread(1, 4).tolist() == [0]


def test_clip_features_see_bytes_of_the_asked_size():
    seen = []

    def describe(frames):
        seen.append(frames)
        return frames.float().mean((2, 3)).flatten(1)

    extractor = ClipFeatures(name="t", network=Toy(), describe=describe, height=24, width=24, clip_frames=4)
    clips = TRUTH[:2] + np.arange(0, 16, 2, dtype=np.uint8)[None, :, None, None, None]  # each frame has a brightness of its own
    found = extractor(clips)
    assert found.shape == (2, 1, 4 * 3)
    assert seen[0].dtype == torch.uint8
    assert seen[0].shape == (1, 4, 24, 24, 3)
    np.testing.assert_allclose(found[0, 0], clips[0, -4:].mean((1, 2)).ravel(), atol=0.6)


def test_perceptual_scores_the_chosen_frames_and_knows_a_frozen_clip():
    metric = perceptual(frames_per_clip=2)
    frozen = np.repeat(TRUTH[:, 2:3], 6, axis=1)
    made = np.concatenate([TRUTH[:, :2], frozen], axis=1)
    sums = metric.sums(TRUTH, made, 2)
    assert sums.count_NF[0].tolist() == [1, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(sums.total_NF[:, 0], 0, atol=1e-6)
    alone = made.copy()
    alone[:, 2] ^= 1  # no longer frozen: every frame is looked at, the last is unchanged
    np.testing.assert_allclose(metric.sums(TRUTH, alone, 2).total_NF[:, -1], sums.total_NF[:, -1], rtol=1e-4)
    with pytest.raises(DataError, match="16x16"):
        metric(reference=TRUTH[:, :, :12, :12], generated=TRUTH[:, :, :12, :12], prefix_frames=2)
