"""Drives: six calibrated cameras that agree with the trajectory and with the tracks of the others, and nobody collides."""

import json
import math

import numpy as np
import pytest

from worldfoundry.core.video_io import read_video
from worldfoundry.simulation.config import DrivingConfig
from worldfoundry.simulation.driving import RIG, build_episode, calibration, place_all
from worldfoundry.simulation.driving_captions import describe
from worldfoundry.simulation.driving_town import PATTERNS, Agent, Road
from worldfoundry.simulation.simulate import simulate
from worldfoundry.simulation.textures import make_bank
from worldfoundry.simulation.views import open_views

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def bank():
    return make_bank(dict.fromkeys(PATTERNS, 1), seed=2, size=16)


@pytest.fixture(scope="module")
def episode(opengl, bank):
    return build_episode(bank, 30, (1, 0), (64, 96))


@pytest.fixture(scope="module")
def made(opengl, tmp_path_factory):
    config = DrivingConfig(out=tmp_path_factory.mktemp("driving") / "data", episodes=1, frames=2, size=32, seed=5)
    simulate(config)
    return config.out, json.loads((config.out / "episode_000000.json").read_text())


def test_six_videos_share_a_key_and_one_description(made):
    out, about = made
    assert set(about["cameras"]) == {"front", "left", "right", "rear", "rear_left", "rear_right"}
    for camera in about["cameras"]:
        assert read_video(out / f"episode_000000.{camera}.mp4").frames.shape == (2, 32, 32, 3)
    assert len(about["trajectory"]["ego_to_world"]) == len(about["trajectory"]["times_s"]) == 2
    assert all(len(agent["x_y_yaw"]) == 2 for agent in about["agents"])


def test_masks_and_depth_of_each_camera_belong_to_the_agents(made):
    out, about = made
    ids = [agent["mask_id"] for agent in about["agents"]]
    assert ids == list(range(1, len(ids) + 1))
    names, cars = {agent["name"]: agent["mask_id"] for agent in about["agents"]}, 0
    for camera, view in about["views"].items():
        masks = np.load(out / f"episode_000000.{camera}.masks.npz")["masks"]
        depth = np.load(out / f"episode_000000.{camera}.depth.npz")["depth_m"]
        assert masks.shape == depth.shape == (2, 32, 32)
        assert set(np.unique(masks)) <= {0, *ids}
        assert np.isfinite(depth[masks > 0]).all()
        assert {names[name] for name in view["agents"]} <= set(np.unique(masks))
        assert (out / f"episode_000000.{camera}.txt").read_text().strip() == view["caption"]
        cars += len(view["agents"])
    assert cars


def test_captions_group_who_is_seen_by_what_they_do(episode):
    def agent(category, colour, d, speed):
        size = (4.0, 1.8, 1.5)
        return Agent(name="x", category=category, colour=colour, size_m=size, start_s=75.0, d=d, speed=speed)

    seen = [agent("car", "red", 1.75, -8), agent("car", "red", 1.75, -8), agent("van", "white", -4.7, 0)]
    seen.append(agent("pedestrian", "", 6.0, 1.0))
    texts = {
        describe(camera, seen, episode.drive, episode.road, "on a sunny day", "a street", (0, i))[0]
        for i in range(20)
        for camera in ("front", "rear")
    }
    for text in texts:
        assert "wo red cars" in text
        assert "a white van is parked on the right" in text
        assert "a pedestrian walks along the left pavement" in text
        assert ("come the other way" in text) != ("drive away in the other direction" in text)
    assert len(texts) >= 6
    empty = describe("left", [], episode.drive, episode.road, "on a sunny day", "a street", (0, 0))[0].lower()
    assert "no other road user" in empty or "the street is empty" in empty


