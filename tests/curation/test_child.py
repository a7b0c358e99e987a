"""A decoder that crashes, hangs or takes all memory costs one row, and the row says which of these it was."""

from pathlib import Path
from typing import Any

import pytest

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import CurateSummary, curate
from worldfoundry.curation.tables import read_table

EXAMPLES = Path(__file__).with_name("example_stages.py")


def run(zoo: Any, out: Path, stage: str, retry: frozenset[str] = frozenset(), **changes: Any) -> CurateSummary:
    base = {"input": str(zoo.folder), "out": out, "min_s": 1.0, "max_s": 4.0, "stages": (f"{EXAMPLES}:{stage}",)}
    return curate(CurateConfig.from_dict({**base, **changes}), retry=retry)


@pytest.fixture
def three(zoo: Any) -> Any:
    for seed, name in enumerate(("a.mp4", "victim.mp4", "z.mp4")):
        zoo.video(name, num_frames=24, seed=seed)
    return zoo


@pytest.mark.parametrize("executor", ["process", "pool"])
def test_a_crash_costs_one_row(three: Any, tmp_path: Path, executor: str) -> None:
    summary = run(three, tmp_path / "out", "kills", executor=executor, workers=2)
    assert (summary.clips, summary.quarantined) == (2, {"DECODER_CRASHED": 1})
    (row,) = read_table(tmp_path / "out" / "tables", "quarantine")
    assert (Path(row["uri"]).name, row["stage"], row["attempt"]) == ("victim.mp4", "kills", 1)
    assert row["message"] == "The process died with signal 11 (SIGSEGV)."
    assert run(three, tmp_path / "out", "kills").processed == 0, "it is not tried again by itself"
    retried = run(three, tmp_path / "out", "kills", retry=frozenset({"DECODER_CRASHED"}))
    assert (retried.processed, retried.quarantined) == (1, {"DECODER_CRASHED": 1})
    (row,) = read_table(tmp_path / "out" / "tables", "quarantine")
    assert row["attempt"] == 2
    (three.folder / "victim.mp4.harmless").touch()
    assert run(three, tmp_path / "out", "kills", retry=frozenset({"DECODER_CRASHED"})).clips == 3


@pytest.mark.slow
def test_a_hang_costs_one_row(three: Any, tmp_path: Path) -> None:
    summary = run(three, tmp_path / "out", "sleeps", timeout_s=20.0, timeout_factor=0.0)
    assert (summary.clips, summary.quarantined) == (2, {"DECODER_TIMEOUT": 1})
    (row,) = read_table(tmp_path / "out" / "tables", "quarantine")
    assert (row["stage"], "20 s allowed (--timeout-s)" in row["message"]) == ("sleeps", True)


def test_taking_all_memory_costs_one_row(three: Any, tmp_path: Path) -> None:
    summary = run(three, tmp_path / "out", "allocates", memory_mb=1000.0)
    assert (summary.clips, summary.quarantined) == (2, {"OUT_OF_MEMORY": 1})


def test_a_crash_on_a_clip_costs_that_clip(zoo: Any, tmp_path: Path) -> None:
    zoo.shots("two.mp4", [24, 30])
    summary = run(zoo, tmp_path / "out", "kills_clip")
    assert (summary.clips, summary.rejected) == (1, {"DECODER_CRASHED": 1})
