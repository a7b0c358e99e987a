"""kill -9 anywhere, run again: the same content, and next to no work done twice."""

import contextlib
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.curation.tables import SCHEMAS, content_hash
from worldfoundry.data.shards import read_index

# Every step into place is a rename, so the kill comes just before the n-th of them. Each stage that begins writes a line.
KILLER = """
import os, sys
from pathlib import Path
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.curation.run import SourceRun

left, log = int(sys.argv[3]), open(sys.argv[4], "a", buffering=1)
rename, run = Path.replace, SourceRun.run

def replace(self, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    return rename(self, target)

def counted(self, step):
    log.write("".join(f"{name}\\n" for name, _ in step.names))
    return run(self, step)

Path.replace, SourceRun.run = replace, counted
curate(CurateConfig(input=sys.argv[1], out=Path(sys.argv[2]), min_s=1.0, max_s=2.0, isolate=False))
print(left)
"""


def run(source: Path, out: Path, kill_at: int) -> tuple[int, list[str], str]:
    """(exit code, stages that began, what was printed); `kill_at` 0 kills nowhere."""
    log = out.with_suffix(".log")
    command = [sys.executable, "-c", KILLER, str(source), str(out), str(kill_at), str(log)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, log.read_text().split() if log.is_file() else [], done.stdout


def shards(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): read_index(path).sha256 for path in sorted(out.glob("shards/*/*.tar"))}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_points_and_run_again_gives_the_same_and_repeats_little(zoo: Any, tmp_path: Path) -> None:
    for seed in range(8):
        zoo.video(f"v{seed}.mp4", num_frames=15, seed=seed)
    zoo.shots("two.mp4", [15, 18])
    zoo.shots("three.mp4", [14, 16, 13])
    zoo.image("still.png")
    zoo.text("bad.mp4")
    whole = tmp_path / "whole"
    code, stages, printed = run(zoo.folder, whole, 0)
    assert code == 0
    expected, renames, work = content_hash(whole / "tables"), -int(printed), len(stages)
    assert work > 70
    random, places = np.random.default_rng(0), set()
    # One point in each stretch of the run: while sources are analysed, while clips are made, in shards, tables, report.
    edges = np.linspace(2, renames, 6).astype(int)
    for n in (int(random.integers(a, b)) for a, b in pairwise(edges)):
        out = tmp_path / f"killed{n}"
        code, _, _ = run(zoo.folder, out, n)
        assert code == -9
        tables = len(list(out.glob("tables/*.parquet")))
        places.add((len(list(out.glob("work/*/clips/*/encode.json"))) > 0, tables > 0))
        assert tables <= len(SCHEMAS)
        code, stages, _ = run(zoo.folder, out, 0)
        assert code == 0
        assert len(stages) - work <= 0.05 * work, "next to nothing is done twice"
        assert (content_hash(out / "tables"), shards(out)) == (expected, shards(whole))
        assert [path for path in out.rglob(".*") if path.name != ".lock"] == []
    assert len(places) > 1, "the points lie in different parts of the run"


def test_stopped_while_shards_are_taken_apart(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds change back and forth, and each run ends at another rename."""
    for seed in range(3):
        zoo.video(f"v{seed}.mp4", num_frames=15 + seed, seed=seed)
    config = CurateConfig(input=str(zoo.folder), out=tmp_path / "out", min_s=1.0, max_s=4.0, isolate=False, shard_mb=0.001)
    first, before = curate(config), shards(tmp_path / "out")
    fewer, real = config.replace(where=("duration_s>=1.3",)), Path.replace
    for n in range(1, 12):
        left = [n]

        def replace(self: Path, target: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        with contextlib.suppress(KeyboardInterrupt):
            curate(fewer if n % 2 else config)
        monkeypatch.undo()
    assert (curate(config).content_hash, sorted(shards(tmp_path / "out").values())) == (
        first.content_hash,
        sorted(before.values()),
    )
    assert curate(fewer).clips == 2
