"""What curation costs in one process, in several, and on Ray, over the same 20 generated clips: where the crossover lies.

    python benchmarks/curate_executors.py --out benchmarks/curate_executors.json

Each round runs every executor once, in turn, each in a process of its own (so that starting Ray counts). CPU seconds include
children that have ended; Ray's own processes are no children of ours, so for it the wall time is the figure. The load of the machine is
recorded with each round. The content hashes must be equal, or nothing is written.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import write_video

EXECUTORS = ("process", "pool", "ray")
RUN = """
import json, resource, sys, time
from pathlib import Path
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
start = time.perf_counter()
summary = curate(CurateConfig(input=sys.argv[1], out=Path(sys.argv[2]), executor=sys.argv[3], min_s=1.0, workers=int(sys.argv[4])))
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({
    "wall_s": time.perf_counter() - start,
    "cpu_s": sum(u.ru_utime + u.ru_stime for u in usage),
    "clips": summary.clips,
    "content_hash": summary.content_hash,
}))
"""


def generate(folder: Path, clips: int, frames: int, height: int) -> None:
    """Videos of two shots each: drifting noise of large blobs, another seed per shot."""
    width = height * 16 // 9 // 2 * 2
    for seed in range(clips):
        shots = []
        for part in range(2):
            coarse = np.random.default_rng([seed, part]).integers(
                0, 256, (height // 12 + 1, width // 12 + 1, 3), dtype=np.uint8
            )
            picture = coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width]
            shots += [np.roll(picture, t, axis=1) for t in range(frames // 2)]
        write_video(folder / f"{seed:02d}.mp4", np.stack(shots), 24.0)


def measure(videos: Path, executor: str, workers: int) -> dict:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", RUN, str(videos), str(Path(out) / "clips"), executor, str(workers)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{executor} failed:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--executors", nargs="+", default=EXECUTORS, choices=EXECUTORS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.clips, args.frames, args.height)
        rounds = [{name: measure(Path(folder), name, args.workers) for name in args.executors} for _ in range(args.rounds)]
    hashes = {run["content_hash"] for one in rounds for run in one.values()}
    if len(hashes) > 1:
        raise SystemExit(f"The executors disagree: {sorted(hashes)}")
    rows = []
    for name in args.executors:
        walls, cpus = ([one[name][key] for one in rounds] for key in ("wall_s", "cpu_s"))
        rows.append(
            {
                "executor": name,
                "wall_s_median": round(statistics.median(walls), 2),
                "wall_s_min": round(min(walls), 2),
                "cpu_s_median": round(statistics.median(cpus), 2) if name != "ray" else None,
                "clips": rounds[0][name]["clips"],
            }
        )
    setting = {name: getattr(args, name) for name in ("clips", "frames", "height", "rounds", "workers")}
    loads = [run["load"] for one in rounds for run in one.values()]
    about = {"cores": len(os.sched_getaffinity(0)), "load": [min(loads), max(loads)], "content_hash": hashes.pop()}
    write_json(args.out, {"setting": setting, **about, "rows": rows})
    print("\n".join(f"{row['executor']:<8} {row['wall_s_median']:>8} s wall, {row['cpu_s_median']} s CPU" for row in rows))


if __name__ == "__main__":
    main()
