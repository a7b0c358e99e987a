"""Textures: seamless, repeatable, and full of what their name promises."""

import io

import numpy as np
import pytest
from PIL import Image

from worldfoundry.simulation.textures import NEUTRAL, PATTERNS, make_bank, noise


def test_noise_has_no_seam():
    field = noise(np.random.default_rng(0), 64)
    inside = np.abs(np.diff(field, axis=1)).mean()
    assert np.abs(field[:, 0] - field[:, -1]).mean() < 2 * inside
    assert np.abs(field[0] - field[-1]).mean() < 2 * np.abs(np.diff(field, axis=0)).mean()
    assert field.min() >= 0
    assert field.max() <= 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_is_a_picture_with_structure(pattern):
    picture = PATTERNS[pattern](np.random.default_rng(1), 64)
    assert picture.shape == (64, 64, 3)
    assert picture.mean(2).std() > 2
    if pattern in NEUTRAL:
        assert np.ptp(picture.mean((0, 1))) < 25  # near grey, so that a tint is what it says


def test_a_bank_is_the_same_every_time_and_its_variants_differ():
    bank = make_bank({"wood": 2, "grass": 1}, seed=3, size=32)
    assert list(bank) == ["wood.0", "wood.1", "grass.0"]
    assert bank == make_bank({"wood": 2, "grass": 1}, seed=3, size=32)
    assert bank["wood.0"] != bank["wood.1"]
    assert np.asarray(Image.open(io.BytesIO(bank["grass.0"]))).shape == (32, 32, 3)
