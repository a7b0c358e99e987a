"""What a person reads while curate runs: per stage what is done, what is awaited, what became of it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import build_graph
from worldfoundry.curation.meter import Meter, say_selected
from worldfoundry.curation.pipeline import curate

STAGES = build_graph(CurateConfig.from_dict({"input": "", "out": "", "scores": {"measure": False}})).stages


def result(source_id: str, *events: tuple[str, str]) -> dict[str, Any]:
    return {"source_id": source_id, "events": [{"stage": s, "code": code, "decoded_frames": 5} for s, code in events]}


def row(lines: list[str], stage: str) -> list[str]:
    return next(line.split() for line in lines if line.split()[0] == stage)


def test_a_stage_waits_no_longer_for_sources_that_failed_before_it() -> None:
    meter = Meter("analyse", STAGES, {name: Counter(["probe", "watch"]) for name in "abc"})
    with meter:
        meter.add(result("a", ("probe", "NOT_MEDIA")))
        lines = meter.lines()
        assert row(lines, "probe")[1] == "1/3"
        assert row(lines, "probe")[-3:] == ["0", "-", "1"]
        assert row(lines, "watch")[1:4] == ["0/2", "-", "-"]
        meter.add(result("b", ("probe", ""), ("watch", "")))
        lines = meter.lines()
    assert "1/3" not in lines[0]
    assert lines[0].startswith("analyse: 2/3 files in ")
    assert "ETA" in lines[0]
    assert lines[0].endswith("15 frames decoded")
    assert row(lines, "watch")[1] == "1/2"
    assert row(lines, "watch")[-3:] == ["1", "-", "0"]


def test_clips_are_rejected_where_files_go_to_quarantine() -> None:
    with Meter("finish clips", STAGES, {"a": Counter({"encode": 3})}) as meter:
        meter.add(result("a", ("encode", ""), ("encode", "ENCODE_FAILED"), ("encode", "")))
    assert row(meter.lines(), "encode")[1] == "3/3"
    assert row(meter.lines(), "encode")[-3:] == ["2", "1", "-"]
    assert "ETA" not in meter.lines()[0]


def test_selection_is_told_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    say_selected([{"kept": True, "reasons": []}, {"kept": False, "reasons": ["TOO_SHORT", "STATIC"]}])
    assert capsys.readouterr().err == "select: 1 of 2 clips kept, 1 rejected: 1 TOO_SHORT, 1 STATIC\n"


def test_a_run_ends_each_phase_with_its_counts_and_a_second_run_says_nothing(
    zoo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.video("a.mp4", num_frames=30)
    zoo.text("bad.mp4")
    zoo.image("still.png")
    config = CurateConfig(input=str(zoo.folder), out=tmp_path / "out", isolate=False)
    curate(config)
    lines = capsys.readouterr().err.splitlines()
    assert row(lines, "probe")[1] == "3/3"
    assert row(lines, "probe")[-3:] == ["2", "-", "1"]
    assert row(lines, "watch")[1] == "1/1"
    assert row(lines, "encode")[1] == "2/2"
    assert row(lines, "encode")[-3:] == ["2", "0", "-"]
    assert "select: 2 of 2 clips kept, 0 rejected" in lines
    curate(config)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "/" in line] == []
