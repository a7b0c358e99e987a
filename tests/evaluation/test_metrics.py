"""Closed forms: what a metric must say where the answer is known."""

import math

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.check import moving_squares
from worldfoundry.evaluation.metrics import METRICS, CentroidError
from worldfoundry.evaluation.objects import BLOCK, PUSHER
from worldfoundry.evaluation.ssim import ssim

RNG = np.random.default_rng(0)


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("offset", [1, 10, 100])
def test_psnr_of_a_constant_offset(offset):
    reference = np.full((2, 4, 8, 8, 3), 60, np.uint8)
    for name in ("psnr", "psnr_per_frame"):
        value = METRICS[name](reference=reference, generated=reference + np.uint8(offset), prefix_frames=1).value
        assert value == pytest.approx(20 * math.log10(255 / offset))


def test_pooled_psnr_takes_the_logarithm_last_and_the_mean_of_frames_first():
    reference = np.zeros((1, 3, 8, 8, 3), np.uint8)
    generated = reference.copy()
    generated[0, 1], generated[0, 2] = 3, 4  # mean squared errors 9 and 16
    pooled = METRICS["psnr"](reference=reference, generated=generated, prefix_frames=1).value
    mean = METRICS["psnr_per_frame"](reference=reference, generated=generated, prefix_frames=1).value
    assert pooled == pytest.approx(10 * math.log10(255**2 / 12.5))
    assert mean == pytest.approx((10 * math.log10(255**2 / 9) + 10 * math.log10(255**2 / 16)) / 2)


def test_errors_in_the_prefix_do_not_count():
    reference = noise(2, 5, 16, 16, 3)
    generated = reference.copy()
    generated[:, :2] = 0
    assert METRICS["psnr"](reference=reference, generated=generated, prefix_frames=2).value == 100.0


def test_moving_psnr_counts_only_what_moves():
    reference = np.full((1, 3, 32, 32, 3), 100, np.uint8)
    reference[0, 2, 10, 10] = 200  # grown to 5x5 pixels
    wrong_background = reference.copy()
    wrong_background[0, 1:, 20:] = 0
    assert METRICS["psnr_moving"](reference=reference, generated=wrong_background, prefix_frames=1).value == 100.0
    still = np.repeat(reference[:, :1], 3, axis=1)
    value = METRICS["psnr_moving"](reference=reference, generated=still, prefix_frames=1).value
    assert value == pytest.approx(10 * math.log10(255**2 / (100**2 / (2 * 25))))


def test_a_video_without_motion_says_so():
    still = np.full((3, 4, 16, 16, 3), 80, np.uint8)
    result = METRICS["psnr_moving"](reference=still, generated=still, prefix_frames=1)
    assert math.isnan(result.value)
    assert result.n == 0
    assert "no clip has anything to score" in result.note


def naive_ssim(x, y, window=7):
    """The definition, pixel by pixel: window means, sample covariances, averaged over windows and channels."""
    x, y = x.astype(float), y.astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for c in range(3):
        for i in range(x.shape[0] - window + 1):
            for j in range(x.shape[1] - window + 1):
                a, b = x[i : i + window, j : j + window, c].ravel(), y[i : i + window, j : j + window, c].ravel()
                (va, cov), (_, vb) = np.cov(a, b, ddof=1)
                ma, mb = a.mean(), b.mean()
                values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(values)


