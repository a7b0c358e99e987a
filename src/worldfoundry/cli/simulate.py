"""`worldfoundry simulate KIND`: render episodes with exact ground truth."""

import sys

from worldfoundry.simulation.config import CameraConfig, DrivingConfig, PhysicsConfig, PusherConfig, SimulateConfig


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
    "physics": (PhysicsConfig, run, "things that fall, roll, topple and spin: four cameras, masks, depth, states, outcome"),
}
