"""The report stands alone, names every file, and no file name can break it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate

VOID = {"meta", "img", "br", "rect"}


class Nesting(HTMLParser):
    """Raises AssertionError where a tag closes that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_report_is_whole_and_self_contained(zoo: Any, tmp_path: Path) -> None:
    zoo.shots("<b>cuts & co.mp4", [30, 30])
    zoo.text("bad <script>.mp4")
    zoo.text("<b>cuts & co.txt", "a caption with <i>tags</i>")
    zoo.image("still.png")
    summary = curate(CurateConfig(input=str(zoo.folder), out=tmp_path / "out", isolate=False))
    page = summary.report.read_text(encoding="utf-8")
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "nothing is loaded from elsewhere"
    assert page.count("data:image/webp;base64,") == summary.clips == 3
    assert "&lt;b&gt;cuts &amp; co.mp4" in page
    assert "<b>cuts" not in page
    assert "bad &lt;script&gt;.mp4" in page
    assert "a caption with &lt;i&gt;tags" in page
    assert "NOT_MEDIA" in page
    assert page.count('<rect class="cut"') == 1


def test_an_empty_dataset_has_a_report_too(zoo: Any, tmp_path: Path) -> None:
    zoo.text("bad.mp4")
    page = curate(CurateConfig(input=str(zoo.folder), out=tmp_path / "out", isolate=False)).report.read_text(encoding="utf-8")
    assert "No clip was kept." in page
    assert "No video." in page
