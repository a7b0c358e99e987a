"""The report stands alone, names every file, no file name can break it, and it stays small however many clips there are."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import build_graph
from worldfoundry.curation.pipeline import CurateSummary, curate
from worldfoundry.curation.report.page import MOST_CLIPS, Curated, write_report
from worldfoundry.curation.store import Store

VOID = {"meta", "img", "br", "input"}


class Nesting(HTMLParser):
    """Raises AssertionError where a tag closes that is not open; lists ids and what carries a role or label."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.images_without_words = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.images_without_words += tag == "img" and not given.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(page: str) -> Nesting:
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert parser.images_without_words == 0
    return parser


def threshold_json(page: str) -> dict[str, Any]:
    """What the script reads."""
    found = re.search(r'<script type="application/json" id="threshold-data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def test_the_report_is_whole_and_self_contained(zoo: Any, tmp_path: Path) -> None:
    zoo.shots("<b>cuts & co.mp4", [30, 30])
    zoo.text("bad <script>.mp4")
    zoo.text("<b>cuts & co.txt", "a caption with <i>tags</i>")
    zoo.image("still.png")
    summary = curate(CurateConfig(input=str(zoo.folder), out=tmp_path / "</script> out", isolate=False))
    page = summary.report.read_text(encoding="utf-8")
    parsed(page)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), "nothing is loaded from elsewhere"
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page)
    assert page.count("data:image/webp;base64,") == summary.clips == 3
    assert "&lt;b&gt;cuts &amp; co.mp4" in page
    assert "<b>cuts" not in page
    assert "bad &lt;script&gt;.mp4" in page
    assert "a caption with &lt;i&gt;tags" in page
    assert "NOT_MEDIA" in page
    assert page.count('<i class="cut"') == 1
    assert page.count("</script>") == 2
    assert "</script> out" in threshold_json(page)["command"]


def test_an_empty_dataset_has_a_report_too(zoo: Any, tmp_path: Path) -> None:
    zoo.text("bad.mp4")
    page = curate(CurateConfig(input=str(zoo.folder), out=tmp_path / "out", isolate=False)).report.read_text(encoding="utf-8")
    parsed(page)
    for words in ("No clip was kept.", "No clip was planned.", "No video.", "No clip was rejected."):
        assert words in page


def test_rejected_clips_and_duplicates_are_shown_with_their_reason(zoo: Any, tmp_path: Path) -> None:
    zoo.video("first.mp4", num_frames=60)
    zoo.video("second.mp4", num_frames=60, gop=6)
    zoo.shots("cut.mp4", [12, 36])
    scores = {"dedup": "perceptual"}
    out = tmp_path / "out"
    options = {"input": str(zoo.folder), "out": out, "isolate": False, "scores": scores, "where": ["focus>=0.001", "motion>=0"]}
    summary = curate(CurateConfig.from_dict(options))
    assert summary.rejected == {"TOO_SHORT": 1, "DUPLICATE": 1}
    page = summary.report.read_text(encoding="utf-8")
    parsed(page)
    assert re.search(r"stays</span> <b>(first|second)\.mp4", page)
    assert re.search(r"perceptual distance <b>0\.0\d+</b>", page)
    assert page.count("six frames of a rejected clip") == 2, "small pictures of clips that were never encoded"


def test_a_page_of_ten_thousand_clips_stays_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    picture = tmp_path / "strip.webp"
    picture.write_bytes(bytes(range(256)) * 48)  # 12 kB, as of a detailed clip
    config = CurateConfig(input="in", out=tmp_path / "out")
    graph, store = build_graph(config), Store(config.out)
    store.out.mkdir()
    store.strip = lambda source_id, clip_id: picture  # type: ignore[method-assign]
    clips = [made_up_clip(i, graph.scores) for i in range(10_000)]
    tables: dict[str, list[dict[str, Any]]] = {
        "sources": [made_up_source(i) for i in range(500)],
        "clips": [clip for clip in clips if clip["kept"]],
        "rejected": [clip for clip in clips if not clip["kept"]],
        "shots": [made_up_shot(i // 20, i % 20) for i in range(10_000)],
        "quarantine": [
            {"uri": f"{i}.mp4", "code": "EMPTY_FILE", "stage": "probe", "message": "", "attempt": 1, "source_id": None}
            for i in range(900)
        ],
        "events": [{"source_id": f"s{i}", "stage": "watch", "wall_s": 1.0 + i, "cpu_s": 1.0} for i in range(500)],
        "runs": [{"input": "in", "started": "", "wall_s": 1.0, "peak_memory_mb": 1.0, "worldfoundry": "0", "config": ""}],
    }
    counts = {
        "files": 1400,
        "sources": 500,
        "partial": 0,
        "duplicates": 0,
        "clips": 5000,
        "images": 0,
        "video_s": 1.0,
        "processed": 0,
    }
    more = {"rejected": {"FOCUS_LOW": 5000}, "quarantined": {"EMPTY_FILE": 900}, "content_hash": "", "report": store.report}
    summary = CurateSummary(**counts, **more)  # type: ignore[arg-type]
    done = Curated(store=store, config=config, graph=graph, clips=clips, runs={}, tables=tables, summary=summary)
    page = write_report(done).read_text(encoding="utf-8")
    assert len(page.encode()) < 10_000_000
    assert f"{MOST_CLIPS} of 5000 shown" in page
    assert re.search(r"The first \d+ of 500 videos", page)
    assert "The first 500 of 900" in page
    assert "200 of 5000 rejected clips" in page
    assert threshold_json(page)["clips"] == 10_000


def made_up_clip(i: int, scores: tuple[str, ...]) -> dict[str, Any]:
    kept = i % 2 == 0
    span = {"start_s": 3.0 * (i % 20), "end_s": 3.0 * (i % 20) + 2.9, "duration_s": 2.9, "num_frames": 87}
    size = {
        "source_fps": 29.97002997002997,
        "source_height": 1080,
        "source_width": 1920,
        "width": 1920,
        "height": 1080,
        "fps": 29.97,
    }
    shown = {
        "uri": f"/drive/{i // 20}/a rather long file name.mp4",
        "encoding": "x264",
        "caption": "a car " * 30,
        "has_actions": False,
    }
    names = {
        "clip_id": f"{i:020}",
        "key": f"{i:020}",
        "source_id": f"s{i // 20}",
        "bucket": "1080p",
        "bytes": 1,
        "image": False,
    }
    values = {name: round(0.12345 + i / 7, 4) for name in scores}
    return {**span, **size, **shown, **names, **values, "kept": kept, "reasons": [] if kept else ["FOCUS_LOW"]}


def made_up_source(i: int) -> dict[str, Any]:
    return {
        "source_id": f"s{i}",
        "uri": f"{i}.mp4",
        "image": False,
        "duration_s": 60.0,
        "duplicates": [],
        "partial": False,
        "problem": "",
    }


def made_up_shot(source: int, i: int) -> dict[str, Any]:
    ends = {
        "opens_with": "cut",
        "opens_from_s": 3.0 * i,
        "opens_confidence": 1.0,
        "closes_with": "cut",
        "closes_until_s": 3.0 * i + 3,
    }
    return {
        "source_id": f"s{source}",
        "shot_index": i,
        "start_s": 3.0 * i,
        "end_s": 3.0 * i + 3,
        "closes_confidence": 1.0,
        **ends,
    }
