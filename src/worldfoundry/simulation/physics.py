"""`simulate physics`: eight scenarios after the Cosmos paper, seen by four static cameras, with exact ground truth.

On disk, for episode 7: `episode_000007.cam0.mp4` … `cam3`; beside each its caption `.txt`, `.masks.npz` (`masks` uint8 THW: 0 is
the surroundings, n the n-th object) and `.depth.npz` (`depth_m` float16 THW, infinite in the sky); once for all cameras
`episode_000007.states.parquet` (a row per frame and object) and, last, `episode_000007.json` (objects, cameras, outcome, caption).
The motion is simulated first and drawn afterwards, camera by camera, so masks, depth and states belong to the same instants.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.files import atomic_path, write_json
from worldfoundry.core.video_io import write_video
from worldfoundry.simulation.captions import story
from worldfoundry.simulation.config import PhysicsConfig
from worldfoundry.simulation.episodes import write_npz, write_text
from worldfoundry.simulation.kind import Kind
from worldfoundry.simulation.physics_outcomes import OUTCOMES, Outcome, Track
from worldfoundry.simulation.physics_scenes import HALF_PIPE, SCENARIOS, Setup
from worldfoundry.simulation.render import load_mujoco
from worldfoundry.simulation.scene import NO_SHADOW, Scene, numbers
from worldfoundry.simulation.textures import Bank, make_bank
from worldfoundry.simulation.views import Views, look_at, open_views, xyaxes

FPS, SUBSTEPS = 20, 25
CAMERAS = ("cam0", "cam1", "cam2", "cam3")
PATTERNS = {
    **{"wood": 4, "plain_wood": 3, "tile": 3, "concrete": 2, "brick": 2, "grass": 2, "gravel": 1, "sand": 1, "asphalt": 1},
    **{"fabric": 2, "plaster": 2, "marble": 2, "speckle": 2, "stripes": 2, "checker": 2},
}
FLOORS = {
    "wood": "a wooden floor",
    "tile": "a tiled floor",
    "concrete": "a concrete floor",
    "fabric": "a carpet",
    "grass": "grass",
    "gravel": "gravel",
    "sand": "sand",
    "asphalt": "asphalt",
}


@dataclass(frozen=True, kw_only=True)
class PhysicsEpisode:
    """One simulated episode, not yet drawn. qpos_TQ are MuJoCo's positions at the instant of each frame."""

    scenario: str
    model: Any
    setup: Setup
    qpos_TQ: np.ndarray
    track: Track
    outcome: Outcome
    caption: str


def run_episode(bank: Bank, scenario: str, frames: int, seed: tuple[int, int], shape: tuple[int, int]) -> PhysicsEpisode:
    """Build and simulate one episode; the same seed gives the same states. `shape` is (height, width) of the pictures."""
    mujoco = load_mujoco()
    scene = Scene(bank, np.random.default_rng(seed))
    setup = SCENARIOS[scenario](scene)
    scene.add(*(body.xml for body in setup.bodies), *cameras(scene.rng, setup, shape))
    where = surroundings(scene)
    sky = scene.rng.uniform(0.35, 0.75), scene.rng.uniform(0.85, 0.97)
    model = scene.compile(
        *shape,
        centre=(0, 0, 0.4),
        extent_m=2.0,
        far_m=40,
        shadow_clip_m=4.5,
        sky=((sky[0] * 0.75, sky[0] * 0.95, min(sky[0] * 1.3, 1)), (sky[1], sky[1], sky[1])),
        ambient=float(scene.rng.uniform(0.3, 0.42)),
        timestep_s=1 / FPS / SUBSTEPS,
    )
    if model.nhfield:
        model.hfield_data[:] = np.tile(HALF_PIPE, 3)
    data = mujoco.MjData(model)
    if setup.spin:
        data.qvel[5] = setup.spin
    qpos_TQ, track = simulate(mujoco, model, data, [body.name for body in setup.bodies], frames)
    outcome = OUTCOMES[scenario](setup, track)
    caption = tell(where, outcome.sentence, np.random.default_rng((*seed, 1)))
    return PhysicsEpisode(
        scenario=scenario, model=model, setup=setup, qpos_TQ=qpos_TQ, track=track, outcome=outcome, caption=caption
    )