def test_cameras_look_where_their_names_say_and_stand_upright(made):
    _, about = made
    for name, camera in about["cameras"].items():
        right, down, forward = np.array(camera["camera_to_ego"])[:3, :3].T
        yaw = math.radians(RIG[name][0])
        assert forward[:2] @ (math.cos(yaw), math.sin(yaw)) > 0.99
        assert down[2] < -0.99
        np.testing.assert_allclose(np.cross(right, down), forward, atol=1e-6)


def test_the_rig_sees_all_around():
    edges = sorted((yaw + sign * fov / 2) % 360 for yaw, fov, _ in RIG.values() for sign in (-1, 1))
    directions = np.arange(360)
    covered = [any(abs((d - yaw + 180) % 360 - 180) <= fov / 2 for yaw, fov, _ in RIG.values()) for d in directions]
    assert all(covered), edges


def test_the_trajectory_is_one_motion(episode):
    drive = episode.drive
    step = np.linalg.norm(np.diff(drive.ego_to_world_T44[:, :2, 3], axis=0), axis=1) * 10
    np.testing.assert_allclose(step, (drive.speed_T[1:] + drive.speed_T[:-1]) / 2, rtol=0.05)
    np.testing.assert_allclose(np.cumsum(drive.acceleration_T)[-2] / 10, drive.speed_T[-1] - drive.speed_T[0], atol=0.2)
    moved = np.diff(drive.ego_to_world_T44[:, :2, 3], axis=0)
    heading = drive.ego_to_world_T44[:-1, :2, 0]
    assert ((moved * heading).sum(1) / np.linalg.norm(moved, axis=1) > 0.995).all()  # it goes where it points


def test_others_are_seen_where_their_tracks_say(episode):
    """Calibration, trajectory and tracks agree with the picture: a near agent's middle falls on its own pixels."""
    right = wrong = 0
    with open_views(episode.model, 64, 96) as views:
        rig = calibration(views)
        for t in (0, 15, 29):
            place_all(views, episode, t)
            for name, camera in rig.items():
                views.look(name)
                ids = views.body_ids()
                to_camera = np.linalg.inv(episode.drive.ego_to_world_T44[t] @ np.array(camera["camera_to_ego"]))
                for agent in episode.agents:
                    x, y, _ = agent.pose(episode.road, t / 10)
                    px, py, pz, _ = to_camera @ (x, y, agent.size_m[2] * 0.4, 1)
                    if not 2 < pz < 25:
                        continue
                    u, v, _ = np.array(camera["intrinsics"]) @ (px / pz, py / pz, 1)
                    if 0 <= u < 96 and 0 <= v < 64 and agent.category != "pedestrian":
                        found = int(ids[int(v), int(u)])
                        right += found == views.model.body(agent.name).id
                        wrong += found == 0
    assert right >= 5
    assert wrong <= right / 5  # behind a tree or a house


def test_nobody_collides_with_the_ego_car(bank, opengl):
    for seed in range(4):
        episode = build_episode(bank, 40, (9, seed), (32, 32))
        for t, ego in zip(episode.drive.times_s_T, episode.drive.ego_to_world_T44, strict=True):
            for agent in episode.agents:
                x, y, _ = agent.pose(episode.road, float(t))
                ahead, left, _, _ = np.linalg.inv(ego) @ (x, y, 0, 1)
                apart = abs(ahead) > 2.2 + agent.size_m[0] / 2 or abs(left) > 0.95 + agent.size_m[1] / 2
                assert apart, (seed, t, agent)


def test_a_straight_road_is_straight_and_a_bend_keeps_its_width():
    road = Road(np.random.default_rng(3), 200)
    for s in (0.0, 55.5, 140.0):
        (x, y, heading), (xl, yl, _) = road.at(s, 0), road.at(s, 2.5)
        assert math.hypot(xl - x, yl - y) == pytest.approx(2.5)
        assert (xl - x) * math.cos(heading) + (yl - y) * math.sin(heading) == pytest.approx(0, abs=1e-9)
