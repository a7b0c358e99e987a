"""Technical quality has closed forms on pictures made by formula."""

import numpy as np
import pytest

from worldfoundry.core.errors import UsageError
from worldfoundry.curation.scores.plugin import load_plugin
from worldfoundry.curation.scores.quality import aesthetic_score, focus, noise_level, quality_scores


def waves(frequency: float, height: int = 96, width: int = 160) -> np.ndarray:
    """Luma levels 128 ± 60, `frequency` radians per pixel along x."""
    return np.tile(128 + 60 * np.sin(frequency * np.arange(width)), (height, 1)).astype(np.float32)


@pytest.mark.parametrize("frequency", [0.1, 0.5, 2.0])
def test_focus_of_a_wave_is_the_gain_of_the_laplacian(frequency: float) -> None:
    assert focus(waves(frequency)) == pytest.approx(2 - 2 * np.cos(frequency), rel=0.05)
    assert focus(0.3 * waves(frequency) + 40) == pytest.approx(focus(waves(frequency)), rel=1e-3)


def test_focus_of_white_noise_is_the_norm_of_the_laplacian() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (200, 300)).astype(np.float32)
    assert focus(noise) == pytest.approx(20**0.5, rel=0.02)
    assert focus(np.full((50, 50), 9, np.float32)) is None


@pytest.mark.parametrize("sigma", [1.0, 4.0, 12.0])
def test_noise_is_found_on_top_of_a_picture(sigma: float) -> None:
    clean = np.add.outer(np.linspace(40, 120, 240), np.linspace(0, 80, 320)).astype(np.float32)
    clean[100:140, 100:180] = waves(1.5, 40, 80)
    noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape)
    assert noise_level(clean) == pytest.approx(0, abs=1e-3)
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.15)


def test_exposure_counts_clipped_pixels() -> None:
    frame = np.full((40, 100, 3), 100, np.uint8)
    frame[:, :10], frame[:, 10:30] = 0, 255
    scores = quality_scores([frame])
    assert (scores["clipped_dark"], scores["clipped_bright"]) == (0.1, 0.2)
    assert scores["luma_mean"] == pytest.approx(0.2 * 255 + 0.7 * 100, abs=0.01)
    assert scores["niqe"] is None


def test_one_blurred_frame_does_not_decide() -> None:
    sharp, blurred = (np.repeat(waves(f)[..., None], 3, 2).astype(np.uint8) for f in (1.0, 0.1))
    assert quality_scores([sharp, blurred, sharp])["focus"] == quality_scores([sharp])["focus"]
    assert set(quality_scores([]).values()) == {None}


def brightness(frames: list[np.ndarray]) -> float:
    return float(np.mean(frames)) / 255


def words(frames: list[np.ndarray]) -> str:
    return "beautiful"


def test_a_plugin_scores_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_scores", sys.modules[__name__])
    frames = [np.full((4, 4, 3), 51, np.uint8)]
    assert aesthetic_score(frames, "my_scores:brightness") == 0.2
    with pytest.raises(UsageError, match="gave 'beautiful', not a number"):
        aesthetic_score(frames, "my_scores:words")
    for place, message in [
        ("brightness", "names no function"),
        ("my_scores:nothing", "cannot be loaded"),
        ("os:sep", "is a str"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_plugin(place)
