"""What a simulated frame costs, all files included: CPU seconds of every kind, and the frames a minute that two cores give.

    python benchmarks/simulate_speed.py --out benchmarks/simulate_speed.json

CPU time (of all threads of this process) hardly depends on what else the machine does; wall time does, so the load is recorded.
Textures and meshes, made once per process, are counted apart (`start_cpu_s`); scenes, physics, drawing, encoding and files are in the rate.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from worldfoundry.core.files import write_json
from worldfoundry.simulation.config import CameraConfig, DrivingConfig, PhysicsConfig, PusherConfig
from worldfoundry.simulation.executors import kind_of
from worldfoundry.simulation.manipulation_config import ManipulationConfig

NEEDED = {"driving": 800}  # frames a minute on two cores, of 128x128; the others:
NEEDED_ELSE = 3000
KINDS = {
    "pusher": (PusherConfig, {"frames": 60}, 2),
    "physics": (PhysicsConfig, {"frames": 30}, 8),
    "camera": (CameraConfig, {"frames": 60}, 4),
    "driving": (DrivingConfig, {"frames": 20}, 2),
    "manipulation": (ManipulationConfig, {"task": ("pick-place", "push")}, 2),
    "manipulation, no shadows": (ManipulationConfig, {"task": ("pick-place", "push"), "shadows": False}, 2),
    "manipulation, metaworld": (ManipulationConfig, {"task": ("metaworld:drawer-open", "metaworld:push")}, 2),
}


def measure(name: str, size: int) -> dict:
    """CPU milliseconds per frame of one kind with its default ground truth."""
    cls, options, episodes = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        config = cls.from_dict({"out": Path(folder), "episodes": episodes, "size": size, "seed": 11, **options})
        kind = kind_of(config)
        start = time.process_time()
        with kind.open_episodes(config) as write:
            ready = time.process_time()
            for index in range(episodes):
                renderer = write(index)
            kind.finish(config)
        cpu, frames = time.process_time() - ready, kind.count_frames(config)
        size_mb = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
    rate = 2 * 60 * frames / cpu
    return {
        "kind": name,
        "size": size,
        "episodes": episodes,
        "frames": frames,
        "cpu_ms_per_frame": round(1000 * cpu / frames, 2),
        "frames_per_minute_on_two_cores": round(rate),
        "needed": NEEDED.get(name, NEEDED_ELSE),
        "start_cpu_s": round(ready - start, 2),
        "kB_per_frame": round(1000 * size_mb / frames, 1),
        "renderer": renderer,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("simulate_speed.json"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    os.environ["LP_NUM_THREADS"] = "1"  # as in a worker
    before, rows = os.getloadavg()[0], []
    for name in options.kinds:
        rows.append(measure(name, options.size))
        print(
            {key: rows[-1][key] for key in ("kind", "cpu_ms_per_frame", "frames_per_minute_on_two_cores", "kB_per_frame")},
            flush=True,
        )
    about = {"what": "CPU time per frame, all files included", "cores": os.cpu_count(), "load": [before, os.getloadavg()[0]]}
    write_json(options.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
