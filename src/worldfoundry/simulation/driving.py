"""`simulate driving`: a car drives through a town; six cameras on it see the same moments, exactly calibrated.

On disk, for episode 7: `episode_000007.front.mp4` and likewise left, right, rear, rear_left, rear_right, beside each its caption
`.txt`, `.masks.npz` (`masks` uint16 THW: n is the agent whose `mask_id` is n, 0 the rest) and `.depth.npz` (`depth_m` float16 THW,
infinite in the sky); last, one `episode_000007.json`: the rig's calibration, the ego trajectory, the tracks of all other agents, captions.

Frames: the ego frame has x forwards, y left, z up, its origin on the ground below the middle of the car; cameras have OpenCV's axes.
Matrices are 4x4, named A_to_B: p_B = A_to_B @ p_A. Axis legend: T frames.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import write_video
from worldfoundry.simulation.config import DrivingConfig
from worldfoundry.simulation.driving_captions import EGO_S, describe
from worldfoundry.simulation.driving_town import (
    LANE,
    PATTERNS,
    Agent,
    Road,
    build_houses,
    lay_road,
    plant_trees,
    populate,
)
from worldfoundry.simulation.episodes import write_npz, write_text
from worldfoundry.simulation.kind import Kind
from worldfoundry.simulation.scene import Scene, numbers
from worldfoundry.simulation.textures import Bank, make_bank
from worldfoundry.simulation.views import FLIP, Views, fovy_of, look_at, open_views, pose, xyaxes

FPS = 10
# Name → (yaw in degrees to the left, horizontal field of view, where it sits in the ego frame).
RIG: dict[str, tuple[float, float, tuple[float, float, float]]] = {
    "front": (0, 75, (0.9, 0.0, 1.55)),
    "left": (60, 75, (0.6, 0.65, 1.5)),
    "right": (-60, 75, (0.6, -0.65, 1.5)),
    "rear": (180, 75, (-1.6, 0.0, 1.5)),
    "rear_left": (120, 75, (-0.6, 0.65, 1.5)),
    "rear_right": (-120, 75, (-0.6, -0.65, 1.5)),
}
SEEN = 0.004  # the share of a picture from which on an agent is worth a word
PITCH = -0.06  # every camera looks slightly down: z per metre ahead


@dataclass(frozen=True, kw_only=True)
class Drive:
    """The ego car's own motion: ego_to_world_T44, speed (m/s), acceleration (m/s²), yaw rate (rad/s, left is positive)."""

    times_s_T: np.ndarray
    ego_to_world_T44: np.ndarray
    speed_T: np.ndarray
    acceleration_T: np.ndarray
    yaw_rate_T: np.ndarray
    words: str


@dataclass(frozen=True, kw_only=True)
class DrivingEpisode:
    """A compiled town with its traffic and the ego car's drive, not yet drawn."""

    model: Any
    road: Road
    agents: list[Agent]
    drive: Drive
    weather: str
    town: str


def build_episode(bank: Bank, frames: int, seed: tuple[int, int], shape: tuple[int, int]) -> DrivingEpisode:
    """Draw road, town, traffic and drive; the same seed gives the same states."""
    rng = np.random.default_rng(seed)
    scene = Scene(bank, rng)
    duration_s, ego_s, cruise = frames / FPS, EGO_S, float(rng.uniform(5, 11))
    road = Road(rng, int(ego_s + cruise * duration_s * 1.3 + 90))
    town = lay_road(scene, road)
    build_houses(scene, road)
    plant_trees(scene, road)
    agents = populate(scene, ego_s, duration_s, cruise)
    drive = draw_drive(rng, road, ego_s, cruise, frames)
    scene.add(rig_xml(*shape))
    weather, sky, sun, ambient = draw_weather(rng)
    scene.add(sun)
    model = scene.compile(
        *shape, centre=(0, 0, 0), extent_m=15.0, far_m=220.0, shadow_clip_m=26.0, sky=sky, ambient=ambient
    )  # fmt: skip
    return DrivingEpisode(model=model, road=road, agents=agents, drive=drive, weather=weather, town=town)


def draw_weather(rng: np.random.Generator) -> tuple[str, Any, str, float]:
    """(words, sky colours, the sun as a body that follows the car, ambient light)."""
    sunny = rng.random() < 0.65
    angle, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.8)
    towards = (lean * math.cos(angle), lean * math.sin(angle), -1)
    colour = numbers((0.72, 0.68, 0.6) if sunny else (0.42, 0.42, 0.43))
    start = numbers([-22 * value for value in towards])
    sun = (
        f'<body name="sun" mocap="true"><light directional="true" pos="{start}" dir="{numbers(towards)}" diffuse="{colour}" '
        f'specular=".2 .2 .2" castshadow="{"true" if sunny else "false"}"/></body>'
    )
    if sunny:
        return "on a sunny day", ((0.36, 0.56, 0.86), (0.84, 0.9, 0.95)), sun, 0.38
    return "under an overcast sky", ((0.62, 0.65, 0.69), (0.84, 0.85, 0.86)), sun, 0.5


