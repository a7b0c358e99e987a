"""`worldfoundry simulate KIND`: render episodes with exact ground truth."""

import sys

from worldfoundry.simulation.config import CameraConfig, DrivingConfig, PhysicsConfig, PusherConfig, SimulateConfig
from worldfoundry.simulation.manipulation_config import ManipulationConfig


def run(config: SimulateConfig) -> int:
    """Render, then say on stdout what is where."""
    from worldfoundry.simulation.simulate import simulate

    done = simulate(config)
    width = getattr(config, "width", None) or config.size
    sys.stdout.write(
        f"{done.out}: {config.episodes} episodes, {done.frames} frames of {width}x{config.size}, "
        f"{done.bytes / 1e6:.1f} MB ({done.rendered} rendered now, {done.kept} kept), drawn by {', '.join(done.renderers)}\n"
    )
    return 0


SUBCOMMANDS = {
    "pusher": (PusherConfig, run, "a pusher steered by velocity commands, and a block on a table"),
    "camera": (CameraConfig, run, "flights through rooms and gardens: exact poses, intrinsics, depth"),
    "driving": (DrivingConfig, run, "a drive through a town: six calibrated cameras, trajectory, other cars"),
    "physics": (PhysicsConfig, run, "things that fall, roll, topple and spin: four cameras, masks, depth, states, outcome"),
    "manipulation": (ManipulationConfig, run, "a robot arm that does what it is told, as a LeRobot dataset"),
}
