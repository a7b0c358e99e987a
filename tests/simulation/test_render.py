"""Rendering without a screen: what is missing is said in one line."""

import importlib.util
import subprocess
import sys

import pytest

from worldfoundry.core.errors import MissingExtraError
from worldfoundry.simulation import render
from worldfoundry.simulation.render import load_mujoco


def test_without_the_package_the_pip_line_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"worldfoundry\[sim\]"):
        load_mujoco()


@pytest.mark.sim
@pytest.mark.parametrize(
    ("environment", "advice"),
    [
        ({"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"}, "apt-get install -y libegl1"),
        ({"MUJOCO_GL": "nonsense"}, "Unset MUJOCO_GL"),
        ({"MUJOCO_GL": "disable"}, "Unset MUJOCO_GL"),
    ],
    ids=["no-egl", "nonsense", "disable"],
)
def test_without_opengl_it_is_said_what_to_do(opengl, environment, advice):
    code = (
        "from worldfoundry.core.errors import UsageError\n"
        "from worldfoundry.simulation.pusher import open_pusher_world\n"
        "try:\n"
        "    open_pusher_world(16).__enter__()\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "MuJoCo cannot render here" in done.stdout, done.stderr
    assert advice in done.stdout


@pytest.mark.parametrize(
    ("installed", "chosen"), [(("EGL", "OSMesa"), "egl"), (("OSMesa",), "osmesa"), (("EGL",), "egl"), ((), "egl")]
)
def test_osmesa_draws_where_it_is_all_there_is(monkeypatch, installed, chosen):
    monkeypatch.setattr(render, "find_library", lambda name: f"lib{name}.so" if name in installed else None)
    assert render.platform() == chosen


@pytest.mark.sim
def test_the_renderer_has_a_name(world):
    assert world.renderer_name
    assert world.renderer_name != "unknown"
