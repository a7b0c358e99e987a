"""`worldfoundry simulate KIND`: render episodes with exact ground truth."""

import sys

from worldfoundry.simulation.config import PusherConfig, SimulateConfig


def run(config: SimulateConfig) -> int:
    """Render, then say on stdout what is where."""
    from worldfoundry.simulation.simulate import simulate

    done = simulate(config)
    sys.stdout.write(
        f"{done.out}: {config.episodes} episodes, {done.frames} frames of {config.size}x{config.size}, "
        f"{done.bytes / 1e6:.1f} MB ({done.rendered} rendered now, {done.kept} kept), drawn by {', '.join(done.renderers)}\n"
    )
    return 0


SUBCOMMANDS = {"pusher": (PusherConfig, run, "a pusher steered by velocity commands, and a block on a table")}
