"""What people judged is counted right, and the detector finds an object that enters from below, not what was there before."""

import json
import re

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.core.video_io import read_video
from worldfoundry.data.sample import sample_footage
from worldfoundry.evaluation.failure import (
    FLOOR,
    TRUE_FLAGGED,
    lower_edge_novelty,
    novelty_threshold,
    rates,
    read_judgements,
    wilson,
    write_label_page,
)
from worldfoundry.evaluation.report import clip


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (1, 2)])
def test_the_interval_is_where_the_score_test_does_not_reject(count, n):
    """Its ends solve |p̂ − p| = z √(p (1 − p) / n), but for ends at 0 and 1."""
    for p in wilson(count, n):
        assert p in (0, 1) or abs(count / n - p) == pytest.approx(1.96 * np.sqrt(p * (1 - p) / n))


def test_no_video_has_no_interval():
    assert np.isnan(wilson(0, 0)).all()


def test_rates_count_each_kind_among_all_that_was_judged():
    found = rates(["ok", "appears", "frozen", "appears"])
    assert {kind: (row["count"], row["n"]) for kind, row in found.items()} == {
        "appears": (2, 4), "collapses": (0, 4), "frozen": (1, 4)
    }  # fmt: skip


def test_judgements_are_read_and_what_is_none_is_one_line(tmp_path):
    path = tmp_path / "j.csv"
    path.write_text("video,verdict\nv1,ok\nv2,\nv1,frozen\n")
    assert read_judgements(path, ["v1", "v2"]) == {"v1": "frozen"}
    for text, line in [
        ("a,b\n1,2\n", "has no columns"),
        ("", "has no columns"),
        ("video,verdict\nv1,fine\n", "calls 'v1' 'fine'"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=line):
            read_judgements(path, ["v1"])
    path.write_text("video,verdict\nv3,ok\n")
    with pytest.raises(DataError, match="judges 'v3', which is no video of this run"):
        read_judgements(path, ["v1"])


@pytest.fixture(scope="module")
def episode():
    """Simulated: a pusher and a box on a table, 33 frames of 64x64, each pixel four times."""
    frames = read_video(min(sample_footage().glob("episode_*.mp4"))).frames[:33]
    assert frames.shape == (33, 64, 64, 3)
    return frames.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parametrize("given", [1, 9])
def test_true_video_is_explained_and_an_object_pasted_in_from_below_is_not(episode, given):
    pasted = episode.copy()
    for step, frame in enumerate(pasted[12:], start=1):
        height = min(24, 4 * step)
        frame[128 - height :, 40:64] = (240, 150, 20)
    assert lower_edge_novelty(episode, given).max() < FLOOR
    novelty = lower_edge_novelty(pasted, given)
    assert novelty.argmax() + given in range(12, 18)  # while it enters; afterwards an earlier frame explains it
    assert novelty.max() > FLOOR


def test_what_comes_down_or_from_the_side_was_seen_before(episode):
    moving = np.full((9, 64, 64, 3), 40, np.uint8)
    for t, frame in enumerate(moving):
        frame[4 * t + 16 : 4 * t + 32, 8 * (t % 2) : 8 * (t % 2) + 16] = (200, 30, 90)
    assert lower_edge_novelty(moving, 1).max() == pytest.approx(0, abs=1)
    with pytest.raises(DataError, match="smaller than a block"):
        lower_edge_novelty(moving[:, :8], 1)


def test_a_threshold_lets_no_more_than_its_share_of_true_videos_be_flagged():
    true = np.random.default_rng(0).uniform(0, 90, 500).tolist()
    assert np.mean(np.array(true) > novelty_threshold(true)) <= TRUE_FLAGGED
    assert novelty_threshold([1.0, 2.0]) == novelty_threshold([]) == FLOOR


def test_the_page_holds_its_videos_and_says_nothing_but_their_names(episode, tmp_path):
    clips = [clip(name, episode[:5], 12.0) for name in ("v0", "v1")]
    page = write_label_page(tmp_path / "p.html", "Judge <these>", clips, [0.5, 0.25]).read_text()
    videos = json.loads(re.findall(r"const videos = (.*);\n", page)[0])
    assert [(v["name"], v["given"]) for v in videos] == [("v0", 0.5), ("v1", 0.25)]
    assert all(v["src"].startswith("data:video/mp4;base64,") for v in videos)
    assert "<these>" not in page
    assert "http" not in page
