"""What the default metric set costs: processor seconds by metric for clips of 33 frames at 128x128.

    python benchmarks/evaluation_cost.py [--clips 100]

Needs the packaged weights in the cache. Writes benchmarks/evaluation_cost.json. The clips are the sample footage, enlarged.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import read_video
from worldfoundry.data import sample
from worldfoundry.data.resize import fit
from worldfoundry.evaluation.catalogue import choose_metrics
from worldfoundry.evaluation.compare import CONTROLS, applicable_metrics, evaluate_predictions

ROOT = Path(__file__).parents[1]
FRAMES, PREFIX, SIZE, LIMIT_S = 33, 5, 128, 240


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    count = parser.parse_args().clips
    paths = sorted((Path(sample.__file__).parent / "sample_footage").glob("episode_*.mp4"))[:count]
    truth = np.stack([fit(read_video(path, max_frames=FRAMES).frames, SIZE, SIZE) for path in paths])
    noise = np.random.default_rng(0).normal(0, 8, truth.shape).astype(np.float32)
    made = {"generated": np.clip(np.round(truth + noise), 0, 255).astype(np.uint8)}
    choice = choose_metrics(None, applicable=applicable_metrics(truth), clips=len(truth))
    started = time.process_time()
    made |= {name: control(truth, PREFIX) for name, control in CONTROLS.items()}
    cpu_s = {"controls": time.process_time() - started}
    for metric in choice.metrics:
        started = time.process_time()
        evaluate_predictions(truth, made, PREFIX, metrics=[metric])
        cpu_s[metric.name] = time.process_time() - started
    total = sum(cpu_s.values())
    result = {
        "what": "processor seconds, one generated set and all controls; networks are loaded before",
        "clips": len(truth),
        "frames": FRAMES,
        "size": SIZE,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "cpu_s": {name: round(value, 2) for name, value in cpu_s.items()},
        "total_cpu_s": round(total, 1),
        "per_100_clips_cpu_s": round(total * 100 / len(truth), 1),
        "limit_cpu_s": LIMIT_S,
        "left_out": list(choice.left_out),
    }
    write_json(ROOT / "benchmarks" / "evaluation_cost.json", result)
    print(
        "\n".join(f"{name:28}{value:8.1f} s" for name, value in cpu_s.items()), f"\n{'total':28}{total:8.1f} s for {len(truth)}"
    )


if __name__ == "__main__":
    main()