def tell(where: str, happens: str, rng: np.random.Generator) -> str:
    """The caption: place and event, in one of several forms."""
    forms = (
        (f"a static camera films a small physics experiment on {where}", happens),
        (happens, f"the scene lies on {where}, and the camera does not move"),
        (f"on {where}, seen by a camera that stands still: {happens}",),
        (f"a still shot of objects on {where}", happens),
    )
    return story(*forms[rng.integers(len(forms))])


def simulate(mujoco: Any, model: Any, data: Any, names: list[str], frames: int) -> tuple[np.ndarray, Track]:
    """Let physics run for `frames` frames; positions and the track of the named bodies at the instant of each."""
    ids = [model.body(name).id for name in names]
    positions, places, turns, velocities = [], [], [], []
    motion = np.zeros(6)
    for _ in range(frames):
        mujoco.mj_forward(model, data)
        positions.append(data.qpos.copy())
        places.append(data.xpos[ids])
        turns.append(data.xquat[ids])
        for body_id in ids:
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body_id, motion, 0)
            velocities.append(motion.copy())
        mujoco.mj_step(model, data, SUBSTEPS)
    motion_TN6 = np.array(velocities).reshape(frames, len(ids), 6)
    track = Track(
        times_s_T=np.arange(frames) / FPS,
        position_TN3=np.array(places),
        quaternion_TN4=np.array(turns),
        velocity_TN3=motion_TN6[..., 3:],
        spin_TN3=motion_TN6[..., :3],
    )
    return np.array(positions), track


def cameras(rng: np.random.Generator, setup: Setup, shape: tuple[int, int]) -> Iterator[str]:
    """Four cameras around the action, whose narrower side sees at least 42 degrees."""
    height, width = shape
    fovy = 42.0 if width >= height else 42.0 * height / width
    around = (60, 120, 240, 300) if setup.planar else rng.uniform(0, 90) + 90 * np.arange(4)
    for azimuth, name in zip(around, CAMERAS, strict=True):
        angle, distance = math.radians(azimuth + rng.uniform(-15, 15)), rng.uniform(*setup.distance)
        position = (distance * math.cos(angle), distance * math.sin(angle), setup.aim_z + distance * rng.uniform(0.15, 0.45))
        rotation = look_at(position, (0, 0, setup.aim_z))
        yield f'<camera name="{name}" pos="{numbers(position)}" xyaxes="{xyaxes(rotation)}" fovy="{min(fovy, 90):.4f}"/>'


def surroundings(scene: Scene) -> str:
    """Ground, light, and four walls in half of the scenes; returns what a caption says of them."""
    rng, indoors = scene.rng, scene.rng.random() < 0.5
    grounds = ("wood", "tile", "concrete", "fabric") if indoors else ("grass", "gravel", "sand", "asphalt", "tile", "concrete")
    ground = grounds[rng.integers(len(grounds))]
    floor = scene.surface(ground, tile_m=float(rng.uniform(1.0, 1.6)), pale=True)
    scene.add(f'<geom name="floor" type="plane" size="{"6 6 .1" if indoors else "30 30 .1"}" material="{floor}" {NO_SHADOW}/>')
    angle, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 0.75)
    towards = (-lean * math.cos(angle), -lean * math.sin(angle), -1.0)
    warmth = rng.uniform(-0.06, 0.06)
    light = numbers((0.68 + warmth, 0.66, 0.62 - warmth))
    start = numbers([-4 * value for value in towards])
    scene.add(f'<light directional="true" pos="{start}" dir="{numbers(towards)}" diffuse="{light}" specular=".3 .3 .3"/>')
    if not indoors:
        return f"{FLOORS[ground]} under an open sky"
    wall = scene.surface("plaster", "brick", "concrete", tile_m=1.5, pale=True)
    for x, y in ((5.0, 0), (-5.0, 0), (0, 5.0), (0, -5.0)):
        half = (0.05, 5.05, 1.7) if x else (5.05, 0.05, 1.7)
        scene.add(scene.box(half, (x, y, 1.7), wall, tile_m=1.6, shadow=False))
    return f"{FLOORS[ground]} in a bare room"


def draw(views: Views, episode: PhysicsEpisode) -> Iterator[None]:
    """Put the bodies where they were, frame by frame."""
    for qpos in episode.qpos_TQ:
        views.data.qpos[:] = qpos
        views.mujoco.mj_forward(views.model, views.data)
        yield


