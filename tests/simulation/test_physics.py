"""Physics scenarios: Newton holds, outcomes are what happened, and states, masks, depth and cameras agree with each other."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.errors import ConfigError
from worldfoundry.core.video_io import read_video
from worldfoundry.simulation.config import SCENARIOS, PhysicsConfig
from worldfoundry.simulation.physics import CAMERAS, FPS, PATTERNS, SUBSTEPS, run_episode
from worldfoundry.simulation.physics_scenes import SCENARIOS as BUILDERS
from worldfoundry.simulation.simulate import simulate
from worldfoundry.simulation.textures import make_bank

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def bank():
    return make_bank(dict.fromkeys(PATTERNS, 1), seed=0, size=16)


@pytest.fixture(scope="module")
def episode_of(opengl, bank):
    def make(scenario, seed=0, frames=40):
        return run_episode(bank, scenario, frames, (7, seed), (64, 64))

    return make


@pytest.fixture(scope="module")
def made(opengl, tmp_path_factory):
    config = PhysicsConfig(
        out=tmp_path_factory.mktemp("physics") / "data", episodes=2, frames=3, size=64, scenarios=("free_fall", "dominoes")
    )
    return config, simulate(config)


def test_the_config_offers_what_is_built():
    assert tuple(BUILDERS) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_seed_gives_the_same_states_and_another_seed_others(episode_of, scenario):
    one, two, other = episode_of(scenario, 1, 6), episode_of(scenario, 1, 6), episode_of(scenario, 2, 6)
    np.testing.assert_array_equal(one.track.position_TN3, two.track.position_TN3)
    assert one.caption == two.caption
    assert one.track.position_TN3.shape != other.track.position_TN3.shape or not np.array_equal(
        one.track.position_TN3, other.track.position_TN3
    )


def test_what_falls_gains_g_times_t(episode_of):
    track = episode_of("free_fall", 3, 5).track
    np.testing.assert_allclose(
        track.velocity_TN3[:5, :, 2], -9.81 * track.times_s_T[:5, None] * np.ones(track.position_TN3.shape[1]), atol=1e-6
    )
    # Position and velocity belong to the same instants (semi-implicit steps fall ahead by half a step).
    step_s = 1 / FPS / SUBSTEPS
    fallen = track.position_TN3[0, :, 2] - track.position_TN3[4, :, 2]
    np.testing.assert_allclose(fallen, 0.5 * 9.81 * 0.2 * (0.2 + step_s), rtol=1e-3)


def test_stacks_stand_or_topple_as_they_are_built(episode_of):
    assert [episode_of("stable_stack", seed).outcome.label for seed in range(4)] == ["stands"] * 4
    assert [episode_of("unstable_stack", seed).outcome.label for seed in range(6)] == ["topples"] * 6


def test_every_moving_scenario_moves(episode_of):
    for scenario in set(SCENARIOS) - {"stable_stack", "tilted_plank"}:  # a box may stick to its plank
        track = episode_of(scenario, 0, 30).track
        assert np.linalg.norm(track.position_TN3[-1] - track.position_TN3[0], axis=1).max() > 0.05, scenario


def test_dominoes_fall_in_a_chain(episode_of):
    episode = next(e for e in (episode_of("dominoes", seed, 60) for seed in range(6)) if e.outcome.label == "all_fall")
    fell = [int(np.argmax(episode.track.tilt_deg(n) > 30)) for n in range(1, len(episode.setup.bodies))]
    assert fell == sorted(fell)
    assert episode.outcome.numbers["fallen"] == len(episode.setup.bodies)


def test_a_fast_top_stays_up(episode_of):
    episodes = [episode_of("gyroscope", seed) for seed in range(8)]
    fastest = max(episodes, key=lambda episode: episode.setup.spin)
    assert fastest.outcome.label == "precesses"


def test_files_are_complete_and_of_equal_length(made):
    config, summary = made
    assert summary.frames == 2 * 3 * 4
    for camera in CAMERAS:
        stem = f"episode_000000.{camera}"
        assert read_video(config.out / f"{stem}.mp4").frames.shape == (3, 64, 64, 3)
        masks = np.load(config.out / f"{stem}.masks.npz")["masks"]
        depth = np.load(config.out / f"{stem}.depth.npz")["depth_m"]
        assert (masks.shape, masks.dtype) == ((3, 64, 64), np.uint8)
        assert (depth.shape, depth.dtype) == ((3, 64, 64), np.float16)
    about = json.loads((config.out / "episode_000001.json").read_text())
    rows = pq.read_table(config.out / "episode_000001.states.parquet")
    assert rows.num_rows == 3 * len(about["objects"])
    assert about["scenario"] == "dominoes"
    assert about["outcome"]["label"] in ("all_fall", "some_fall", "chain_stops_at_once")
    assert (config.out / "episode_000001.cam2.txt").read_text().strip() == about["caption"]


def test_objects_are_seen_where_their_states_say(made):
    """States, calibration, masks and depth agree: an object's projection lies in its mask, at its distance."""
    config, _ = made
    about = json.loads((config.out / "episode_000000.json").read_text())
    table = pq.read_table(config.out / "episode_000000.states.parquet").to_pylist()
    positions = {row["object"]: np.array(row["position"]) for row in table if row["frame_index"] == 1}
    checked = 0
    for camera, eye in about["cameras"].items():
        masks = np.load(config.out / f"episode_000000.{camera}.masks.npz")["masks"][1]
        depth = np.load(config.out / f"episode_000000.{camera}.depth.npz")["depth_m"][1].astype(float)
        to_camera = np.linalg.inv(eye["camera_to_world"])
        for thing in about["objects"]:
            x, y, z, _ = to_camera @ np.append(positions[thing["name"]], 1)
            u, v, _ = np.array(eye["intrinsics"]) @ (x / z, y / z, 1)
            if not (2 < u < 62 and 2 < v < 62) or masks[int(v), int(u)] not in (0, thing["mask_id"]):
                continue  # outside, or behind another object
            assert masks[int(v), int(u)] == thing["mask_id"]
            reach = np.linalg.norm(thing["half_size_m"]) + 0.05
            assert z - reach < depth[int(v), int(u)] < z
            checked += 1
    assert checked >= 2


def test_an_unknown_scenario_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no scenario 'domino'.*Did you mean 'dominoes'"):
        PhysicsConfig.from_dict({"out": "x", "scenarios": ["domino"]})
    with pytest.raises(ConfigError, match="at least one scenario"):
        PhysicsConfig.from_dict({"out": "x", "scenarios": []})