def rig_xml(height: int, width: int) -> str:
    """The ego car: six cameras on a body that is moved."""
    cameras = []
    for name, (yaw_deg, fovx_deg, position) in RIG.items():
        a = math.radians(yaw_deg)
        axes = xyaxes(look_at((0, 0, 0), (math.cos(a), math.sin(a), PITCH)))
        fovy = fovy_of(fovx_deg, height, width)
        cameras.append(f'<camera name="{name}" pos="{numbers(position)}" xyaxes="{axes}" fovy="{fovy:.6f}"/>')
    return f'<body name="ego" mocap="true">{"".join(cameras)}</body>'


def draw_drive(rng: np.random.Generator, road: Road, ego_s: float, cruise: float, frames: int) -> Drive:
    """Along the right lane at a varying speed, sometimes shifting within it: steering and pedals as a person uses them."""
    t = np.arange(frames) / FPS
    manner = str(rng.choice(["steady", "faster", "slower", "steady"]))
    change = {"steady": 0.0, "faster": 0.25, "slower": -0.5}[manner]
    ramp = np.clip(t / max(t[-1], 1e-6), 0, 1)
    speed = cruise * (1 + change * (3 * ramp**2 - 2 * ramp**3)) * (1 + 0.02 * np.sin(0.9 * t + rng.uniform(0, 6)))
    s = ego_s + np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 / FPS)])
    sway = rng.uniform(0, 0.35) * np.sin(2 * np.pi * t / rng.uniform(4, 8) + rng.uniform(0, 6))
    places = np.array([road.at(si, -LANE + di) for si, di in zip(s, sway, strict=True)])
    slope = np.gradient(sway, s) if frames > 1 else np.zeros(1)
    yaw = places[:, 2] + np.arctan(slope)
    turned_deg = math.degrees(yaw[-1] - yaw[0])
    bend = "straight on" if abs(turned_deg) < 8 else "through a left bend" if turned_deg > 0 else "through a right bend"
    verb = {"steady": "drives", "faster": "speeds up and drives", "slower": "slows down and drives"}[manner]
    return Drive(
        times_s_T=t,
        ego_to_world_T44=np.stack([pose(about_z(a), (x, y, 0.0)) for (x, y, _), a in zip(places, yaw, strict=True)]),
        speed_T=speed,
        acceleration_T=np.gradient(speed, 1 / FPS),
        yaw_rate_T=np.gradient(yaw, 1 / FPS),
        words=f"a car {verb} {bend}",
    )


def about_z(yaw: float) -> np.ndarray:
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def place_all(views: Views, episode: DrivingEpisode, t: int) -> None:
    """Put ego car, sun and all agents where they are at frame t."""
    data, model = views.data, views.model
    ego_to_world, time_s = episode.drive.ego_to_world_T44[t], float(episode.drive.times_s_T[t])
    yaw = math.atan2(ego_to_world[1, 0], ego_to_world[0, 0])
    move(data, model, "ego", ego_to_world[0, 3], ego_to_world[1, 3], yaw)
    # Shadows are drawn around the sun's body only; it keeps a whole number of metres, so that they do not shimmer.
    move(data, model, "sun", round(ego_to_world[0, 3]), round(ego_to_world[1, 3]), 0.0)
    for agent in episode.agents:
        move(data, model, agent.name, *agent.pose(episode.road, time_s), z=0.03)
    views.mujoco.mj_forward(model, data)


def move(data: Any, model: Any, name: str, x: float, y: float, yaw: float, z: float = 0.0) -> None:
    i = int(model.body(name).mocapid[0])
    data.mocap_pos[i] = (x, y, z)
    data.mocap_quat[i] = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))


