"""TransNet V2 within curation: what it decides is in the tables, it costs no decoding, and executors agree on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldfoundry.core import model_store
from worldfoundry.core.errors import DownloadError
from worldfoundry.curation import shots_network, stages
from worldfoundry.curation.config import CurateConfig, ShotConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.curation.tables import read_table


def run(zoo: Any, out: Path, *, executor: str = "process", isolate: bool = False, **shots: Any) -> Any:
    config = {"input": str(zoo.folder), "out": out, "min_s": 1.0, "executor": executor, "isolate": isolate, "shots": shots}
    return curate(CurateConfig.from_dict(config))


def shots_of(out: Path) -> list[tuple[Any, ...]]:
    names = ["num_frames", "opens_with", "opens_decided_by", "closes_with", "closes_decided_by"]
    return [tuple(row[name] for name in names) for row in read_table(out / "tables", "shots")]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts a network in TransNet V2's place that always says the same."""

    def put(answer: float) -> None:
        monkeypatch.setattr(shots_network, "get_model", lambda name: Path(name))
        monkeypatch.setattr(stages, "doubt_network", lambda config: lambda rgb: np.full(len(rgb), answer, np.float32))

    return put


def test_the_tables_say_who_decided(zoo: Any, tmp_path: Path, answering: Callable[[float], None]) -> None:
    zoo.shots("two.mp4", [40, 30])
    run(zoo, tmp_path / "out")
    assert shots_of(tmp_path / "out") == [(40, "start", None, "cut", "fast"), (30, "cut", "fast", "end", None)]
    answering(1.0)
    run(zoo, tmp_path / "out", doubt=0.0)
    assert shots_of(tmp_path / "out") == [(40, "start", None, "cut", "network"), (30, "cut", "network", "end", None)]
    answering(0.0)
    run(zoo, tmp_path / "none", doubt=0.0)
    assert shots_of(tmp_path / "none") == [(70, "start", None, "end", None)]


def test_the_network_looks_at_the_one_decoding_pass(zoo: Any, tmp_path: Path, answering: Callable[[float], None]) -> None:
    answering(1.0)
    zoo.shots("two.mp4", [40, 30])
    run(zoo, tmp_path / "out", doubt=0.0)
    (row,) = read_table(tmp_path / "out" / "tables", "runs")
    assert row["decoded_to_analyse"] == 70 + 1, "every frame once, and the probe's first one"


def test_without_weights_a_line_says_so_and_everywhere_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert shots_network.fetch_network(ShotConfig()).network == "off"
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "TransNet V2" in said[0]
    assert shots_network.fetch_network(ShotConfig(network="off")).network == "off"
    assert capfd.readouterr().err == ""
    with pytest.raises(DownloadError):
        shots_network.fetch_network(ShotConfig(network="everywhere"))


@pytest.mark.skipif(not model_store.is_fetched("transnetv2"), reason="needs `worldfoundry models get transnetv2`")
def test_executors_agree_on_what_the_network_decides(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots_network, "get_model", model_store.get_model)
    zoo.shots("two.mp4", [40, 50])
    zoo.video("one.mp4", num_frames=60, seed=4)
    summaries = [run(zoo, tmp_path / executor, executor=executor, isolate=True, doubt=0.0) for executor in ("process", "pool")]
    assert len({summary.content_hash for summary in summaries}) == 1
    lengths = sorted(row[0] for row in shots_of(tmp_path / "pool"))
    assert lengths == [60, 90], "the network takes one rolling picture after another for one shot; the fast detector cuts"
