"""One manipulation episode as it runs: actions move the arm's commanded pose, physics does the rest.

An action (7,) is Δx, Δy, Δz (metres), Δroll, Δpitch, Δyaw (radians) of the commanded pose of the fingertips, in the world's
axes, and the gripper's command (0 open … 1 closed). It acts between one frame and the next.
"""

from typing import Any

import numpy as np

from worldfoundry.simulation.manipulation_scene import MAT_HALF, PLATE_RADIUS, Layout
from worldfoundry.simulation.panda import HOME, PandaArm, from_rpy, rotation_vector, to_rpy
from worldfoundry.simulation.render import load_mujoco

FPS = 10
STEPS, TICKS = 10, 5  # per frame: five times the servos are set, and each time ten steps of 2 ms follow
ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "delta_roll", "delta_pitch", "delta_yaw", "gripper")
STATE_NAMES = (
    *(f"joint_{i}" for i in range(1, 8)),
    *("gripper", "hand_x", "hand_y", "hand_z", "hand_roll", "hand_pitch", "hand_yaw"),
)
THING_NAMES = tuple(f"thing{i}_{part}" for i in range(3) for part in ("x", "y", "z", "qw", "qx", "qy", "qz"))
ENVIRONMENT_NAMES = (*THING_NAMES, "goal_x", "goal_y", "goal_z")
LOW, HIGH = np.array([0.22, -0.45, 0.012]), np.array([0.78, 0.45, 0.60])  # where the commanded pose may go
STILL = 0.02  # m/s


class ManipulationWorld:
    """A compiled scene in motion. Made for one episode; `look` draws what the caller wants to see."""

    def __init__(self, model: Any, layout: Layout, start: np.ndarray, tilt: np.ndarray) -> None:
        """`start`: where the fingertips begin (3,); `tilt`: their roll, pitch and yaw away from straight down (3,)."""
        self.mujoco, self.model, self.layout = load_mujoco(), model, layout
        self.data = self.mujoco.MjData(model)
        self.arm = PandaArm(model, self.data)
        self.arm.place(HOME)
        self.mujoco.mj_forward(model, self.data)
        self.down = self.arm.pose()[1]
        self.position, self.R, self.closed = start.copy(), from_rpy(tilt) @ self.down, 0.0
        self.arm.place(self.arm.solve(self.position, self.R, HOME, steps=100))
        things = range(len(layout.things))
        self.qpos = [model.jnt_qposadr[model.joint(f"thing{i}").id] for i in things]
        self.dofs = [model.jnt_dofadr[model.joint(f"thing{i}").id] for i in things]
        self.bodies = [model.body(f"thing{i}").id for i in things]
        self.pads = {model.geom(f"{side}_pad{k}").id for side in ("left", "right") for k in (1, 2)}
        self.mujoco.mj_step(model, self.data, 50)  # things fall the last millimetre

    def step(self, action: np.ndarray) -> None:
        """Advance by one frame (1/10 s) under an action (7,)."""
        start, turn = self.position, np.asarray(rotation_vector(from_rpy(action[3:6].astype(np.float64))))
        end = np.clip(start + action[:3], LOW, HIGH)
        for tick in range(1, TICKS + 1):
            share = tick / TICKS
            self.arm.go(start + share * (end - start), about(share * turn) @ self.R, float(action[6]))
            self.mujoco.mj_step(self.model, self.data, STEPS)
        self.position, self.R, self.closed = end, about(turn) @ self.R, float(action[6])

    def thing(self, i: int = 0) -> tuple[np.ndarray, float]:
        """Centre (3,) and yaw of a thing, now."""
        at = self.qpos[i]
        w, x, y, z = self.data.qpos[at + 3 : at + 7]
        return self.data.qpos[at : at + 3].copy(), float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

    def state(self) -> np.ndarray:
        """What the robot senses, float32 (14,), as in STATE_NAMES. The hand's angles are zero when it points straight down."""
        position, R = self.arm.pose()
        angles = to_rpy(R @ self.down.T)
        return np.concatenate([self.arm.joints(), [self.arm.closedness()], position, angles]).astype(np.float32)

    def environment(self) -> np.ndarray:
        """Where everything is, float32 (24,), as in ENVIRONMENT_NAMES."""
        poses = [self.data.qpos[at : at + 7] for at in self.qpos]
        return np.concatenate([*poses, self.layout.goal_at, [self.layout.goal_height]]).astype(np.float32)

    def success(self) -> bool:
        """Whether the first thing lies at its goal, at rest, not touched by the fingers."""
        (x, y, z), layout = self.thing()[0], self.layout
        away = float(np.hypot(x - layout.goal_at[0], y - layout.goal_at[1]))
        if layout.task == "stack":
            goal, _ = self.thing(1)
            away = float(np.hypot(*(np.array([x, y]) - goal[:2])))
        allowed = {"pick-place": PLATE_RADIUS - 0.01, "push": MAT_HALF / 2, "stack": layout.things[1].half_width}[layout.task]
        lies = abs(z - layout.goal_height - layout.things[0].half_height) < 0.008
        speed = float(np.linalg.norm(self.data.qvel[self.dofs[0] : self.dofs[0] + 3]))
        return away < allowed and lies and speed < STILL and not self.touched()

    def touched(self) -> bool:
        """Whether a fingertip touches the first thing."""
        geom_body = self.model.geom_bodyid
        for contact in self.data.contact[: self.data.ncon]:
            first, second = int(contact.geom1), int(contact.geom2)
            pad = first if first in self.pads else second if second in self.pads else -1
            if pad >= 0 and geom_body[first + second - pad] == self.bodies[0]:
                return True
        return False


def about(vector: np.ndarray) -> np.ndarray:
    """R of a turn about an axis by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K
