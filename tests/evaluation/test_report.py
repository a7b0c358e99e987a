"""The page: one file, nothing loaded from outside, hostile text stays text, videos decode again."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from worldfoundry.core.video_io import read_video
from worldfoundry.evaluation.baselines import copy_last_frame
from worldfoundry.evaluation.charts import Series
from worldfoundry.evaluation.check import moving_squares
from worldfoundry.evaluation.compare import evaluate_predictions
from worldfoundry.evaluation.present import clip_rows, horizon_table, sections, summary_table
from worldfoundry.evaluation.report import Images, LineChart, Table, Text, cell, png, write_report

HOSTILE = '<script>alert("x")</script> & "quotes"'
TRUTH = moving_squares(clips=3)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    found = evaluate_predictions(TRUTH, {HOSTILE: copy_last_frame(TRUTH, 2)}, 2, fps=12, resamples=100)
    parts = [
        Text(title=HOSTILE, paragraphs=[HOSTILE, "second"]),
        *sections(found, strong=[HOSTILE]),
        horizon_table(found, "psnr"),
        clip_rows(TRUTH, {HOSTILE: TRUTH}, prefix_frames=2, fps=12, names=[HOSTILE] * 3, show=2),
        LineChart(
            title=HOSTILE, series=[Series(label=HOSTILE, x=[1], y=[2.0])], x_label=HOSTILE, y_label=HOSTILE, note=HOSTILE
        ),
        Table(title="t", header=[HOSTILE], rows=[[HOSTILE], [("1", HOSTILE)]]),
        Images(title="i", images=[(HOSTILE, png(TRUTH[0, 0]))]),
    ]
    path = write_report(tmp_path_factory.mktemp("page") / "report.html", HOSTILE, parts, subtitle=HOSTILE)
    return path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.scripts = [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.links += [value for name, value in attrs if name in ("src", "href", "poster", "data", "action")]


def test_nothing_comes_from_outside_and_no_text_becomes_markup(page):
    tags = Tags()
    tags.feed(page)
    assert tags.scripts == 1
    assert tags.links
    assert all(link.startswith("data:") for link in tags.links)
    assert not re.search(r"url\(|@import|https?://", page)
    assert "alert(&#34;x&#34;)" in page or "alert(&quot;x&quot;)" in page


def test_embedded_videos_are_the_clips(page, tmp_path):
    videos = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert len(videos) == 4
    (tmp_path / "v.mp4").write_bytes(base64.b64decode(videos[0]))
    frames = read_video(tmp_path / "v.mp4").frames
    assert frames.shape == TRUTH[0].shape
    assert np.abs(frames.astype(int) - TRUTH[0]).mean() < 6


def test_every_section_is_there_once(page):
    assert page.count("<section") == 2 + 2 + 7 + 1 + 1 + 2
    assert page.count("<svg") == 8
    assert page.count('type="range"') == 1


def test_cells():
    assert [str(cell(value)) for value in (None, float("nan"), 12.344, 0.12345, 7, "a<b")] == [
        "–",
        "–",
        "12.34",
        "0.123",
        "7",
        "a&lt;b",
    ]
    assert str(cell(("1.0", "[0, 2]"))) == "1.0<br><small>[0, 2]</small>"


def test_what_holds_for_all_rows_is_said_once_and_the_rest_by_metric():
    still = np.full((3, 4, 16, 16, 3), 90, np.uint8)
    found = evaluate_predictions(still, {}, 1, resamples=100, note="clips are cut")
    note = summary_table(found).note
    assert note.count("clips are cut.") == 1
    assert note.count("PSNR, moving pixels: no clip has anything to score here.") == 1
    assert note.count("SSIM, 7x7 window: fewer than 8 clips: the interval is too narrow.") == 1
