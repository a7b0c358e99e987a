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


def test_without_the_detector_text_is_null_unless_it_is_to_decide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from worldfoundry.core.errors import UsageError
    from worldfoundry.curation.scores import prepare, stages
    from worldfoundry.curation.scores.config import ScoreConfig

    for module in (prepare, stages):
        monkeypatch.setattr(module, "finds_text", lambda: False)
    config = ScoreConfig(measure=False, text=True)
    prepare.settled(config, ["motion>=1", "duration_s<=9"])
    prepare.prepare(config)
    (line,) = capsys.readouterr().err.splitlines()
    assert "text_share, text_persistent, text_lines are null" in line
    assert "pip install 'worldfoundry[curate]'" in line
    (stage,) = stages.score_stages(config)
    assert stage.added({"plans": [1, 2]}) == {name: [None, None] for name in ("text_share", "text_persistent", "text_lines")}
    with pytest.raises(UsageError, match=r"'text_share <= 0.1' judges clips by text.*pip install 'worldfoundry\[curate\]'"):
        prepare.settled(config, ["text_share <= 0.1"])
    monkeypatch.setattr(stages, "finds_text", lambda: True)
    with_detector = next(other for other in stages.score_stages(config) if other.name == "text")
    assert with_detector.inputs != stage.inputs, "another key: with the detector it runs again"


def test_captions_are_embedded_where_the_network_is_at_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from worldfoundry.curation.scores import prepare
    from worldfoundry.curation.scores.config import ScoreConfig

    for there, settled in ((True, "on"), (False, "off")):
        monkeypatch.setattr(prepare, "is_fetched", lambda name, there=there: there)
        assert prepare.settled(ScoreConfig(captions="measured")).embed_captions == settled
    assert capsys.readouterr().err.startswith("Captions are not embedded: MiniLM is not in the cache")
    assert prepare.settled(ScoreConfig(captions="measured", embed_captions="on")).embed_captions == "on"
    assert prepare.settled(ScoreConfig()).embed_captions == "off"
    assert capsys.readouterr().err == "", "nobody asked for captions"
