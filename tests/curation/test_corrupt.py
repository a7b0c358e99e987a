"""Twenty kinds of bad files: every one ends in quarantine for a right reason, and no good file beside them is lost."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from worldfoundry.curation.api import curate

SPEC = importlib.util.spec_from_file_location("corrupt", Path(__file__).parent / "corrupt.py")
assert SPEC is not None
assert SPEC.loader is not None
corrupt = importlib.util.module_from_spec(SPEC)
sys.modules["corrupt"] = corrupt  # its dataclass looks itself up there
SPEC.loader.exec_module(corrupt)


def test_every_bad_file_has_its_reason_and_no_good_one_is_lost(zoo: Any, tmp_path: Path) -> None:
    good = [zoo.video(f"good_{i}.mp4", num_frames=36, seed=i) for i in range(3)]
    wanted = corrupt.make_corrupt(good[0], zoo.folder)
    assert len(wanted) >= 15
    done = curate(zoo.folder, tmp_path / "out", isolate=False, scores={"measure": False})
    codes = {
        Path(row["uri"]).name: row["code"] for row in pq.read_table(tmp_path / "out/tables/quarantine.parquet").to_pylist()
    }
    assert set(codes) == set(wanted)
    assert {name: code for name, code in codes.items() if code not in wanted[name]} == {}
    assert (done.sources, done.clips, done.partial) == (3, 3, 0)
