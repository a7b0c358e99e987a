"""Flights: exact poses (one frame's depth predicts another's), clear of everything, the same for the same seed."""

import json

import numpy as np
import pytest

from worldfoundry.core.errors import ConfigError
from worldfoundry.core.video_io import read_video
from worldfoundry.data.realestate10k import read_realestate10k
from worldfoundry.simulation.camera import build_episode
from worldfoundry.simulation.camera_captions import Seen, describe
from worldfoundry.simulation.camera_flights import CLEARANCE, Flight, draw_flight, smooth
from worldfoundry.simulation.camera_places import PATTERNS, PLACES, Place
from worldfoundry.simulation.config import PLACES as OFFERED
from worldfoundry.simulation.config import CameraConfig
from worldfoundry.simulation.scene import Scene
from worldfoundry.simulation.simulate import simulate
from worldfoundry.simulation.textures import make_bank

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def bank():
    return make_bank(dict.fromkeys(PATTERNS, 1), seed=1, size=16)


@pytest.fixture(scope="module")
def made(opengl, tmp_path_factory):
    config = CameraConfig(out=tmp_path_factory.mktemp("camera") / "data", episodes=2, frames=8, size=64, width=80, seed=3)
    return config, simulate(config)


def test_the_config_offers_what_is_built():
    assert tuple(PLACES) == OFFERED


def test_files_are_complete_and_of_equal_length(made):
    config, summary = made
    assert summary.frames == 16
    for i in range(2):
        stem = config.out / f"episode_{i:06d}"
        assert read_video(stem.with_suffix(".mp4")).frames.shape == (8, 64, 80, 3)
        assert np.load(f"{stem}.depth.npz")["depth_m"].shape == (8, 64, 80)
        track = read_realestate10k(f"{stem}.camera.txt")
        np.testing.assert_array_equal(track.times_us_T, np.arange(8) * 50_000)
        about = json.loads(stem.with_suffix(".json").read_text())
        np.testing.assert_allclose(track.pixel_intrinsics_T33(64, 80)[0], about["intrinsics"])
        assert about["renderer"] == summary.renderers[0]


def test_masks_name_what_is_in_the_picture_and_captions_only_that(made):
    config, _ = made
    for i in range(2):
        stem = config.out / f"episode_{i:06d}"
        masks, about = np.load(f"{stem}.masks.npz")["masks"], json.loads(stem.with_suffix(".json").read_text())
        assert masks.shape == (8, 64, 80)
        shares = {thing["mask_id"]: (masks == thing["mask_id"]).mean(axis=(1, 2)).max() for thing in about["objects"]}
        assert set(np.unique(masks)) <= {0, *shares}
        nouns = {thing["noun"] for thing in about["objects"] if shares[thing["mask_id"]] > 0.006}
        assert set(about["visible"]) <= nouns
        depth = np.load(f"{stem}.depth.npz")["depth_m"]
        assert np.isfinite(depth[masks > 0]).all()  # things are not sky
        assert (stem.with_suffix(".txt")).read_text().strip() == about["caption"]


def flight_of(style, position, look):
    return Flight(style=style, position_T3=position, target_T3=position + look)


def test_captions_tell_the_direction_that_the_camera_took():
    place = Place(words="a hall", half=(3, 3), heights=(1, 2), focus=(0, 0, 1), light="in warm light")
    seen = Seen(things={"red sofa": 1, "wooden chair": 2}, first="red sofa", last="red sofa")
    s, zero = np.linspace(0, 1, 20)[:, None], np.zeros((20, 1))
    north = np.tile([0.0, 1.0, 0.0], (20, 1))
    east = flight_of("sideways", np.hstack([s, zero, zero + 1]), north)
    west = flight_of("sideways", np.hstack([-s, zero, zero + 1]), north)
    left = flight_of("turn", np.tile([0.0, 0, 1], (20, 1)), np.hstack([-np.sin(s), np.cos(s), zero]))
    texts = {name: {describe(place, f, seen, 20, (0, i)) for i in range(40)} for name, f in
             {"right": east, "left": west, "turned left": left}.items()}  # fmt: skip
    for name, found in texts.items():
        word = name.split()[-1]
        assert all(word in long and word in short for long, short in found)
        assert all("red sofa" in long and "two wooden chairs" in long and "in warm light" in long.lower() for long, _ in found)
        assert len(found) > 8
    assert describe(place, east, seen, 20, (3, 4)) == describe(place, east, seen, 20, (3, 4))


@pytest.mark.parametrize("index", [0, 1])
def test_the_depth_of_one_frame_predicts_the_depth_of_another(made, index):
    config, _ = made
    stem = config.out / f"episode_{index:06d}"
    depth = np.load(f"{stem}.depth.npz")["depth_m"].astype(float)
    track = read_realestate10k(f"{stem}.camera.txt")
    lens, poses = track.pixel_intrinsics_T33(64, 80)[0], track.camera_to_world_T44
    a, b = 2, 5
    v, u = np.mgrid[0:64, 0:80] + 0.5
    finite = np.isfinite(depth[a])
    rays = np.stack([(u - lens[0, 2]) / lens[0, 0], (v - lens[1, 2]) / lens[1, 1], np.ones_like(u), 1 / depth[a]], -1)
    points = (rays[finite] * depth[a][finite][:, None]) @ (np.linalg.inv(poses[b]) @ poses[a]).T
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    column = np.floor(x / z * lens[0, 0] + lens[0, 2]).astype(int)
    row = np.floor(y / z * lens[1, 1] + lens[1, 2]).astype(int)
    seen = (z > 0) & (column >= 0) & (column < 80) & (row >= 0) & (row < 64)
    assert seen.mean() > 0.3
    error = np.abs(depth[b][row[seen], column[seen]] - z[seen]) / z[seen]
    assert np.median(error) < 0.01
    still = np.abs(depth[b][finite][seen] - z[seen]) / z[seen]
    assert np.median(error) < np.median(still) or np.median(still) < 1e-3  # without the motion it does not fit


@pytest.mark.parametrize("place", OFFERED)
def test_flights_are_smooth_and_touch_nothing(bank, place):
    for seed in range(8):
        rng = np.random.default_rng((2, seed))
        found = PLACES[place](Scene(bank, rng))
        flight = draw_flight(found, rng, 30, 20.0)
        assert smooth((flight.position_T3, flight.target_T3))
        for o in found.obstacles:
            away = np.hypot(flight.position_T3[:, 0] - o.x, flight.position_T3[:, 1] - o.y)
            above = flight.position_T3[:, 2] - o.top
            assert ((away >= o.radius + CLEARANCE) | (above >= CLEARANCE) | (flight.style == "corner")).all()


def test_the_same_seed_gives_the_same_flight(opengl, bank):
    one, two, other = (build_episode(bank, "room", 10, (1, i), (32, 32)) for i in (4, 4, 5))
    np.testing.assert_array_equal(one.flight.position_T3, two.flight.position_T3)
    assert one.place.nouns == two.place.nouns
    assert not np.array_equal(one.flight.position_T3, other.flight.position_T3)


def test_an_unknown_place_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no place 'rooms'.*Did you mean 'room'"):
        CameraConfig.from_dict({"out": "x", "places": ["rooms"]})
