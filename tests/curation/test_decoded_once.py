"""Every frame is decoded once before it is encoded, however many look at it; the run's tables say how many were."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.curation.tables import content_hash, read_table

EXAMPLES = Path(__file__).with_name("example_stages.py")
ANALYSIS = {"probe", "watch", "camera_path", "quality_samples", "sharpness"}  # what opens videos before they are encoded


def run(zoo: Any, out: Path, **changes: Any) -> Any:
    return curate(CurateConfig.from_dict({"input": str(zoo.folder), "out": out, "min_s": 1.0, "max_s": 4.0, **changes}))


@pytest.fixture
def filled(zoo: Any) -> Any:
    zoo.shots("three.mp4", [40, 50, 60])
    zoo.video("one.mp4", num_frames=120, seed=4)
    zoo.encoded("long.mkv", zoo.frames(150, seed=7), codec="mpeg4")
    return zoo


@pytest.mark.parametrize("executor", ["process", "pool"])
def test_a_source_is_decoded_once_before_it_is_encoded(filled: Any, tmp_path: Path, executor: str) -> None:
    """One pass feeds all who look at frames, a stage of the user's too; the probe's first frame is the only other one."""
    run(filled, tmp_path / "out", executor=executor, workers=2, stages=(f"{EXAMPLES}:sharpness",))
    tables = tmp_path / "out" / "tables"
    events, frames = read_table(tables, "events"), {s["source_id"]: s["num_frames"] for s in read_table(tables, "sources")}
    assert {event["stage"] for event in events} >= ANALYSIS
    decoded, encoded = Counter[str](), Counter[str]()
    for event in events:
        (encoded if event["stage"] == "encode" else decoded)[event["source_id"]] += event["decoded_frames"]
    assert decoded == {source_id: count + 1 for source_id, count in frames.items()}, "watched once, probed once"
    assert sum(decoded.values()) <= 1.1 * sum(frames.values())
    (row,) = read_table(tables, "runs")
    assert row["decoded_to_analyse"] == sum(decoded.values())
    assert row["decoded_to_encode"] == sum(encoded.values()) > 0


def test_counts_are_no_content_and_a_second_run_decodes_nothing(filled: Any, tmp_path: Path) -> None:
    first = run(filled, tmp_path / "out", isolate=False)
    again = run(filled, tmp_path / "out", isolate=False)
    runs = read_table(tmp_path / "out" / "tables", "runs")
    assert [(row["decoded_to_analyse"], row["decoded_to_encode"]) for row in runs][1] == (0, 0)
    assert runs[0]["decoded_to_analyse"] > 0
    assert first.content_hash == again.content_hash == content_hash(tmp_path / "out" / "tables")


def test_a_stage_that_decodes_by_itself_is_seen(filled: Any, tmp_path: Path) -> None:
    """The count is of frames, not of passes that we know of: a stage that reads the video again shows."""
    run(filled, tmp_path / "out", stages=(f"{EXAMPLES}:reads_again",))
    tables = tmp_path / "out" / "tables"
    again = [event["decoded_frames"] for event in read_table(tables, "events") if event["stage"] == "reads_again"]
    assert sorted(again) == sorted(source["num_frames"] for source in read_table(tables, "sources"))


def test_time_of_a_shared_pass_goes_to_who_took_it(filled: Any, tmp_path: Path) -> None:
    """The decoder's seconds belong to the pass, a watcher's to the watcher; nothing is counted twice."""
    run(filled, tmp_path / "out", isolate=False, stages=(f"{EXAMPLES}:sharpness",))
    events = read_table(tmp_path / "out" / "tables", "events")
    assert all(event["wall_s"] >= 0 for event in events)
    shared = [event for event in events if event["stage"] in ANALYSIS - {"probe"}]
    assert all((event["decoded_frames"] > 0) == (event["stage"] == "watch") for event in shared)
