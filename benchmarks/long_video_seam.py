"""Are the joins of a long video seen? Frame differences where windows meet, against those inside windows.

    python benchmarks/long_video_seam.py --world WORLD --input FIRST.png --seeds 8 --out benchmarks/long_video_seam.json

For both ways of giving a window the end of the one before (`extension` frames or latents): the mean absolute difference of
neighbouring frames at joins over that inside windows, and the same of second differences (a jerk in a steady motion). 1 means
that a join is like any other place. Frames of the input are left out. One ratio per seed; mean, lowest and highest.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import worldfoundry as wf
from worldfoundry.core.devices import hardware
from worldfoundry.inference.frames import read_prefix
from worldfoundry.inference.rollout import plan
from worldfoundry.inference.world import DiffusionWorld


def seam_ratios(video_THWC: np.ndarray, joins: list[int], begin: int) -> tuple[float, float]:
    """First and second differences over time at joins (index of the first frame of a window) over those elsewhere."""
    x = video_THWC.astype(np.float32)
    first = np.abs(np.diff(x, axis=0)).mean(axis=(1, 2, 3))  # [i] is between i and i + 1
    second = np.abs(np.diff(x, n=2, axis=0)).mean(axis=(1, 2, 3))  # [i] is about i + 1
    at_first = [join - 1 for join in joins]
    at_second = [i for join in joins for i in (join - 2, join - 1)]
    return _ratio(first, at_first, begin), _ratio(second, at_second, begin)


def _ratio(values: np.ndarray, joins: list[int], begin: int) -> float:
    inside = [i for i in range(begin, len(values)) if i not in joins]
    return float(values[joins].mean() / max(values[inside].mean(), 1e-6))


def measure(world: DiffusionWorld, prefix: np.ndarray | None, num_frames: int, seeds: int) -> list[dict[str, float]]:
    request = world.resolve(num_frames=num_frames)
    tc, rows = world.tokenizer.spec.t, []
    joins = [1 + (w.start + w.overlap - 1) * tc for w in plan(world, request)[1:]]
    for seed in range(seeds):
        video = world.sample(request.replace(seed=seed), [prefix], None)[0]
        begin = 0 if prefix is None else len(prefix)
        first, second = seam_ratios(video, [join for join in joins if join < num_frames - 1], begin)
        rows.append({"seed": seed, "first": round(first, 4), "second": round(second, 4)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", required=True)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--windows", type=int, default=4, help="how often the video is as long as the training's")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    world = wf.load(options.world)
    config = world.config
    prefix = None
    if options.input is not None:
        prefix = read_prefix(options.input, config.num_prefix_frames, config.height, config.width)
    num_frames = config.num_frames * options.windows
    result = {"hardware": hardware(), "world": world.provenance, "num_frames": num_frames, "trained_frames": config.num_frames}
    for extension in ("frames", "latents"):
        world.config = config.replace(extension=extension)
        rows = measure(world, prefix, num_frames, options.seeds)
        summary = {
            name: {f.__name__: round(float(f([row[name] for row in rows])), 4) for f in (np.mean, np.min, np.max)}
            for name in ("first", "second")
        }
        result[extension] = {"rows": rows, "ratio": summary}
        print(extension, summary)
    options.out.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
