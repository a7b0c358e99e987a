"""One pusher world for all tests of this room; they are skipped, with the reason, where MuJoCo cannot render."""

import pytest

from worldfoundry.core.errors import UsageError
from worldfoundry.simulation.pusher import open_pusher_world
from worldfoundry.simulation.render import load_mujoco


@pytest.fixture(scope="session")
def opengl():
    """Skips unless the [sim] extra and a headless OpenGL are here."""
    try:
        load_mujoco()
        with open_pusher_world(16):
            pass
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def world(opengl):
    with open_pusher_world(64) as world:
        yield world
