"""The manipulation kind: options and layouts without a simulator, the arm and whole episodes with one."""

import functools
import json

import numpy as np
import pytest

from worldfoundry.core.errors import ConfigError, DownloadError, UsageError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.data.lerobot import LeRobotDataset, find_problems
from worldfoundry.simulation import manipulation, metaworld_tasks
from worldfoundry.simulation.config import PusherConfig
from worldfoundry.simulation.manipulation_config import PANDA_TASKS, ManipulationConfig
from worldfoundry.simulation.manipulation_expert import Expert, draw_manner, nearest
from worldfoundry.simulation.manipulation_scene import APART, build_model, draw_layout, make_bank
from worldfoundry.simulation.manipulation_world import ACTION_NAMES, ManipulationWorld, about
from worldfoundry.simulation.panda import HOME, cluster_vertices, from_rpy, load_meshes, rotation_vector, to_rpy
from worldfoundry.simulation.pusher import run_episode
from worldfoundry.simulation.simulate import simulate


@pytest.fixture(scope="module")
def meshes(opengl):
    if not is_fetched("panda"):
        pytest.skip("the arm's meshes are not in the cache: worldfoundry models get panda")
    return load_meshes(model_folder("panda"))


@functools.cache
def bank():
    return make_bank()


def make_world(meshes, task, seed, size=32):
    rng = np.random.default_rng((7, seed))
    layout = draw_layout(rng, task)
    model = build_model(meshes, bank(), layout, rng, size)
    return ManipulationWorld(model, layout, np.array([0.45, 0.0, 0.25]), np.array([0.1, -0.1, 0.3]))


# --- options and geometry: no simulator ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": ["pick-palce"]}, "Did you mean 'pick-place'"),
        ({"task": ["push", "metaworld:push"]}, "make two datasets"),
        ({"cameras": ["wirst"]}, "Did you mean 'wrist'"),
        ({"cameras": []}, "at least one camera"),
        ({"episodes": 0}, "episodes"),
    ],
)
def test_wrong_options_are_refused_with_a_suggestion(options, message):
    with pytest.raises(ConfigError, match=message):
        ManipulationConfig.from_dict({"out": "x", **options})


def test_an_unknown_metaworld_task_is_refused_with_a_suggestion():
    config = ManipulationConfig.from_dict({"out": "x", "task": ["metaworld:drawer-opne"]})
    with pytest.raises(UsageError, match="'drawer-open'"):
        manipulation.facts(config)


def test_metaworld_all_is_fifty_tasks():
    config = ManipulationConfig.from_dict({"out": "x", "task": ["metaworld:all"]})
    assert len(metaworld_tasks.task_names(config)) == 50
    assert manipulation.facts(config)["fps"] == 20


@pytest.mark.parametrize("task", PANDA_TASKS)
def test_layouts_are_apart_reproducible_and_unambiguous(task):
    for seed in range(20):
        layout = draw_layout(np.random.default_rng(seed), task)
        assert layout == draw_layout(np.random.default_rng(seed), task)
        places = {thing.at for thing in layout.things} | {layout.goal_at}
        gaps = [np.hypot(a[0] - b[0], a[1] - b[1]) for a in places for b in places if a != b]
        assert min(gaps) >= APART
        assert len({thing.colour for thing in layout.things}) == len(layout.things)
        assert layout.things[0].name in layout.instruction