def test_ssim_equals_its_definition():
    x = noise(2, 12, 15, 3)
    y = np.clip(x.astype(int) + RNG.integers(-40, 40, x.shape), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(ssim(x, y), [naive_ssim(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-12)


def test_psnr_and_ssim_agree_with_scikit_image():
    library = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
    reference = noise(2, 3, 20, 24, 3)
    generated = np.clip(reference.astype(int) + RNG.integers(-40, 40, reference.shape), 0, 255).astype(np.uint8)
    score = {name: METRICS[name](reference=reference, generated=generated, prefix_frames=1).value for name in METRICS}
    pairs = [(a, b) for i in range(2) for a, b in zip(reference[i, 1:], generated[i, 1:], strict=True)]
    assert score["psnr"] == pytest.approx(library.peak_signal_noise_ratio(reference[:, 1:], generated[:, 1:]), rel=1e-12)
    assert score["psnr_per_frame"] == pytest.approx(np.mean([library.peak_signal_noise_ratio(*p) for p in pairs]), rel=1e-12)
    theirs = np.mean([library.structural_similarity(*p, channel_axis=-1) for p in pairs])
    assert score["ssim"] == pytest.approx(theirs, rel=1e-9)


def test_ssim_of_a_frozen_video_is_that_of_the_video_written_out():
    true, still = noise(4, 12, 15, 3), noise(1, 12, 15, 3).repeat(4, 0)
    almost = still.copy()
    almost[3] ^= 1  # every frame is looked at
    np.testing.assert_array_equal(ssim(true, still)[:3], ssim(true, almost)[:3])


def test_ssim_of_flat_pictures_has_a_closed_form():
    x, y = np.full((1, 9, 9, 3), 80, np.uint8), np.full((1, 9, 9, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(x, y)[0] == pytest.approx((2 * 80 * 120 + c1) / (80**2 + 120**2 + c1))


def test_ssim_of_the_brightest_picture_does_not_overflow():
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    assert ssim(white, white)[0] == pytest.approx(1.0)


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(DataError, match="at least 7x7"):
        ssim(noise(1, 6, 20, 3), noise(1, 6, 20, 3))


def test_centroid_error_is_the_shift_and_a_vanished_object_counts_from_the_centre():
    truth = moving_squares(clips=3)
    shifted = CentroidError(PUSHER)(reference=truth, generated=moving_squares(shift=4, clips=3), prefix_frames=2)
    assert shifted.value == pytest.approx(4.0)
    gone = np.full_like(truth, 100)
    corner = np.full_like(truth, 100)
    corner[:, :, :4, :4] = (230, 20, 230)
    away = CentroidError(PUSHER)(reference=corner, generated=gone, prefix_frames=2)
    assert away.value == pytest.approx(math.hypot(23.5 - 1.5, 23.5 - 1.5))


def test_centroid_error_where_it_moves_leaves_out_clips_in_which_it_rests():
    truth = moving_squares(clips=4)
    truth[:2, :] = truth[:2, 1:2]
    result = CentroidError(BLOCK, moved_px=3.0)(reference=truth, generated=truth, prefix_frames=2)
    assert result.n == 2
    assert "2 of 4 clips have nothing to score" in result.note


def test_other_reference_prefix_or_metric_gives_another_protocol():
    a, b = noise(2, 4, 8, 8, 3), noise(2, 4, 8, 8, 3)
    b[0, 0, 0, 0, 0] ^= 1
    score = METRICS["psnr"]
    hashes = {
        score(reference=a, generated=a, prefix_frames=1).protocol,
        score(reference=b, generated=a, prefix_frames=1).protocol,
        score(reference=a, generated=a, prefix_frames=2).protocol,
        METRICS["ssim"](reference=a, generated=a, prefix_frames=1).protocol,
    }
    assert len(hashes) == 4
    assert score(reference=a, generated=b, prefix_frames=1).protocol in hashes


@pytest.mark.parametrize(
    ("generated", "prefix", "message"),
    [
        (noise(2, 4, 8, 9, 3), 1, "has shape"),
        (noise(2, 4, 8, 8, 3).astype(np.float32), 1, "must be uint8"),
        (noise(2, 4, 8, 8, 3), 4, "nothing is left to score"),
        (noise(2, 4, 8, 8, 3), 0, "nothing is left to score"),
    ],
)
def test_clips_that_do_not_fit_are_refused(generated, prefix, message):
    with pytest.raises(DataError, match=message):
        METRICS["psnr"](reference=noise(2, 4, 8, 8, 3), generated=generated, prefix_frames=prefix)
