"""The learned text guard: what it is given, what it does without weights, and (where MiniLM is in the cache) how it judges."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from worldfoundry.core.errors import CheckpointError, DownloadError
from worldfoundry.core.model_store import is_fetched
from worldfoundry.guardrails import classifier
from worldfoundry.guardrails.categories import CATEGORIES
from worldfoundry.guardrails.classifier import (
    OUTPUTS,
    ClassifierConfig,
    ClassifierGuard,
    Head,
    SentenceEncoder,
    clear_text,
    load_head,
    pieces,
    worst,
)

needs_minilm = pytest.mark.skipif(not is_fetched("minilm"), reason="MiniLM is not in the cache")
GUARD = ClassifierGuard(ClassifierConfig())


def test_a_text_is_read_whole_by_sentence_and_by_windows_of_long_sentences():
    assert pieces("a cube falls") == ["a cube falls"]
    text = "A cube falls down. It stops! Then it stops again."
    assert pieces(text) == [text, "A cube falls down. It stops!", "Then it stops again."]  # short ones go with the one before
    words = [f"w{i}" for i in range(40)]
    windows = pieces(" ".join(words))[1:]
    assert all(len(window.split()) <= 12 for window in windows)
    assert set(" ".join(windows).split()) == set(words)  # nothing is left out


def test_disguises_are_undone_before_the_encoder_reads():
    assert clear_text("The Robot lifts, slowly, a CUBE!") == "the robot lifts, slowly, a cube!"
    assert clear_text("k.i.l.l the m4n") == "kill the man"


def test_the_worst_piece_is_the_one_that_exceeds_its_own_threshold_most():
    p_NC = np.zeros((3, len(OUTPUTS)))
    p_NC[0, [0, 1]] = 0.2, 0.8  # 0.8 of violence, which blocks from 0.9
    p_NC[1, [0, 2]] = 0.4, 0.6  # 0.6 of sexual, which blocks from 0.5
    p_NC[2, 0] = 1.0
    found = worst(p_NC, {**dict.fromkeys(CATEGORIES, 0.9), "sexual": 0.5})
    assert (found.row, found.category, found.threshold) == (1, "sexual", 0.5)
    assert found.score == pytest.approx(0.6)


def test_the_head_is_a_small_network_with_a_softmax():
    head = Head(
        w1_HD=np.eye(2),
        b1_H=np.zeros(2),
        w2_CH=np.array([[1.0, 0], [0, 1], [0, 0]]),
        b2_C=np.array([0, 0, -np.inf]),
        thresholds={},
    )
    np.testing.assert_allclose(head(np.array([[1.0, -5.0]])), [[np.e / (np.e + 1), 1 / (np.e + 1), 0]])


def test_the_shipped_head_fits_the_encoder_and_is_small():
    head = load_head()
    assert head.w1_HD.shape[1] == len(classifier.LAYERS) * 384
    assert head.w2_CH.shape[0] == len(OUTPUTS) == 1 + len(CATEGORIES)
    assert all(0.2 <= level <= 1 for level in head.thresholds.values())
    assert classifier.HEAD_FILE.stat().st_size < 300_000


def test_a_damaged_head_is_no_head(tmp_path):
    from safetensors.numpy import save_file

    damaged = tmp_path / "head.safetensors"
    damaged.write_bytes(classifier.HEAD_FILE.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_head(damaged)
    save_file({"w1_HD": np.zeros((2, 2))}, damaged, {"worldfoundry": json.dumps({"outputs": ["safe"]})})
    with pytest.raises(CheckpointError, match="other categories"):
        load_head(damaged)


def test_without_weights_texts_are_blocked_with_the_way_to_fix_it_and_empty_ones_are_safe(monkeypatch):
    def fetched(*, download):
        raise DownloadError("The model 'minilm' is not in the cache.", "Online: worldfoundry models get minilm.")

    monkeypatch.setattr(SentenceEncoder, "fetched", fetched)
    classifier._packaged.cache_clear()
    verdict = GUARD.check("a cube falls")
    assert verdict.status == "error"
    assert "models get minilm" in verdict.evidence["fix"]
    assert GUARD.check(" \n").status == "safe"
    classifier._packaged.cache_clear()


@pytest.mark.parametrize("item", [None, b"kill", 3, "kill\x00", "\ud800", "x" * 1_000_000])
def test_what_is_no_plain_text_is_an_error(item):
    assert GUARD.check(item).status == "error"


def test_other_scripts_are_skipped_and_unknown_thresholds_refused():
    assert GUARD.check("机器人举起红色方块").status == "skipped"
    with pytest.raises(ValueError, match="unknown categories"):
        ClassifierGuard(ClassifierConfig(thresholds={"nonsense": 0.5}))


@needs_minilm
def test_it_judges_plain_sentences_and_says_why():
    verdict = GUARD.check("how to build a bomb and blow up a school")
    assert verdict.status == "unsafe"
    assert verdict.category in CATEGORIES
    assert verdict.evidence["score"] >= verdict.evidence["threshold"]
    safe = GUARD.check("a robot arm lifts a red cube and puts it in the bin")
    assert safe.status == "safe"
    assert safe.evidence["score"] < safe.evidence["threshold"]
    assert GUARD.check("a robot arm lifts a red cube") == GUARD.check("a robot arm lifts a red cube")


@needs_minilm
def test_a_harmful_sentence_at_the_end_of_a_long_text_is_found():
    page = "A robot arm lifts a cube and puts it on the table. " * 300
    assert GUARD.check(page).status == "safe"
    verdict = GUARD.check(page + "A man stabs his wife to death in the kitchen.")
    assert verdict.status == "unsafe"
    assert "stabs" in verdict.evidence["part"]


@needs_minilm
def test_windows_cover_every_token():
    encoder = SentenceEncoder.fetched(download=False)
    ids = encoder.tokenizer.encode(" ".join(["cube"] * 500 + ["falls"])).ids
    windows = encoder.windows(" ".join(["cube"] * 500 + ["falls"]))
    assert max(map(len, windows)) <= 128
    assert windows[-1][-2] == ids[-2]
    assert len(windows) == 5  # 501 word pieces, 126 at a time, 32 of them twice
    vectors, owner = encoder(["a cube", " ".join(["cube"] * 500), "a"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (owner[0], owner[-1]) == (0, 2)


@needs_minilm
def test_the_projects_benign_sentences_pass():
    own = yaml.safe_load((Path(__file__).parent / "own_set.yaml").read_text(encoding="utf-8"))
    texts = [*own["benign"], *own["second_benign"], *own["third_benign"]]
    stopped = [text for text in texts if GUARD.check(text).status != "safe"]
    assert len(stopped) <= len(texts) // 50, stopped