def film(views: Views, episode: DrivingEpisode, stem: Path, config: DrivingConfig) -> dict[str, list[Agent]]:
    """Video, masks and depth of each camera; returns the agents that each saw, the largest in its pictures first."""
    objects = views.object_ids([agent.name for agent in episode.agents])
    looked_at = {round((config.frames - 1) * i / 6) for i in range(7)}
    seen = {}
    for camera in RIG:
        masks, depths, shares = [], [], []

        def pictures(camera: str = camera, masks: list = masks, depths: list = depths, shares: list = shares) -> Iterator[Any]:
            for t in range(config.frames):
                place_all(views, episode, t)
                views.look(camera)
                if config.masks or t in looked_at:
                    mask = objects()
                    masks.append(mask)
                    if t in looked_at:
                        shares.append(np.bincount(mask.ravel(), minlength=len(episode.agents) + 1)[1:] / mask.size)
                if config.depth:
                    depths.append(views.depth_m())
                yield views.rgb()

        name = f"{stem.name}.{camera}"
        write_video(stem.with_name(f"{name}.mp4"), pictures(), FPS, crf=config.crf)
        if config.masks:
            write_npz(stem.with_name(f"{name}.masks.npz"), "masks", np.stack(masks))
        if config.depth:
            write_npz(stem.with_name(f"{name}.depth.npz"), "depth_m", np.stack(depths))
        largest = np.max(shares, axis=0)
        seen[camera] = [episode.agents[i] for i in np.argsort(-largest, kind="stable") if largest[i] > SEEN]
    return seen


def calibration(views: Views) -> dict[str, Any]:
    """Intrinsics in pixels and camera_to_ego of each camera, as the simulator has them."""
    rig = {}
    for name in RIG:
        camera = views.model.camera(name)
        rotation = np.empty(9)
        views.mujoco.mju_quat2Mat(rotation, camera.quat)
        camera_to_ego = pose(rotation.reshape(3, 3) @ FLIP, camera.pos)
        rig[name] = {
            "intrinsics": views.intrinsics(name).tolist(),
            "camera_to_ego": camera_to_ego.tolist(),
            "yaw_deg": RIG[name][0],
        }
    return rig


def tracks(episode: DrivingEpisode) -> list[dict[str, Any]]:
    """Every agent's box: size once, and x, y, yaw in the world at every frame."""
    found = []
    for mask_id, agent in enumerate(episode.agents, 1):
        poses = [agent.pose(episode.road, float(t)) for t in episode.drive.times_s_T]
        found.append(
            {
                "mask_id": mask_id,
                "name": agent.name,
                "category": agent.category,
                "colour": agent.colour,
                "size_m": agent.size_m,
                "x_y_yaw": np.round(poses, 4).tolist(),
            }
        )
    return found


def captions(episode: DrivingEpisode, seen: dict[str, list[Agent]], seed: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Caption, short caption and the names of the agents in the picture, for each camera."""
    found = {}
    for camera, agents in seen.items():
        long, short = describe(camera, agents, episode.drive, episode.road, episode.weather, episode.town, seed)
        found[camera] = {"caption": long, "caption_short": short, "agents": [agent.name for agent in agents]}
    return found


def facts(_config: DrivingConfig) -> dict[str, Any]:
    """What is the same in every episode."""
    return {
        "fps": FPS,
        "cameras": list(RIG),
        "camera_axes": "OpenCV: x right, y down, z forwards; pixel centres at +0.5",
        "ego_axes": "x forwards, y left, z up; origin on the ground below the middle of the car",
        "matrices": "A_to_B: p_B = A_to_B @ p_A",
        "units": "metres, seconds, radians; depth along the camera's axis",
        "masks": "uint16; n is the agent whose mask_id is n in the episode's JSON, 0 is everything else",
    }


@contextmanager
def open_episodes(config: DrivingConfig) -> Iterator[Callable[[int], str]]:
    """`write(index)` draws and writes one episode into `config.out` and returns the renderer's name."""
    bank = make_bank(PATTERNS, seed=2)

    def write(index: int) -> str:
        episode = build_episode(bank, config.frames, (config.seed, index), config.shape)
        stem, drive = config.out / f"episode_{index:06d}", episode.drive
        with open_views(episode.model, *config.shape) as views:
            seen = captions(episode, film(views, episode, stem, config), (config.seed, index))
            about = {
                "caption": seen["front"]["caption"],
                "views": seen,
                "cameras": calibration(views),
                "trajectory": {
                    "times_s": drive.times_s_T.tolist(),
                    "ego_to_world": drive.ego_to_world_T44.tolist(),
                    "speed_m_per_s": drive.speed_T.tolist(),
                    "acceleration_m_per_s2": drive.acceleration_T.tolist(),
                    "yaw_rate_rad_per_s": drive.yaw_rate_T.tolist(),
                },
                "agents": tracks(episode),
                "weather": episode.weather,
                "fps": FPS,
                "seed": [config.seed, index],
                "renderer": views.renderer_name,
            }
        for camera in RIG:
            write_text(stem.with_name(f"{stem.name}.{camera}.txt"), seen[camera]["caption"])
        write_json(stem.with_name(f"{stem.name}.json"), about)
        return about["renderer"]

    yield write


KIND = Kind(
    facts=facts,
    open_episodes=open_episodes,
    is_whole=lambda config, index: (config.out / f"episode_{index:06d}.json").exists(),
)