def write_views(views: Views, episode: PhysicsEpisode, stem: Path, config: PhysicsConfig) -> None:
    """Video, caption, masks and depth of each camera."""
    for camera in CAMERAS:
        masks, depths = [], []

        def pictures(camera: str = camera, masks: list = masks, depths: list = depths) -> Iterator[np.ndarray]:
            for _ in draw(views, episode):
                views.look(camera)
                if config.masks:
                    masks.append(views.body_ids().astype(np.uint8))
                if config.depth:
                    depths.append(views.depth_m())
                yield views.rgb()

        name = f"{stem.name}.{camera}"
        write_video(stem.with_name(f"{name}.mp4"), pictures(), FPS, crf=config.crf)
        write_text(stem.with_name(f"{name}.txt"), episode.caption)
        if config.masks:
            write_npz(stem.with_name(f"{name}.masks.npz"), "masks", np.stack(masks))
        if config.depth:
            write_npz(stem.with_name(f"{name}.depth.npz"), "depth_m", np.stack(depths))


def write_states(path: Path, setup: Setup, track: Track) -> None:
    """A row per frame and object: frame_index, timestamp (s), object, position (m), quaternion wxyz, velocity, spin (world axes)."""
    frames, bodies = track.position_TN3.shape[:2]
    columns = {
        "frame_index": pa.array(np.repeat(np.arange(frames), bodies), pa.int64()),
        "timestamp": pa.array(np.repeat(track.times_s_T, bodies), pa.float64()),
        "object": pa.array([body.name for body in setup.bodies] * frames).dictionary_encode(),
    }
    values = {
        "position": track.position_TN3,
        "quaternion": track.quaternion_TN4,
        "velocity": track.velocity_TN3,
        "spin": track.spin_TN3,
    }
    for name, value in values.items():
        rows = value.reshape(frames * bodies, -1)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float64()), rows.shape[1])
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def describe(views: Views, episode: PhysicsEpisode) -> dict[str, Any]:
    """Objects, cameras and outcome of an episode, for its JSON."""
    model = views.model
    objects = [
        {
            "mask_id": int(model.body(body.name).id),
            "name": body.name,
            "noun": body.noun,
            "shape": body.shape,
            "half_size_m": list(body.half),
            "moves": body.moves,
            "mass_kg": float(model.body(body.name).mass[0]) if body.moves else None,
        }
        for body in episode.setup.bodies
    ]
    eyes = {
        camera: {
            "intrinsics": views.intrinsics(camera).tolist(),
            "camera_to_world": views.camera_to_world(camera).tolist(),
        }
        for camera in CAMERAS
    }
    outcome = {"label": episode.outcome.label, **episode.outcome.numbers}
    return {"scenario": episode.scenario, "caption": episode.caption, "outcome": outcome, "objects": objects, "cameras": eyes}


def facts(config: PhysicsConfig) -> dict[str, Any]:
    """What is the same in every episode."""
    return {
        "fps": FPS,
        "cameras": list(CAMERAS),
        "camera_axes": "OpenCV: x right, y down, z forwards; pixel centres at +0.5",
        "units": "metres, seconds, radians per second, quaternions wxyz; depth along the camera's axis",
        "scenario_of_episode": f"scenarios[i % {len(config.scenarios)}]",
    }


@contextmanager
def open_episodes(config: PhysicsConfig) -> Iterator[Callable[[int], str]]:
    """`write(index)` simulates, draws and writes one episode into `config.out` and returns the renderer's name."""
    bank = make_bank(PATTERNS, seed=0)

    def write(index: int) -> str:
        scenario = config.scenarios[index % len(config.scenarios)]
        episode = run_episode(bank, scenario, config.frames, (config.seed, index), config.shape)
        stem = config.out / f"episode_{index:06d}"
        with open_views(episode.model, *config.shape) as views:
            write_views(views, episode, stem, config)
            write_states(stem.with_name(f"{stem.name}.states.parquet"), episode.setup, episode.track)
            about = {**describe(views, episode), "fps": FPS, "seed": [config.seed, index], "renderer": views.renderer_name}
            write_json(stem.with_name(f"{stem.name}.json"), about)
            return views.renderer_name

    yield write


KIND = Kind(
    facts=facts,
    open_episodes=open_episodes,
    is_whole=lambda config, index: (config.out / f"episode_{index:06d}.json").exists(),
)
