"""What the default metric set costs: seconds by metric for clips of 33 frames at 128x128, decoding included.

    python benchmarks/evaluation_cost.py [--clips 100]

Needs the packaged weights in the cache. Writes benchmarks/evaluation_cost.json. The clips are the sample footage, enlarged.
"""

import argparse
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import read_video, write_video
from worldfoundry.data import sample
from worldfoundry.data.resize import fit
from worldfoundry.evaluation.catalogue import choose_metrics
from worldfoundry.evaluation.compare import CONTROLS, applicable_metrics, evaluate_predictions
from worldfoundry.evaluation.folders import read_clips

ROOT = Path(__file__).parents[1]
FRAMES, PREFIX, SIZE, LIMIT_S = 33, 5, 128, 120


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    count = parser.parse_args().clips
    paths = sorted((Path(sample.__file__).parent / "sample_footage").glob("episode_*.mp4"))[:count]
    truth = np.stack([fit(read_video(path, max_frames=FRAMES).frames, SIZE, SIZE) for path in paths])
    noise = np.random.default_rng(0).normal(0, 8, truth.shape).astype(np.float32)
    made = {"generated": np.clip(np.round(truth + noise), 0, 255).astype(np.uint8)}
    choice = choose_metrics(None, applicable=applicable_metrics(truth), clips=len(truth))
    seconds, load = {}, [load_average()]
    with tempfile.TemporaryDirectory() as folder:
        for name, clips in (("true", truth), ("made", made["generated"])):
            for i, clip in enumerate(clips):
                write_video(Path(folder) / name / f"{i:03}.mp4", clip, 12)
        with timed(seconds, "decode"):
            read_clips({"generated": Path(folder) / "made"}, Path(folder) / "true", PREFIX)
    with timed(seconds, "controls"):
        made |= {name: control(truth, PREFIX) for name, control in CONTROLS.items()}
    for metric in choice.metrics:
        with timed(seconds, metric.name):
            evaluate_predictions(truth, made, PREFIX, metrics=[metric])
        print(f"{metric.name:28}{seconds[metric.name][0]:8.1f} s, {seconds[metric.name][1]:.1f} s of processor", flush=True)
    load.append(load_average())
    wall, cpu = (sum(one[i] for one in seconds.values()) for i in (0, 1))
    result = {
        "what": "two folders of clips, one generated set and three controls; seconds by part; networks are loaded before",
        "clips": len(truth),
        "frames": FRAMES,
        "size": SIZE,
        "machine": {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "load_average_before_and_after": load,
        "wall_s": {name: round(one[0], 2) for name, one in seconds.items()},
        "cpu_s": {name: round(one[1], 2) for name, one in seconds.items()},
        "total_wall_s": round(wall, 1),
        "total_cpu_s": round(cpu, 1),
        "wall_s_without_networks": round(sum(one[0] for name, one in seconds.items() if "[" not in name), 1),
        "per_100_clips_wall_s": round(wall * 100 / len(truth), 1),
        "limit_wall_s_per_100_clips": LIMIT_S,
        "left_out": list(choice.left_out),
    }
    write_json(ROOT / "benchmarks" / "evaluation_cost.json", result)
    print(f"{'total':28}{wall:8.1f} s, {cpu:.1f} s of processor, for {len(truth)} clips")


@contextmanager
def timed(seconds, name):
    """Wall and processor seconds of a block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    seconds[name] = (time.perf_counter() - wall, time.process_time() - cpu)


def load_average():
    return [round(value, 2) for value in os.getloadavg()]


def processor():
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(found)} x {found[0].partition(': ')[2]}"


if __name__ == "__main__":
    main()
