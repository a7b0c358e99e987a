"""What the default metric set costs: processor seconds by metric for clips of 33 frames at 128x128, decoding included.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_cost.py [--clips 8]

Every part grows with the number of clips, so 8 say what 100 cost. Processor seconds of all threads, user and system, are counted:
they hold on a busy machine, where wall time says what else ran. The clips are the sample footage, enlarged. Needs the packaged
weights in the cache. Writes benchmarks/evaluation_cost.json.
"""

import argparse
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import read_video, write_video
from worldfoundry.data import sample
from worldfoundry.data.resize import fit
from worldfoundry.evaluation.catalogue import choose_metrics
from worldfoundry.evaluation.compare import CONTROLS, applicable_metrics, evaluate_predictions
from worldfoundry.evaluation.folders import read_clips

ROOT = Path(__file__).parents[1]
FRAMES, PREFIX, SIZE, LIMIT_CPU_S = 33, 5, 128, 240
COUNTED = 2  # clips whose operations are counted


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8)
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
        print(f"{metric.name:28}{seconds[metric.name]:8.1f} s of processor", flush=True)
    few = {name: clips[:COUNTED] for name, clips in made.items()}
    gflop = {metric.name: gigaflop(truth[:COUNTED], few, metric) for metric in choice.metrics if "[" in metric.name}
    load.append(load_average())
    cpu, scale = sum(seconds.values()), 100 / len(truth)
    result = {
        "what": "two folders of clips, one generated set and three controls; networks are loaded before",
        "method": "os.times(): user and system seconds of all threads, one run; per 100 clips = in proportion",
        "clips": len(truth),
        "frames": FRAMES,
        "size": SIZE,
        "machine": {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "load_average_before_and_after": load,
        "cpu_s": {name: round(one, 2) for name, one in seconds.items()},
        "gflop_per_clip": {name: round(one, 1) for name, one in gflop.items()},
        "gflop_per_cpu_s": {name: round(one * len(truth) / seconds[name]) for name, one in gflop.items()},
        "per_100_clips_cpu_s": {name: round(one * scale, 1) for name, one in seconds.items()},
        "per_100_clips_total_cpu_s": round(cpu * scale, 1),
        "per_100_clips_without_networks_cpu_s": round(scale * sum(one for name, one in seconds.items() if "[" not in name), 1),
        "limit_cpu_s_per_100_clips": LIMIT_CPU_S,
        "left_out": list(choice.left_out),
    }
    write_json(ROOT / "benchmarks" / "evaluation_cost.json", result)
    print(f"{'total':28}{cpu:8.1f} s of processor for {len(truth)} clips, {cpu * scale:.0f} s for 100")


@contextmanager
def timed(seconds, name):
    """Processor seconds of a block, all threads."""
    before = os.times()
    yield
    after = os.times()
    seconds[name] = after.user + after.system - before.user - before.system


def gigaflop(truth, made, metric):
    """Floating-point operations of a metric's network per clip, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter:
        evaluate_predictions(truth, made, PREFIX, metrics=[metric])
    return counter.get_total_flops() / 1e9 / len(truth)


def load_average():
    return [round(value, 2) for value in os.getloadavg()]


def processor():
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(found)} x {found[0].partition(': ')[2]}"


if __name__ == "__main__":
    main()
