"""MuJoCo without a screen: import it with a headless OpenGL platform chosen, open and close its renderer.

MuJoCo reads `MUJOCO_GL` once, while it is imported, so the choice has to be made before. EGL with Mesa's llvmpipe runs on
any CPU; on an NVIDIA machine the same platform uses the GPU; where there is OSMesa but no EGL, OSMesa draws (the same picture, a
little slower). A user's own `MUJOCO_GL` (egl, osmesa, glfw) is respected.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from typing import Any

from worldfoundry.core.errors import MissingExtraError, UsageError

PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri libgles2", "osmesa": "libosmesa6"}


def load_mujoco() -> Any:
    """The `mujoco` module. Raises MissingExtraError without the package, UsageError without a headless OpenGL library."""
    if importlib.util.find_spec("mujoco") is None:
        raise MissingExtraError("mujoco", "sim")
    os.environ.setdefault("MUJOCO_GL", platform())
    try:
        import mujoco
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        # PyOpenGL signals a missing libEGL with an AttributeError on None, and the loader with an OSError.
        raise no_opengl(error) from error
    return mujoco


def platform() -> str:
    """The headless platform of this machine: `egl`, or `osmesa` where only that is installed."""
    return "osmesa" if find_library("EGL") is None and find_library("OSMesa") is not None else "egl"


@contextmanager
def open_renderer(model: Any, height: int, width: int, *, shadows: bool = False) -> Iterator[Any]:
    """A renderer without reflections, closed on leaving. One per process at a time; never fork while it is open."""
    mujoco = load_mujoco()
    try:
        renderer = mujoco.Renderer(model, height, width)
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        raise no_opengl(error) from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = int(shadows)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    try:
        yield renderer
    finally:
        renderer.close()


def renderer_name() -> str:
    """What OpenGL draws with, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`. Pixels are equal only on the same renderer."""
    from OpenGL import GL

    return (GL.glGetString(GL.GL_RENDERER) or b"unknown").decode()


def no_opengl(error: Exception) -> UsageError:
    name = os.environ.get("MUJOCO_GL", "")
    return UsageError(
        f"MuJoCo cannot render here: the OpenGL platform MUJOCO_GL={name!r} does not open ({type(error).__name__}).",
        f"On Debian or Ubuntu install it with: apt-get install -y {PACKAGES[name]}"
        if name in PACKAGES
        else "Unset MUJOCO_GL, or set it to egl or osmesa.",
    )
