"""The folder that `simulate` writes: complete, described, continued, never mixed; any number of processes."""

import hashlib
import importlib.util
import json
import pickle
import queue
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from worldfoundry.cli.simulate import run
from worldfoundry.core.errors import ConfigError, MediaError, MissingExtraError, ResourceError, UsageError
from worldfoundry.core.video_io import read_video
from worldfoundry.simulation.config import PusherConfig
from worldfoundry.simulation.executors import next_result, portable
from worldfoundry.simulation.pusher import run_episode
from worldfoundry.simulation.simulate import simulate

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def made(opengl, tmp_path_factory):
    config = PusherConfig(out=tmp_path_factory.mktemp("sim") / "data", episodes=3, frames=10, size=32, seed=4)
    return config, simulate(config)


def hashes(folder):
    files = [path for path in folder.iterdir() if path.suffix in (".mp4", ".parquet")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_episode_has_video_and_table_of_equal_length(made):
    config, summary = made
    assert (summary.rendered, summary.kept, summary.frames) == (3, 0, 30)
    for i in range(3):
        rows = pq.read_table(config.out / f"episode_{i:06d}.episode.parquet")
        clip = read_video(config.out / f"episode_{i:06d}.mp4")
        assert clip.frames.shape == (10, 32, 32, 3)
        assert rows.column("frame_index").to_pylist() == list(range(10))
        np.testing.assert_allclose(rows.column("timestamp").to_numpy(), clip.times_s, atol=1e-4)


def test_columns_hold_what_the_simulator_did(made, world):
    config, summary = made
    rows = pq.read_table(config.out / "episode_000001.episode.parquet")
    episode = run_episode(world, 10, (4, 1))
    np.testing.assert_array_equal(np.array(rows.column("action").to_pylist(), np.float32), episode.actions)
    np.testing.assert_array_equal(np.array(rows.column("state").to_pylist(), np.float32), episode.states)
    assert [str(rows.schema.field(name).type) for name in rows.column_names] == [
        "int64",
        "double",
        "list<element: float>",
        "list<element: float>",
    ]
    facts = json.loads(rows.schema.metadata[b"worldfoundry"])
    assert facts["action_names"] == ["pusher_vx", "pusher_vy"]
    assert len(facts["state_names"]) == episode.states.shape[1]
    assert facts["caption"] == episode.caption
    assert (facts["seed"], facts["scene"], facts["renderer"]) == ([4, 1], "pusher", summary.renderers[0])


def test_the_folder_says_how_to_make_it_again(made):
    config, _ = made
    found = json.loads((config.out / "dataset.json").read_text())
    assert found["complete"] is True
    assert "--episodes 3 --frames 10 --size 32 --seed 4" in found["command"]
    assert found["versions"]["mujoco"]


def test_an_interrupted_run_is_continued_and_finished_episodes_are_kept(made):
    config, _ = made
    before = hashes(config.out)
    table = config.out / "episode_000001.episode.parquet"
    table.unlink()  # as after a kill between video and table
    (config.out / ".episode_000001-x.mp4").write_bytes(b"half")
    times = {path.name: path.stat().st_mtime_ns for path in config.out.glob("episode_000000*")}
    summary = simulate(config)
    assert (summary.rendered, summary.kept) == (1, 2)
    assert hashes(config.out) == before
    assert not list(config.out.glob(".*"))
    assert times == {path.name: path.stat().st_mtime_ns for path in config.out.glob("episode_000000*")}


def test_two_processes_write_the_same_bytes(made, tmp_path):
    config, _ = made
    simulate(config.replace(out=tmp_path / "two", workers=2))
    assert hashes(tmp_path / "two") == hashes(config.out)


def test_ray_actors_write_the_same_bytes(made, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the [ray] extra is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config, first = made
    second = simulate(config.replace(out=tmp_path / "ray", workers=2, executor="ray"))
    assert hashes(tmp_path / "ray") == hashes(config.out)
    assert (second.rendered, second.renderers) == (3, first.renderers)
    again = simulate(config.replace(out=tmp_path / "ray"))  # the executor is not an option of the pictures
    assert (again.rendered, again.kept) == (0, 3)


def test_a_missing_ray_is_one_line_and_nothing_is_written(monkeypatch, opengl, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    with pytest.raises(MissingExtraError, match=r"pip install 'worldfoundry\[ray\]'"):
        simulate(PusherConfig(out=tmp_path / "x", executor="ray"))
    assert not (tmp_path / "x").exists()


def test_an_error_keeps_its_words_and_exit_code_on_its_way_between_processes():
    for error in (
        MissingExtraError("metaworld", "sim"),
        MediaError("TRUNCATED", "It ends.", "Cut it."),
        ResourceError("Full."),
    ):
        found = pickle.loads(pickle.dumps(portable(error)))
        assert (str(found), found.hint, found.exit_code) == (str(error), error.hint, error.exit_code)


def test_a_folder_of_other_options_or_other_files_is_refused(made, tmp_path):
    config, _ = made
    before = hashes(config.out)
    with pytest.raises(UsageError, match=r"other options \(seed\)"):
        simulate(config.replace(seed=5))
    assert hashes(config.out) == before
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        simulate(config.replace(out=tmp_path))
    with pytest.raises(UsageError, match="is a file"):
        simulate(config.replace(out=tmp_path / "letter.txt"))


def test_no_episodes_is_a_config_error():
    with pytest.raises(ConfigError, match="episodes"):
        PusherConfig.from_dict({"out": Path("x"), "episodes": 0})


def test_the_verb_reports_where_what_is(made, capsys):
    config, _ = made
    assert run(config) == 0
    assert "3 episodes, 30 frames of 32x32" in capsys.readouterr().out


@pytest.mark.parametrize("codes", [(-9, None), (0, 0)], ids=["killed", "all gone"])
def test_a_worker_that_died_is_noticed(codes):
    workers = [SimpleNamespace(exitcode=code) for code in codes]
    with pytest.raises(ResourceError, match="process died"):
        next_result(queue.Queue(), workers, patience_s=0.01)


def test_an_error_of_a_worker_is_raised_here():
    results = queue.Queue()
    results.put(ResourceError("No space left.", "Free some."))
    with pytest.raises(ResourceError, match=r"No space left\. Free some"):
        next_result(results, [SimpleNamespace(exitcode=None)])
