"""The same dataset whoever runs the stages; plans that a machine cannot carry are refused before anything is done."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.errors import MissingExtraError, ResourceError, UsageError
from worldfoundry.curation import executors
from worldfoundry.curation.commits import Commits
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.executors import Pool, check_operators, check_stages_fit, open_executor, pool_size, ray_operators
from worldfoundry.curation.graph import Graph, build_graph
from worldfoundry.curation.pipeline import CurateSummary, curate
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.curation.tables import read_table

EXAMPLES = Path(__file__).with_name("example_stages.py")
RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the [ray] extra")


def run(zoo: Any, out: Path, **changes: Any) -> CurateSummary:
    base = {"input": str(zoo.folder), "out": out, "min_s": 1.0, "max_s": 4.0}
    return curate(CurateConfig.from_dict({**base, **changes}))


@pytest.fixture
def filled(zoo: Any) -> Any:
    zoo.shots("two.mp4", [24, 30])
    zoo.video("one.mp4", num_frames=24, seed=4)
    zoo.image("still.png")
    zoo.text("bad.mp4")
    zoo.damaged("damaged.mp4")
    return zoo


def stage(name: str, cpus: float = 1.0, gpus: float = 0.0, per: Any = "source") -> FunctionStage:
    return FunctionStage(name=name, inputs=(), outputs=(name,), function=dict, cpus=cpus, gpus=gpus, per=per)


def test_in_process_with_and_without_a_child_and_a_pool_give_the_same(filled: Any, tmp_path: Path) -> None:
    stages = {"stages": (f"{EXAMPLES}:sharpness", f"{EXAMPLES}:sharpest", f"{EXAMPLES}:label")}
    here = run(filled, tmp_path / "here", isolate=False, **stages)
    child = run(filled, tmp_path / "child", **stages)
    pool = run(filled, tmp_path / "pool", executor="pool", workers=2, **stages)
    assert here.content_hash == child.content_hash == pool.content_hash
    assert (here.clips, here.partial, here.quarantined) == (7, 1, {"NOT_MEDIA": 1})
    assert run(filled, tmp_path / "pool").content_hash != here.content_hash, "other stages, other columns"
    moved = run(filled, tmp_path / "other", isolate=False, trim_frames=2)
    assert moved.content_hash != here.content_hash


@RAY
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_gives_the_same(filled: Any, tmp_path: Path) -> None:
    stages = {"stages": (f"{EXAMPLES}:brightness", f"{EXAMPLES}:label", f"{EXAMPLES}:kills?name=one.mp4")}
    pool = run(filled, tmp_path / "pool", executor="pool", workers=2, **stages)
    ray = run(filled, tmp_path / "ray", executor="ray", workers=1, **stages)
    assert ray.content_hash == pool.content_hash
    assert ray.quarantined == {"NOT_MEDIA": 1, "DECODER_CRASHED": 1}


def test_an_error_that_concerns_the_run_ends_it_and_the_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(row: Any) -> Any:
        raise ResourceError("No space left.")

    class Full:
        def __call__(self, row: Any) -> Any:
            return full(row)

        def guarded(self, row: Any, child: Any, *, everything: bool) -> Any:
            return full(row)

    with Pool(2, 1000.0) as pool, pytest.raises(ResourceError, match="No space left"):
        list(pool(Full(), [{"n": n} for n in range(5)]))
    assert all(child.stopped for child in pool.children)


def test_a_full_disk_in_a_stage_stops_the_run_and_the_next_goes_on(
    filled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Commits.write, [5]

    def write(self: Any, *given: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise ResourceError("No space left.")
        return real(self, *given, **options)

    monkeypatch.setattr(Commits, "write", write)
    with pytest.raises(ResourceError):
        run(filled, tmp_path / "out", isolate=False)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "tables").exists()
    resumed, whole = run(filled, tmp_path / "out", isolate=False), run(filled, tmp_path / "whole", isolate=False)
    assert resumed.content_hash == whole.content_hash


def test_stages_of_like_needs_share_actors() -> None:
    stages = [stage("a"), stage("b"), stage("look", gpus=1), stage("c")]
    operators = ray_operators(stages, workers=8, gpus=2)
    assert [(o.names, o.actors, o.gpus) for o in operators] == [(("a", "b"), 4, 0), (("look",), 2, 1), (("c",), 4, 0)]
    assert [o.actors for o in ray_operators([stage("a")], workers=1, gpus=0)] == [1]


def test_a_plan_that_would_wait_for_ever_is_refused() -> None:
    one = ray_operators([stage("a")], workers=1, gpus=0)
    check_operators(one, cpus=2, gpus=0)
    with pytest.raises(UsageError, match=r"Ray has 1 CPUs and 0 GPUs, and this needs 2 and 0.*fewer --workers"):
        check_operators(one, cpus=1, gpus=0)
    with pytest.raises(UsageError, match=r"needs 2 and 1: 1 x 1 CPUs for look\.\.look"):
        check_operators(ray_operators([stage("look", gpus=1)], 1, 0), cpus=8, gpus=0)


def test_a_stage_that_the_machine_cannot_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "available_cores", lambda: 2)
    config = CurateConfig(input="", out=Path())
    with pytest.raises(UsageError, match="'big' asks for 8 CPUs, and this machine has 2"):
        check_stages_fit(Graph([stage("big", cpus=8)]), config)
    monkeypatch.setattr(executors, "_gpus", lambda: 0)
    with pytest.raises(UsageError, match="'look' asks for 1 GPUs, and this machine has 0"):
        check_stages_fit(Graph([stage("look", gpus=1)]), config)
    assert pool_size(config, Graph([stage("a")])) == 2
    assert pool_size(config, Graph([stage("a", cpus=2)])) == 1
    assert pool_size(config.replace(workers=3), Graph([stage("a")])) == 3


def test_ray_that_is_not_installed_is_said_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = CurateConfig(input="", out=Path(), executor="ray")
    with pytest.raises(MissingExtraError, match=r"worldfoundry\[ray\]"), open_executor(config, build_graph(config)):
        pass


def test_a_stage_that_no_other_process_finds_is_refused_there(filled: Any, tmp_path: Path) -> None:
    alone = FunctionStage(name="alone", inputs=("plans",), outputs=("n",), function=lambda row: {"n": len(row["plans"])})
    config = CurateConfig(input=str(filled.folder), out=tmp_path / "out", min_s=1.0)
    with pytest.raises(UsageError, match="'alone' is defined where no other process finds it"):
        curate(config.replace(executor="pool"), stages=[alone])
    assert curate(config, stages=[alone]).clips == 6
    assert "alone" in {event["stage"] for event in read_table(tmp_path / "out" / "tables", "events")}
