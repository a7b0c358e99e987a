"""The stages keep their contract, and a row's failure is a value that names stage and reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.contracts import Stage
from worldfoundry.core.errors import DataError, MediaError, ResourceError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.executor import in_process, run_stages
from worldfoundry.curation.rows import SourceError
from worldfoundry.curation.stages import FunctionStage, check_stage, default_stages

CONFIG = CurateConfig(input="", out=Path())


def start_row(path: Path, staging: Path) -> dict[str, Any]:
    staging.mkdir(exist_ok=True)
    return {"source_id": "s", "uri": str(path), "path": path, "staging": staging, "episode_path": "", "caption": ""}


def failing(error: Exception) -> FunctionStage:
    def fail(row: Mapping[str, Any]) -> dict[str, Any]:
        raise error

    return FunctionStage(name="fail", inputs=(), outputs=(), function=fail, parameters={})


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_stage_keeps_its_contract(zoo: Any, kind: str) -> None:
    path = zoo.video("a.mp4", num_frames=30) if kind == "video" else zoo.image("a.png")
    row = start_row(path, zoo.folder / "staging")
    for stage in default_stages(CONFIG):
        (row,) = check_stage(stage, row)
    assert len(row["clips"]) == 1
    assert row["rejected"] == []
    key = row["clips"][0]["key"]
    assert sorted(p.name for p in (zoo.folder / "staging").iterdir()) == [f"{key}.json", f"{key}.mp4", f"{key}.strip.webp"]


def test_a_parameter_moves_the_hash_of_its_stage_alone() -> None:
    def hashes(config: CurateConfig) -> dict[str, str]:
        return {stage.name: stage.params_hash() for stage in default_stages(config)}

    base = hashes(CONFIG)
    assert base == hashes(CurateConfig(input="other", out=Path("elsewhere")))
    for changes, stage in [
        ({"min_s": 1.0}, "plan"),
        ({"crf": 20}, "encode"),
        ({"shots": {"cut_threshold": 9.0}}, "watch"),
    ]:
        changed = hashes(CurateConfig.from_dict({"input": "", "out": "", **changes}))
        assert [name for name in base if base[name] != changed[name]] == [stage]


def test_broken_promises_are_caught() -> None:
    def stage(outputs: tuple[str, ...], function: Any) -> Stage:
        return FunctionStage(name="x", inputs=(), outputs=outputs, function=function, parameters={})

    def meddle(row: dict[str, Any]) -> dict[str, Any]:
        row["uri"] = "changed"
        return {}

    with pytest.raises(DataError, match=r"declares \['a'\] and added \['b'\]"):
        check_stage(stage(("a",), lambda row: {"b": 1}), {})
    with pytest.raises(DataError, match="changed the row"):
        check_stage(stage((), meddle), {"uri": "original"})
    with pytest.raises(DataError, match=r"needs the columns \['path', 'uri'\]"):
        default_stages(CONFIG)[0]({})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MediaError("TRUNCATED", "it ends"), "TRUNCATED"),
        (SourceError("SIDECAR_SHORT", "too few"), "SIDECAR_SHORT"),
        (ZeroDivisionError("oops"), "INTERNAL_ERROR"),
        (KeyError("oops"), "INTERNAL_ERROR"),
        (PermissionError(13, "Permission denied"), "INTERNAL_ERROR"),
        (MemoryError(), "OUT_OF_MEMORY"),
    ],
)
def test_what_is_wrong_with_a_row_is_a_value(error: Exception, code: str) -> None:
    outcome = run_stages({"uri": "u"}, [failing(error)])
    assert outcome.failure is not None
    assert (outcome.failure.stage, outcome.failure.code) == ("fail", code)
    assert outcome.row == {"uri": "u"}
    assert [event["stage"] for event in outcome.events] == ["fail"]


def test_a_full_disk_concerns_the_run() -> None:
    with pytest.raises(ResourceError, match="No space left"):
        run_stages({"staging": "/x"}, [failing(OSError(28, "No space left on device"))])
    with pytest.raises(ResourceError):
        run_stages({}, [failing(ResourceError("full"))])


def test_the_executor_maps() -> None:
    assert list(in_process(lambda row: row["n"] + 1, [{"n": 1}, {"n": 2}])) == [2, 3]
