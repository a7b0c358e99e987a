"""Text that stays is told from text that passes; what is too thick is no text."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.curation.scores.text import connected, text_scores
from worldfoundry.perception.text_detector import load_text_detector


def detector(*masks: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Answers each frame with the next mask."""
    answers = iter(masks)
    return lambda frame: next(answers).astype(np.float32)


def line(row: int, column: int, height: int = 4, width: int = 20) -> np.ndarray:
    mask = np.zeros((60, 100), bool)
    mask[row : row + height, column : column + width] = True
    return mask


FRAMES = [np.zeros((4, 4, 3), np.uint8)] * 4


def test_an_overlay_stays_and_a_sign_passes() -> None:
    masks = [line(50, 10) | line(10, 15 * t) for t in range(4)]
    scores = text_scores(FRAMES, detector(*masks))
    assert scores == {"text_share": round(160 / 6000, 5), "text_persistent": round(80 / 6000, 5), "text_lines": 2.0}


def test_what_is_too_thick_or_too_small_is_no_line() -> None:
    assert text_scores(FRAMES[:1], detector(line(10, 10, 20, 60)))["text_share"] == 0
    assert text_scores(FRAMES[:1], detector(line(10, 10, 2, 2)))["text_share"] == 0
    assert text_scores(FRAMES[:1], detector(line(5, 10, 50, 4)))["text_lines"] == 1  # written downwards
    assert set(text_scores([], detector()).values()) == {None}


def test_regions_are_those_that_hang_together() -> None:
    spiral = np.array(
        [[int(c) for c in row] for row in ("111111", "000001", "111101", "100101", "101101", "100001", "111111")], bool
    )
    assert connected(spiral).max() == 1
    assert connected(np.eye(5, dtype=bool)).max() == 5
    assert connected(np.zeros((3, 3), bool)).max() == 0
    assert set(connected(np.ones((3, 3), bool)).ravel()) == {1}


@pytest.mark.skipif(not is_fetched("text-detector"), reason="the weights are not in the cache")
def test_the_real_detector_reads_captions_and_invents_none() -> None:
    pytest.importorskip("onnxruntime")
    detect = load_text_detector(model_folder("text-detector")).probability
    plain = Image.fromarray(np.full((180, 320, 3), 120, np.uint8))
    captioned = plain.copy()
    ImageDraw.Draw(captioned).text((60, 150), "the arm lifts the red cube", fill="white", font=ImageFont.load_default(16))
    scores = text_scores([np.asarray(captioned)] * 2, detect)
    assert scores["text_lines"] == 1
    assert 0.01 < (scores["text_persistent"] or 0) < 0.1
    assert text_scores([np.asarray(plain)], detect)["text_share"] == 0


def test_an_empty_folder_is_refused(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(CheckpointError, match="models get text-detector"):
        load_text_detector(tmp_path)
