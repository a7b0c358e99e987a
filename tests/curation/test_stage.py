"""What a stage promises, and how a function becomes one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import build_graph
from worldfoundry.curation.stage import FunctionStage, check_stage, stage

CONFIG = CurateConfig(input="", out=Path())


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_stage_keeps_its_contract(zoo: Any, kind: str) -> None:
    path = zoo.video("a.mp4", num_frames=30) if kind == "video" else zoo.image("a.png")
    staging = zoo.folder / "staging"
    staging.mkdir()
    row: dict[str, Any] = {"source_id": "s", "uri": str(path), "path": str(path), "image": kind == "image"}
    row |= {"episode_path": "", "caption": ""}
    for each in build_graph(CONFIG).stages:
        if each.per == "clip":
            row |= {"plan": row["plans"][0], "staging": staging}
        (row,) = check_stage(each, row) if kind == "video" or each.images else [{**row, **dict.fromkeys(each.outputs)}]
    assert row["num_frames"] == (30 if kind == "video" else 1)
    assert sorted(p.name for p in staging.iterdir()) == ["clip.mp4", "clip.strip.webp"]


def test_a_function_becomes_a_stage_and_its_keyword_arguments_parameters() -> None:
    @stage(inputs="a b", outputs="c", scores="d", tags="e", version=3)
    def made(row: Mapping[str, Any], *, gain: float = 2.0) -> dict[str, Any]:
        return {"c": sorted(row), "d": [gain * row["a"]], "e": ["x"]}

    assert (made.name, made.inputs, made.outputs, made.scores, made.tags) == (
        "made",
        ("a", "b"),
        ("c", "d", "e"),
        ("d",),
        ("e",),
    )
    ((row),) = check_stage(made, {"a": 1, "b": 2, "other": 3})
    assert row["c"] == ["a", "b"], "it sees what it declares and nothing else"
    assert made.using(gain=5.0)({"a": 1, "b": 2})[0]["d"] == [5.0]
    assert made.using(gain=5.0).params_hash() != made.params_hash() == made.using(gain=2.0).params_hash()
    with pytest.raises(UsageError, match=r"no parameter 'gian'.*'gain'"):
        made.using(gian=1.0)
    with pytest.raises(UsageError, match="'gain' of the stage 'bad' needs a default"):

        @stage(inputs="a")
        def bad(row: Mapping[str, Any], *, gain: float) -> dict[str, Any]:
            return {}


def test_broken_promises_are_caught() -> None:
    def of(outputs: tuple[str, ...], function: Any, inputs: tuple[str, ...] = ()) -> FunctionStage:
        return FunctionStage(name="x", inputs=inputs, outputs=outputs, function=function)

    with pytest.raises(DataError, match=r"declares \['a'\] and added \['b'\]"):
        check_stage(of(("a",), lambda row: {"b": 1}), {})
    with pytest.raises(DataError, match=r"declares \['a'\] and added NoneType"):
        check_stage(of(("a",), lambda row: None), {})
    with pytest.raises(DataError, match=r"needs the columns \['path'\]"):
        check_stage(of((), lambda row: {}, ("path",)), {"uri": "u"})
