"""The order of stages, the keys of their results, and stages found by name."""

from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.errors import UsageError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import Graph, build_graph, load_stage, spec_of
from worldfoundry.curation.stage import FunctionStage

EXAMPLES = Path(__file__).with_name("example_stages.py")
ROW = {"episode_hash": "", "caption_hash": ""}


CORE = ("probe", "watch", "episode", "shots", "plan", "motion", "brightness", "encode")  # there may be others


def keys(**changes: Any) -> dict[str, str]:
    config = CurateConfig.from_dict({"input": "", "out": "", "stages": [f"{EXAMPLES}:brightness"], **changes})
    found = build_graph(config).keys(ROW)
    return {name: found[name] for name in CORE}


def made(name: str, inputs: str, outputs: str, per: Any = "source") -> FunctionStage:
    return FunctionStage(name=name, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()), function=dict, per=per)


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"min_s": 1.0, "min_motion": 3.0, "where": ("motion<=9",), "shard_mb": 1.0, "workers": 2}, set()),
        ({"crf": 20}, {"encode"}),
        ({"max_s": 30.0}, {"plan", "motion", "brightness"}),
        ({"shots": {"cut_threshold": 9.0}}, {"shots", "plan", "motion", "brightness"}),
        ({"stages": [f"{EXAMPLES}:brightness?gain=2"]}, {"brightness"}),
    ],
)
def test_a_parameter_moves_the_keys_of_its_stage_and_of_those_that_read_it(changes: dict[str, Any], moved: set[str]) -> None:
    base, changed = keys(), keys(**changes)
    assert {name for name in base if base[name] != changed[name]} == moved


def test_a_sidecar_moves_the_keys_of_those_that_read_it() -> None:
    graph = build_graph(CurateConfig(input="", out=Path()))
    base, other = graph.keys(ROW), graph.keys({**ROW, "episode_hash": "e"})
    assert {name for name in CORE if base.get(name) != other.get(name)} == {"episode", "encode"}


def test_stages_come_after_what_they_read() -> None:
    graph = Graph([made("c", "y", "z"), made("clip", "z", "w", "clip"), made("b", "x", "y"), made("a", "path", "x")])
    assert [stage.name for stage in graph.stages] == ["a", "b", "c", "clip"]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([made("a", "pth", "x")], "'a' reads 'pth', which no stage makes.*Did you mean 'path'"),
        ([made("a", "y", "x"), made("b", "x", "y")], "stages a, b wait for each other"),
        ([made("a", "", "x"), made("a", "", "y")], "two stages 'a'"),
        ([made("a", "", "x"), made("b", "", "x")], "'b' makes 'x', which 'a' makes already"),
        ([made("a", "", "uri")], "'a' makes 'uri', which 'the source itself' makes"),
        ([made("A b", "", "x")], "'A b' cannot be a stage's name"),
        ([made("a", "", "x", "clip"), made("b", "x", "y")], "'b' reads what a stage per clip makes"),
    ],
)
def test_impossible_graphs_are_refused_in_one_line(stages: list[FunctionStage], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Graph(stages)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nothing", "names no stage"),
        ("no.such.module:x", "no module 'no.such.module'"),
        ("nowhere.py:x", "does not exist"),
        (f"{EXAMPLES}:brigthness", "Did you mean 'brightness'"),
        (f"{EXAMPLES}:brightness?gian=2", "no parameter 'gian'"),
        ("worldfoundry.curation.stage:stage", "has no stage 'stage'"),
    ],
)
def test_a_stage_that_is_not_there_is_said(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_stage(spec)


def test_a_stage_is_found_again_by_its_spec() -> None:
    stage = load_stage(f"{EXAMPLES}:brightness").using(gain=2.5)
    spec = spec_of(stage)
    assert spec == f"{EXAMPLES}:brightness?gain=2.5"
    assert load_stage(spec).params_hash() == stage.params_hash()
    assert spec_of(made("a", "", "x")) is None
