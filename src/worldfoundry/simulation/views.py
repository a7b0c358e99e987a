"""Cameras: where they look, their exact calibration, and the pictures, depths and ids that they see.

Conventions: MuJoCo's camera frame is x right, y up, z backwards. All that is stored uses OpenCV's: x right, y down, z forwards;
pixel centres lie at +0.5, so the principal point is (W / 2, H / 2). Metres, degrees for fields of view.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from worldfoundry.simulation.render import load_mujoco, open_renderer, renderer_name

SHADOWLESS = 1  # geoms of this group throw no shadow
FLIP = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera axes to OpenCV's, and back


def look_at(position: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Rotation (3, 3) of an upright camera in MuJoCo's axes: columns are right, up and backwards in the world."""
    forward = np.asarray(target, float) - np.asarray(position, float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(right, forward), -forward], axis=1)


def xyaxes(rotation: np.ndarray) -> str:
    """A rotation as the MJCF attribute of a camera."""
    return " ".join(f"{value:.9f}" for value in (*rotation[:, 0], *rotation[:, 1]))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """wxyz of a rotation matrix."""
    quat = np.empty(4)
    load_mujoco().mju_mat2Quat(quat, np.ascontiguousarray(rotation).ravel())
    return quat


def intrinsics(fovy_deg: float, height: int, width: int) -> np.ndarray:
    """Pinhole matrix (3, 3) in pixels, square pixels."""
    focal = height / 2 / math.tan(math.radians(fovy_deg) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def fovy_of(fovx_deg: float, height: int, width: int) -> float:
    """The vertical field of view that belongs to a horizontal one."""
    return math.degrees(2 * math.atan(math.tan(math.radians(fovx_deg) / 2) * height / width))


def pose(rotation: np.ndarray, position: Sequence[float]) -> np.ndarray:
    """Rotation (3, 3) and position (3,) as one matrix (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return matrix


class Views:
    """Pictures of one compiled scene. Made by `open_views`; `data` is the state that is drawn."""

    def __init__(self, mujoco: Any, model: Any, renderer: Any) -> None:
        self.mujoco, self.model, self.renderer = mujoco, model, renderer
        self.data = mujoco.MjData(model)
        self.renderer_name = renderer_name()
        self.far_m = float(model.vis.map.zfar * model.stat.extent)
        mujoco.mj_forward(model, self.data)
        renderer.update_scene(self.data)
        drawn = renderer.scene.geoms[: renderer.scene.ngeom]
        self.shadowless = [i for i, geom in enumerate(drawn) if model.geom_group[geom.objid] == SHADOWLESS]

    def look(self, camera: str) -> None:
        """Choose the camera for what is asked next, and take the state as it is now."""
        self.renderer.update_scene(self.data, camera=camera)
        # MuJoCo leaves decoration out of its shadow map. Large flat things belong there: where they cross the border of the
        # map they would shade themselves, in a band of black dots.
        for i in self.shadowless:
            self.renderer.scene.geoms[i].category = self.mujoco.mjtCatBit.mjCAT_DECOR

    def rgb(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return self.renderer.render().copy()

    def depth_m(self) -> np.ndarray:
        """float16 (H, W): metres along the camera's axis; infinite where there is only sky."""
        self.renderer.enable_depth_rendering()
        depth = self.renderer.render().copy()
        self.renderer.disable_depth_rendering()
        depth[depth >= self.far_m * 0.99] = np.inf
        return depth.astype(np.float16)

    def body_ids(self) -> np.ndarray:
        """int32 (H, W): the id of the body at each pixel; 0 is the world itself (floor, walls, sky)."""
        self.renderer.enable_segmentation_rendering()
        geoms = self.renderer.render()[..., 0].copy()
        self.renderer.disable_segmentation_rendering()
        return np.where(geoms >= 0, self.model.geom_bodyid[geoms], 0)

    def object_ids(self, names: Sequence[str]) -> Callable[[], np.ndarray]:
        """A function for masks, uint16 (H, W): n at the pixels of the n-th of these bodies, counted from 1; 0 elsewhere."""
        table = np.zeros(self.model.nbody, np.uint16)
        table[[self.model.body(name).id for name in names]] = np.arange(1, len(names) + 1)
        return lambda: table[self.body_ids()]

    def intrinsics(self, camera: str) -> np.ndarray:
        """Pinhole matrix (3, 3) in pixels."""
        fovy_deg = float(self.model.camera(camera).fovy[0])
        return intrinsics(fovy_deg, self.renderer.height, self.renderer.width)

    def camera_to_world(self, camera: str) -> np.ndarray:
        """Pose (4, 4) of a camera in OpenCV's axes, at the state now."""
        view = self.data.camera(camera)
        return pose(view.xmat.reshape(3, 3) @ FLIP, view.xpos)


@contextmanager
def open_views(model: Any, height: int, width: int) -> Iterator[Views]:
    """Views of a scene with shadows, closed on leaving."""
    with open_renderer(model, height, width, shadows=True) as renderer:
        yield Views(load_mujoco(), model, renderer)
