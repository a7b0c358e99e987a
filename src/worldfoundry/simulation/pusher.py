"""The tabletop pusher: a magenta rod steered by velocity commands over a checkered table, and one block that it pushes.

Chosen to be learnable: one fixed oblique camera, few colours, large objects, motion in nearly every frame, actions that matter.
Low rails hold the block; the rod's tip passes over them, so it can get behind a block at the rail and nothing gets stuck.
The scene is symmetric about x = 0: the clip mirrored left to right, with the x command negated, is a clip of the same world.

Units: metres and seconds of the simulated world (the table is about 2 m wide), radians. x points right, y away from the viewer.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldfoundry.simulation import lerobot_out
from worldfoundry.simulation.config import PusherConfig
from worldfoundry.simulation.episodes import episode_path, write_episode
from worldfoundry.simulation.kind import Kind
from worldfoundry.simulation.render import load_mujoco, open_renderer, renderer_name

FPS = 12
ACTION_NAMES = ("pusher_vx", "pusher_vy")
STATE_NAMES = ("pusher_x", "pusher_y", "block_x", "block_y", "block_yaw")
MIRROR_ACTION = (-1.0, 1.0)
MIRROR_STATE = (-1.0, 1.0, -1.0, 1.0, -1.0)
BLOCK_COLOURS = {"green": (0.10, 0.80, 0.10, 1.0), "blue": (0.10, 0.25, 0.95, 1.0)}

REACH, REACH_SUM = 1.03, 1.7  # the rod's centre stays where |x|, |y| < REACH and |x| + |y| < REACH_SUM: always in view
RAIL = 0.86  # inner face of the rails
BLOCK_HALF, CORNER = 0.3, 0.28
SUBSTEPS = 16
SPEED = (1.6, 3.0)  # of a command, m/s: about 2.5 to 5 pixels a frame at 64 pixels
BLOCK_SHARE, STILL_SHARE = 0.65, 0.06
CLEARANCE = 0.62  # centre to centre, a rod passes a block at any yaw

# Checks are 0.5 wide and meet at the plane's centre, which is shifted by half a check: x = 0 runs through the middle of one.
# What is drawn and what collides differ, so that every contact is solved in closed form and the physics is exactly symmetric
# (box against box and cylinder against box are not): the rod touches the block as a sphere (bit 2), and the block touches the
# inner faces of the rails, which are planes, with a small sphere in each corner (bit 1).
SCENE = f"""
<mujoco model="pusher">
  <option timestep="{1 / FPS / SUBSTEPS:.12f}" gravity="0 0 0"/>
  <visual>
    <quality shadowsize="0" offsamples="4"/>
    <global offwidth="SIZE" offheight="SIZE"/>
    <headlight ambient=".45 .45 .45" diffuse=".35 .35 .35" specular="0 0 0"/>
  </visual>
  <asset>
    <texture name="checks" type="2d" builtin="checker" rgb1=".62 .60 .56" rgb2=".50 .48 .45" width="128" height="128"/>
    <material name="checks" texture="checks" texrepeat="6 6"/>
  </asset>
  <default>
    <default class="rail"><geom type="box" rgba=".36 .25 .17 1" contype="0" conaffinity="0"/></default>
    <default class="face"><geom type="plane" size="1 1 .1" group="4" contype="1" conaffinity="1"/></default>
    <default class="corner"><geom type="sphere" size=".02" mass="0" group="4" contype="1" conaffinity="1" friction=".2"/></default>
  </default>
  <worldbody>
    <light pos="0 -.5 4" dir="0 .25 -1" directional="true" castshadow="false" diffuse=".35 .35 .35"/>
    <camera name="fixed" pos="0 -2.2 4.35" xyaxes="1 0 0 0 .9063 .4226" fovy="32.4"/>
    <geom type="plane" pos=".25 .25 0" size="3 3 .1" material="checks" contype="0" conaffinity="0"/>
    <geom class="rail" size="{RAIL + 0.08} .04 .04" pos="0 {RAIL + 0.04} .04"/>
    <geom class="rail" size="{RAIL + 0.08} .04 .04" pos="0 {-RAIL - 0.04} .04"/>
    <geom class="rail" size=".04 {RAIL} .04" pos="{RAIL + 0.04} 0 .04"/>
    <geom class="rail" size=".04 {RAIL} .04" pos="{-RAIL - 0.04} 0 .04"/>
    <geom class="face" pos="{RAIL} 0 0" zaxis="-1 0 0"/>
    <geom class="face" pos="{-RAIL} 0 0" zaxis="1 0 0"/>
    <geom class="face" pos="0 {RAIL} 0" zaxis="0 -1 0"/>
    <geom class="face" pos="0 {-RAIL} 0" zaxis="0 1 0"/>
    <body name="pusher" pos="0 0 .25">
      <joint name="pusher_x" type="slide" axis="1 0 0"/>
      <joint name="pusher_y" type="slide" axis="0 1 0"/>
      <geom name="pusher" type="cylinder" size=".16 .15" rgba="1 0 1 1" mass=".3" contype="0" conaffinity="0"/>
      <geom type="sphere" size=".16" group="4" mass="0" friction=".3" contype="2" conaffinity="2"/>
    </body>
    <body name="block" pos="0 0 .17">
      <joint type="slide" axis="1 0 0" damping="3" frictionloss=".6"/>
      <joint type="slide" axis="0 1 0" damping="3" frictionloss=".6"/>
      <joint type="hinge" axis="0 0 1" damping=".12" frictionloss=".04"/>
      <geom name="block" type="box" size="{BLOCK_HALF} {BLOCK_HALF} .16" mass=".4" friction=".3" contype="2" conaffinity="2"/>
      <geom class="corner" pos="{CORNER} {CORNER} 0"/>
      <geom class="corner" pos="{CORNER} {-CORNER} 0"/>
      <geom class="corner" pos="{-CORNER} {CORNER} 0"/>
      <geom class="corner" pos="{-CORNER} {-CORNER} 0"/>
    </body>
  </worldbody>
  <actuator>
    <velocity joint="pusher_x" kv="40" forcerange="-20 20"/>
    <velocity joint="pusher_y" kv="40" forcerange="-20 20"/>
  </actuator>