def test_turns_are_taken_apart_and_put_together():
    rng = np.random.default_rng(0)
    for rpy in rng.uniform(-1.4, 1.4, (20, 3)):
        np.testing.assert_allclose(to_rpy(from_rpy(rpy)), rpy, atol=1e-12)
        np.testing.assert_allclose(about(rotation_vector(about(rpy))), about(rpy), atol=1e-12)
    np.testing.assert_allclose(from_rpy(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_a_square_looks_the_same_every_quarter_turn():
    assert nearest(np.pi / 2 + 0.1, np.pi / 2) == pytest.approx(0.1)
    assert abs(nearest(2.9, np.pi / 2)) <= np.pi / 4


def test_clustering_makes_a_fine_sphere_coarse_and_keeps_its_shape():
    height, turn = np.meshgrid(np.linspace(0, np.pi, 60), np.linspace(0, 2 * np.pi, 60), indexing="ij")
    points = np.stack([np.sin(height) * np.cos(turn), np.sin(height) * np.sin(turn), np.cos(height)], axis=-1).reshape(-1, 3)
    first = (np.arange(59)[:, None] * 60 + np.arange(59)).ravel()
    faces = np.concatenate([np.stack([first, first + 1, first + 60], 1), np.stack([first + 1, first + 61, first + 60], 1)])
    vertices, kept = cluster_vertices(points, faces, 0.25)
    assert 50 < len(kept) < len(faces) / 5
    assert np.abs(np.linalg.norm(vertices, axis=1) - 1).max() < 0.05
    assert kept.max() < len(vertices)
    assert cluster_vertices(points, faces, 10.0)[1] is faces


def test_a_share_of_mistakes_is_drawn():
    missed = [draw_manner(np.random.default_rng(seed), 0.5).miss != (0.0, 0.0) for seed in range(60)]
    assert 15 < sum(missed) < 45
    assert draw_manner(np.random.default_rng(0), 0.0).miss == (0.0, 0.0)


# --- the arm and the tasks: physics, no pictures -------------------------------------------------------------------


@pytest.mark.sim
def test_inverse_kinematics_reaches_what_it_is_asked(meshes):
    world = make_world(meshes, "pick-place", 0)
    for position in ([0.45, 0.2, 0.1], [0.6, -0.25, 0.05], [0.4, 0.0, 0.4]):
        R = about(np.array([0.0, 0.0, 0.6])) @ world.down
        world.arm.place(world.arm.solve(np.array(position), R, HOME, steps=200))
        world.mujoco.mj_forward(world.model, world.data)
        found, turned = world.arm.pose()
        np.testing.assert_allclose(found, position, atol=2e-3)
        np.testing.assert_allclose(turned, R, atol=1e-2)


@pytest.mark.sim
@pytest.mark.parametrize("task", PANDA_TASKS)
def test_the_scripts_do_what_the_words_say(meshes, task):
    world = make_world(meshes, task, 3)
    assert not world.success()
    before = world.environment()
    actions = []
    for action in Expert(world, draw_manner(np.random.default_rng(0), 0.0)).actions():
        actions.append(action)
        world.step(action)
    assert world.success()
    assert max(np.abs(actions)[:, :3].max(axis=1)) < 0.05
    # The same stored actions, replayed, give the same world to the last bit.
    again = make_world(meshes, task, 3)
    np.testing.assert_array_equal(again.environment(), before)
    for action in actions:
        again.step(action)
    np.testing.assert_array_equal(again.environment(), world.environment())
    np.testing.assert_array_equal(again.state(), world.state())


@pytest.mark.sim
def test_a_hand_that_misses_fails(meshes):
    world = make_world(meshes, "pick-place", 3)
    manner = draw_manner(np.random.default_rng(1), 1.0)
    for action in Expert(world, manner).actions():
        world.step(action)
    assert not world.success()


# --- datasets ------------------------------------------------------------------------------------------------------


@pytest.mark.sim
def test_panda_episodes_are_a_sound_lerobot_dataset(meshes, tmp_path):
    config = ManipulationConfig.from_dict(
        {"out": tmp_path / "data", "episodes": 2, "frames": 20, "size": 32, "cameras": ["exo", "wrist"], "shadows": False}
    )
    summary = simulate(config)
    dataset = LeRobotDataset(config.out)
    assert find_problems(dataset) == []
    assert (dataset.num_episodes, dataset.fps, summary.frames) == (2, 10, 2 * 20 * 2)
    episode = dataset.episode(1)
    assert episode.columns["action"].shape == (20, len(ACTION_NAMES))
    assert episode.columns["next.done"].tolist() == [False] * 19 + [True]
    assert {video.shape for video in episode.videos.values()} == {(20, 32, 32, 3)}
    assert episode.task.startswith("pick up the ")
    assert episode.videos["observation.images.exo"].std() > 10
    assert json.loads((config.out / "dataset.json").read_text())["complete"] is True
    assert simulate(config).kept == 2
    with pytest.raises(UsageError, match=r"other options \(seed\)"):
        simulate(config.replace(seed=1))


@pytest.mark.sim
def test_the_pusher_as_a_lerobot_dataset_holds_the_same_episodes(world, tmp_path):
    config = PusherConfig(out=tmp_path / "data", episodes=2, frames=8, size=64, seed=3, format="lerobot")
    simulate(config)
    dataset = LeRobotDataset(config.out)
    assert find_problems(dataset) == []
    found, truth = dataset.episode(1), run_episode(world, 8, (3, 1))
    np.testing.assert_array_equal(found.columns["action"], truth.actions)
    both = np.concatenate([found.columns["observation.state"], found.columns["observation.environment_state"]], axis=1)
    np.testing.assert_array_equal(both, truth.states)
    assert found.task == truth.caption


@pytest.mark.sim
def test_metaworld_starts_where_the_seed_says_and_its_script_sees_the_goal(opengl):
    pytest.importorskip("metaworld", reason="the [sim] extra with metaworld is not installed")
    (env, script, one), (_, _, two), (_, _, other) = (metaworld_tasks.make_task("reach", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one[-3:], other[-3:])
    after, *_ = env.step(np.clip(script.get_action(one), -1, 1))
    np.testing.assert_array_equal(after[-3:], env._target_pos)


def test_metaworld_episodes_succeed_and_have_its_schema(opengl):
    pytest.importorskip("metaworld", reason="the [sim] extra with metaworld is not installed")
    config = ManipulationConfig.from_dict(
        {"out": "x", "task": ["metaworld:drawer-close"], "size": 32, "cameras": ["exo"], "shadows": False}
    )
    recording = metaworld_tasks.recorder(config)(0)
    columns = recording.columns
    assert columns["action"].shape[1] == 4
    assert np.abs(columns["action"]).max() <= 1
    assert columns["observation.environment_state"].shape == (len(columns["action"]), 39)
    assert np.abs(columns["observation.environment_state"][0, -3:]).sum() > 0  # the goal is seen
    assert columns["next.success"].any()
    assert recording.videos["exo"].shape == (len(columns["action"]), 32, 32, 3)
    assert recording.task == "close the drawer"


@pytest.mark.sim
def test_without_meshes_and_network_nothing_is_written(opengl, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DownloadError, match="gym-hil"):
        simulate(ManipulationConfig(out=tmp_path / "data", episodes=1))
    assert not (tmp_path / "data").exists()
