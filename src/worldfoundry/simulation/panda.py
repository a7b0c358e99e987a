"""The Franka Panda arm with its Robotiq gripper: meshes made light, joints that hold a position, inverse kinematics.

The published meshes have 190 000 triangles, most of them inside the casing or smaller than a pixel; a picture costs what they
cost, and a shadow costs it again. Vertices that fall into one small cell become one vertex, which leaves an eighth of them.

Legend: R rotation matrices (3, 3) that take a body's coordinates to the world's; J Jacobian (6, 7). Metres, radians.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.simulation.render import load_mujoco

HOME = np.array([0.0, -0.4, 0.0, -2.3, 0.0, 1.9, 0.785])  # the gripper points straight down
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
# Stiffness and damping of the joint servos, about those of the arm's own position controller.
STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
DAMPING = (450.0, 450.0, 350.0, 350.0, 200.0, 200.0, 200.0)
GRIPPER_CLOSED = 255.0  # of the gripper's control; 0 is open
DRIVER_CLOSED = 0.8  # of the gripper's driver joint, radians
LINK_CELL, GRIPPER_CELL = 0.010, 0.004

Mesh = tuple[np.ndarray, np.ndarray]  # vertices (V, 3) in metres, triangles (F, 3)


@dataclass(frozen=True, kw_only=True)
class PandaMeshes:
    """The scene description and the light meshes by name; made once per process by `load_meshes`."""

    xml: Path
    light: dict[str, Mesh]


def load_meshes(folder: Path) -> PandaMeshes:
    """Read the fetched files and make the meshes light (about two CPU seconds)."""
    mujoco = load_mujoco()
    xml = folder / "panda.xml"
    model = mujoco.MjModel.from_xml_path(str(xml))
    light = {}
    for i in range(model.nmesh):
        name = model.mesh(i).name
        vertices = model.mesh_vert[model.mesh_vertadr[i] :][: model.mesh_vertnum[i]].astype(np.float64)
        faces = model.mesh_face[model.mesh_faceadr[i] :][: model.mesh_facenum[i]]
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.mesh_quat[i])  # the compiler centres meshes and aligns their axes: undo that
        vertices = vertices @ turn.reshape(3, 3).T + model.mesh_pos[i]
        light[name] = cluster_vertices(vertices, faces, LINK_CELL if name.startswith("link") else GRIPPER_CELL)
    return PandaMeshes(xml=xml, light=light)


def cluster_vertices(vertices: np.ndarray, faces: np.ndarray, cell: float) -> Mesh:
    """One vertex, the mean, per occupied cube of side `cell`; triangles that lose a corner or repeat another go.

    A mesh that would be left with fewer than a dozen triangles stays as it is.
    """
    cubes, of_vertex = np.unique(np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    of_vertex = of_vertex.ravel()
    count = np.bincount(of_vertex, minlength=len(cubes))
    mean = np.stack([np.bincount(of_vertex, vertices[:, k], len(cubes)) / count for k in range(3)], axis=1)
    merged = of_vertex[faces]
    whole = (merged[:, 0] != merged[:, 1]) & (merged[:, 1] != merged[:, 2]) & (merged[:, 2] != merged[:, 0])
    merged = merged[whole]
    _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
    merged = merged[np.sort(first)]
    return (mean, merged) if len(merged) >= 12 else (vertices, faces)


def panda_spec(meshes: PandaMeshes) -> Any:
    """An MjSpec that holds the arm at the origin, to which a scene can be added."""
    mujoco = load_mujoco()
    spec = mujoco.MjSpec.from_file(str(meshes.xml))
    for mesh in spec.meshes:
        vertices, faces = meshes.light[mesh.name or Path(mesh.file).stem]
        mesh.name = mesh.name or Path(mesh.file).stem
        mesh.file = ""
        mesh.scale = [1.0, 1.0, 1.0]
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # light meshes are not watertight
        mesh.uservert = vertices.ravel().astype(np.float32)
        mesh.userface = faces.ravel().astype(np.int32)
    for body in spec.bodies:
        body.gravcomp = 1.0  # as the real arm's controller does
    for i, (stiffness, damping) in enumerate(zip(STIFFNESS, DAMPING, strict=True)):
        servo = spec.actuators[i]
        servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        servo.gainprm[0] = stiffness
        servo.biasprm[:3] = [0.0, -stiffness, -damping]
        force = 87.0 if i < 4 else 12.0
        servo.forcelimited, servo.forcerange = True, [-force, force]
        servo.ctrlrange = [-7.0, 7.0]
    return spec


class PandaArm:
    """The arm inside a compiled model: where its fingertips are, and how to bring them somewhere."""

    def __init__(self, model: Any, data: Any) -> None:
        self.mujoco, self.model, self.data = load_mujoco(), model, data
        joints = [model.joint(name).id for name in JOINTS]
        self.qpos, self.dofs = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self.limits = model.jnt_range[joints]
        self.site = model.site("pinch").id
        self.drivers = [model.jnt_qposadr[model.joint(f"{side}_driver_joint").id] for side in ("left", "right")]
        self.gripper = model.actuator("fingers_actuator").id
        self.imagined = self.mujoco.MjData(model)  # where inverse kinematics tries joint angles
        self.wanted = HOME.copy()

    def place(self, joints: np.ndarray) -> None:
        """Put the arm at joint angles (7,), at rest, the gripper open."""
        self.data.qpos[self.qpos] = self.wanted = joints.copy()
        self.data.ctrl[:7] = joints
        self.data.ctrl[self.gripper] = 0.0

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and R of the point between the fingertips, now."""
        return self.data.site_xpos[self.site].copy(), self.data.site_xmat[self.site].reshape(3, 3).copy()

    def joints(self) -> np.ndarray:
        """Joint angles (7,), now."""
        return self.data.qpos[self.qpos].copy()

    def closedness(self) -> float:
        """0 when the gripper is open, 1 when its fingertips touch."""
        return float(np.mean(self.data.qpos[self.drivers]) / DRIVER_CLOSED)

    def go(self, position: np.ndarray, R: np.ndarray, closed: float) -> None:
        """Set the servos to bring the fingertips to a pose, and the gripper's to `closed` (0 … 1). Does not step time."""
        self.wanted = self.solve(position, R, self.wanted)
        self.data.ctrl[:7] = self.wanted
        self.data.ctrl[self.gripper] = GRIPPER_CLOSED * closed

    def solve(self, position: np.ndarray, R: np.ndarray, start: np.ndarray, steps: int = 8) -> np.ndarray:
        """Joint angles (7,) whose pose is the wanted one, near `start`: damped least squares, with what freedom is left
        used to stay near HOME (Buss 2004, "Introduction to inverse kinematics", sections 6 and 10)."""
        joints = start.copy()
        jacobian_position, jacobian_rotation = np.zeros((3, self.model.nv)), np.zeros((3, self.model.nv))
        for _ in range(steps):
            self.imagined.qpos[self.qpos] = joints
            self.mujoco.mj_kinematics(self.model, self.imagined)
            self.mujoco.mj_comPos(self.model, self.imagined)
            self.mujoco.mj_jacSite(self.model, self.imagined, jacobian_position, jacobian_rotation, self.site)
            now = self.imagined.site_xmat[self.site].reshape(3, 3)
            error = np.concatenate([position - self.imagined.site_xpos[self.site], rotation_vector(R @ now.T)])
            if np.abs(error).max() < 1e-4:
                break
            J = np.concatenate([jacobian_position[:, self.dofs], jacobian_rotation[:, self.dofs]])
            inverse = J.T @ np.linalg.inv(J @ J.T + 1e-4 * np.eye(6))
            rest = np.eye(7) - inverse @ J
            joints = np.clip(joints + inverse @ error + rest @ (0.05 * (HOME - joints)), *self.limits.T)
        return joints


def rotation_vector(R: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) of a rotation by less than half a turn."""
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    sine, cosine = float(np.linalg.norm(axis)), (float(np.trace(R)) - 1) / 2
    return axis if sine < 1e-9 else axis / sine * np.arctan2(sine, cosine)


def from_rpy(rpy: np.ndarray) -> np.ndarray:
    """R of roll, pitch, yaw (3,): turns about the world's x, then y, then z axis."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def to_rpy(R: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (3,) of R; the inverse of `from_rpy` for a pitch of less than a quarter turn."""
    return np.array([np.arctan2(R[2, 1], R[2, 2]), -np.arcsin(np.clip(R[2, 0], -1, 1)), np.arctan2(R[1, 0], R[0, 0])])