</mujoco>
"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """How an episode begins: `state` as in STATE_NAMES, the block's colour by name."""

    state: tuple[float, ...]
    block: str

    def mirrored(self) -> "Start":
        return Start(state=tuple(s * m for s, m in zip(self.state, MIRROR_STATE, strict=True)), block=self.block)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One rollout. frames uint8 (T, size, size, 3); actions float32 (T, 2), in m/s, where row i acts between frames i and i+1;
    states float32 (T, 5) at the instant of each frame."""

    frames: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    caption: str
    renderer: str


class PusherWorld:
    """One compiled scene with its renderer, reset for each episode. Made by `open_pusher_world`."""

    def __init__(self, mujoco: Any, model: Any, renderer: Any) -> None:
        self.mujoco, self.model, self.renderer = mujoco, model, renderer
        self.data = mujoco.MjData(model)
        self.renderer_name = renderer_name()

    def reset(self, start: Start) -> None:
        """Put the objects where `start` says, at rest."""
        self.mujoco.mj_resetData(self.model, self.data)
        self.model.geom_rgba[self.model.geom("block").id] = BLOCK_COLOURS[start.block]
        self.data.qpos[:] = start.state
        self.mujoco.mj_forward(self.model, self.data)

    def step(self, velocity: np.ndarray) -> None:
        """Advance by one frame (1/12 s) under a commanded velocity of the rod, in m/s."""
        self.data.ctrl[:] = velocity
        self.mujoco.mj_step(self.model, self.data, SUBSTEPS)

    def state(self) -> np.ndarray:
        """Positions now, float64 (5,), in the order of STATE_NAMES."""
        return self.data.qpos.copy()

    def render(self) -> np.ndarray:
        """The picture now, uint8 (size, size, 3)."""
        self.renderer.update_scene(self.data, camera="fixed")
        return self.renderer.render().copy()


@contextmanager
def open_pusher_world(size: int) -> Iterator[PusherWorld]:
    """Compile the scene and open a renderer of `size` x `size` pixels. Raises MissingExtraError, UsageError (no OpenGL)."""
    mujoco = load_mujoco()
    model = mujoco.MjModel.from_xml_string(SCENE.replace("SIZE", str(size)))
    with open_renderer(model, size, size) as renderer:
        yield PusherWorld(mujoco, model, renderer)


class Driver:
    """Draws velocity commands, each held for 4 to 7 frames.

    Most push the block inwards or go around to where that can be done, the rest go anywhere, and a few stand still. A command
    whose end would leave the reach is drawn again; a rod that is held up by the block turns away after two frames.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.left = self.held_up = 0
        self.velocity = np.zeros(2)
        self.last: np.ndarray | None = None

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """The command (2,) in m/s to give at a state (5,)."""
        pusher, block, speed = state[:2], state[2:4], _length(self.velocity)
        if self.last is not None and speed > 0:
            moved = _length(pusher - self.last) * FPS
            self.held_up = self.held_up + 1 if moved < 0.35 * speed else 0
        if self.left == 0 or self.held_up >= 2:
            self._choose(pusher, block, turn_away=self.held_up >= 2)
        self.left -= 1
        self.last = pusher.copy()
        return self.velocity.copy()

    def _choose(self, pusher: np.ndarray, block: np.ndarray, *, turn_away: bool) -> None:
        self.held_up = 0
        kind = "still" if self.rng.random() < STILL_SHARE else "block" if self.rng.random() < BLOCK_SHARE else "anywhere"
        for attempt in range(20):
            self.left = int(self.rng.integers(4, 8))
            velocity = self._draw(kind if attempt < 10 else "anywhere", pusher, block)
            if in_reach(pusher + velocity * self.left / FPS) and not (turn_away and velocity @ (block - pusher) > 0):
                self.velocity = velocity
                return
        self.velocity = _towards(-pusher, 1.5)

    def _draw(self, kind: str, pusher: np.ndarray, block: np.ndarray) -> np.ndarray:
        angle = self.rng.normal() * 0.2
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        towards_block = _towards(block - pusher, 1.0)
        if kind == "still":
            return np.zeros(2)
        if kind == "block" and (towards_block * block).max() < 0.25:  # would not press it against a rail
            return turn @ towards_block * self.rng.uniform(*SPEED)
        target = self._way_around(pusher, block) if kind == "block" else self.rng.uniform(-REACH, REACH, 2)
        distance = _length(target - pusher)
        return turn @ _towards(target - pusher, min(max(distance * FPS / self.left, SPEED[0]), SPEED[1]))

    def _way_around(self, pusher: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Where to go to get between the block and the rail: straight there if the way is free, else beside the block first."""
        axis = int(self.rng.random() < block[1] ** 2 / (block @ block + 1e-9))
        outer = block.copy()
        outer[axis] = np.clip(block[axis] + math.copysign(CLEARANCE, block[axis]), -REACH, REACH)
        along = _towards(outer - pusher, 1.0)
        passing = (block - pusher) @ along
        if not 0 < passing < _length(outer - pusher) or abs(_cross(along, block - pusher)) > CLEARANCE * 0.75:
            return outer
        side = math.copysign(CLEARANCE, _cross(block - pusher, outer - pusher)) * _towards(_left_of(block - pusher), 1.0)
        return np.clip(block + side, -REACH, REACH)


def in_reach(pusher: np.ndarray) -> bool:
    """Whether a rod at (x, y) is inside the octagon that the camera sees whole."""
    return bool(np.abs(pusher).max() < REACH and np.abs(pusher).sum() < REACH_SUM)


def draw_start(rng: np.random.Generator) -> Start:
    """Rod and block apart from each other, the block inside the rails at any yaw, green or blue."""
    colour = list(BLOCK_COLOURS)[rng.integers(len(BLOCK_COLOURS))]
    while True:
        pusher, block = rng.uniform(-REACH, REACH, 2), rng.uniform(-0.42, 0.42, 2)
        if _length(pusher - block) > CLEARANCE and in_reach(pusher):
            yaw = rng.uniform(-math.pi / 4, math.pi / 4)
            return Start(state=(*map(float, pusher), *map(float, block), float(yaw)), block=colour)


def run_episode(world: PusherWorld, frames: int, seed: tuple[int, int]) -> Episode:
    """Roll out one episode of `frames` frames; the same (data-set seed, index) gives the same states on every machine."""
    rng = np.random.default_rng(seed)
    start = draw_start(rng)
    return rollout(world, start, Driver(rng), frames)


def rollout(world: PusherWorld, start: Start, command: Any, frames: int) -> Episode:
    """Roll out from `start`; `command(state) -> velocity (2,)` is asked once per frame."""
    world.reset(start)
    pictures, actions, states = [], [], []
    for _ in range(frames):
        state = world.state()
        # Rounded to what is stored, so that replaying the stored actions gives the same episode.
        action = np.asarray(command(state), dtype=np.float32)
        pictures.append(world.render())
        actions.append(action)
        states.append(state.astype(np.float32))
        world.step(action)
    return Episode(
        frames=np.stack(pictures),
        actions=np.stack(actions),
        states=np.stack(states),
        caption=caption(np.stack(states), start.block),
        renderer=world.renderer_name,
    )


def caption(states: np.ndarray, block: str) -> str:
    """One sentence from the states (T, 5): who moves, and whether the block was pushed (by 3 cm, or turned by 0.1 rad)."""
    travelled = np.linalg.norm(states[:, 2:4] - states[0, 2:4], axis=1).max()
    turned = np.abs(states[:, 4] - states[0, 4]).max()
    if travelled > 0.03 or turned > 0.1:
        return f"A magenta pusher moves on a checkered table and pushes a {block} block."
    return f"A magenta pusher moves on a checkered table beside a {block} block that stays still."


def _length(vector: np.ndarray) -> float:
    return math.hypot(*vector)


def _left_of(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


def _cross(a: np.ndarray, b: np.ndarray) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _towards(direction: np.ndarray, speed: float) -> np.ndarray:
    return direction / max(_length(direction), 1e-6) * speed


def facts(config: PusherConfig) -> dict[str, Any]:
    """What is the same in every episode."""
    found = {
        "fps": FPS,
        "action_names": list(ACTION_NAMES),
        "state_names": list(STATE_NAMES),
        "mirror_action": list(MIRROR_ACTION),
        "mirror_state": list(MIRROR_STATE),
    }
    return {**found, "format": "LeRobot v3.0"} if config.format == "lerobot" else found


@contextmanager
def open_episodes(config: PusherConfig) -> Iterator[Callable[[int], str]]:
    """`write(index)` renders one episode into `config.out` and returns the renderer's name."""
    with open_pusher_world(config.size) as world:
        if config.format == "lerobot":
            with lerobot_out.open_dataset(config.out, recording_schema(config), config.crf) as writer:
                yield lerobot_out.writing(writer, lambda index: record(world, config, index))
            return

        def write(index: int) -> str:
            episode = run_episode(world, config.frames, (config.seed, index))
            about = {**facts(config), "caption": episode.caption, "seed": [config.seed, index], "scene": config.kind}
            write_episode(
                episode_path(config.out, index),
                episode.frames,
                fps=FPS,
                actions=episode.actions,
                states=episode.states,
                crf=config.crf,
                metadata={**about, "renderer": episode.renderer},
            )
            return episode.renderer

        yield write


def recording_schema(config: PusherConfig) -> lerobot_out.RecordingSchema:
    """Columns and the camera of the LeRobot form; the rod is the robot, the block its environment."""
    return lerobot_out.RecordingSchema(
        fps=FPS,
        robot_type="tabletop_pusher",
        features={
            "observation.state": lerobot_out.vector(STATE_NAMES[:2]),
            "observation.environment_state": lerobot_out.vector(STATE_NAMES[2:]),
            "action": lerobot_out.vector(ACTION_NAMES),
        },
        cameras={"fixed": (config.size, config.size)},
    )


def record(world: PusherWorld, config: PusherConfig, index: int) -> lerobot_out.Recording:
    """One episode for the LeRobot form; its task is the caption, because nobody told the rod anything."""
    episode = run_episode(world, config.frames, (config.seed, index))
    columns = {
        "observation.state": episode.states[:, :2],
        "observation.environment_state": episode.states[:, 2:],
        "action": episode.actions,
    }
    videos = {"fixed": episode.frames}
    return lerobot_out.Recording(columns=columns, videos=videos, task=episode.caption, renderer=episode.renderer)


def is_whole(config: PusherConfig, index: int) -> bool:
    """Whether an episode is already complete on disk."""
    if config.format == "lerobot":
        return lerobot_out.is_whole(config.out, index)
    return episode_path(config.out, index).exists()


def finish(config: PusherConfig) -> None:
    """Pack the LeRobot form; the other is whole as it is written."""
    if config.format == "lerobot":
        lerobot_out.finish(config.out, config.crf)


KIND = Kind(facts=facts, open_episodes=open_episodes, is_whole=is_whole, finish=finish)
