"""The scripts that say what curation costs: nothing that a command starts is left out, and a plan is the measurement multiplied."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
COST: dict[str, Any] = {
    "minutes_of_video": 2.0,
    "megapixels_per_s": 10.0,
    "worldfoundry": {
        "stages_cpu_s": {"watch": 12.0, "shots": 2.0, "encode": 60.0},
        "size": {
            "rows": {"sources": 4, "events": 22, "clips": 10},
            "bytes_per_row": {"sources": 200.0, "shots": 100.0, "clips": 300.0, "rejected": 50.0, "events": 40.0},
            "clip_s": 90.0,
            "shard_bytes": 12_000_000,
            "work_bytes": 600_000,
        },
    },
}
FOOTAGE = {"hours": 1.0, "megapixels_per_s": 10.0, "shot_s": 6.0, "file_min": 5.0}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_plan_is_the_measurement_multiplied() -> None:
    planned = script("curate_plan").plan(COST, **FOOTAGE)
    assert planned["cpu_hours"] == {"watch": 0.1, "shots": 0.0, "encode": 0.5}, "30 times as much video"
    assert planned["rows"] == {"sources": 12, "shots": 600, "clips": 450, "rejected": 150, "events": 12 * 3 + 600}
    assert planned["table_mb"]["clips"] == pytest.approx(450 * 300 / 1e6, abs=0.1)
    assert planned["shard_gb"] == pytest.approx(0.36, abs=0.05)


def test_more_pixels_cost_more_only_where_pixels_are_looked_at() -> None:
    few, many = (script("curate_plan").plan(COST, **{**FOOTAGE, "hours": 100.0, "megapixels_per_s": m}) for m in (10.0, 60.0))
    assert many["cpu_hours"]["encode"] == pytest.approx(6 * few["cpu_hours"]["encode"], abs=0.5)
    assert many["cpu_hours"]["shots"] == few["cpu_hours"]["shots"]
    assert many["rows"] == few["rows"]


def test_the_slowest_bound_gives_the_time() -> None:
    planned = {"cpu_hours_total": 800.0, "shard_gb": 36.0, "work_gb": 0.0}
    machines = {"source_gb": 360.0, "nodes": 2, "cores": 50, "busy": 0.8, "node_mb_s": 1000.0}
    quick = script("curate_plan").wall(planned, **machines, storage_mb_s=2000.0)
    assert (quick["bound_by"], quick["hours"]["cores"], quick["packing_hours"]) == ("cores", 10.0, 0.02)
    slow = script("curate_plan").wall(planned, **machines, storage_mb_s=10.0)
    assert (slow["bound_by"], slow["hours"]["shared storage"]) == ("shared storage", 21.0)
    assert slow["wall_hours"] == pytest.approx(21.0 + 2.0, abs=0.01)


BURN = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_grandchildren_and_orphans_are_counted() -> None:
    """The command is done at once; what it started works on without it."""
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN.format(0.3)!r}]); print('gone')"
    run = script("curate_measure").measured([sys.executable, "-c", start])
    assert (run["returncode"], run["out"].strip()) == (0, "gone")
    assert run["cpu_s"] >= 0.3
    assert run["peak_sum_mb"] >= run["peak_mb"] > 0
