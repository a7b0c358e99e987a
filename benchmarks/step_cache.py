"""What the step cache saves and what it costs, over thresholds: time of a sample and likeness to the sample without it.

    python benchmarks/step_cache.py --world WORLD --input FIRST.png --out benchmarks/step_cache.json

Same noise for all thresholds, one after the other in every round; the first round warms up. Likeness is the PSNR of pixels to those
of the exact sample, and beside it the PSNR of an exact sample with fewer steps that takes as many network calls: the cache is worth
having where it is above that. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

import worldfoundry as wf
from worldfoundry.core.devices import hardware
from worldfoundry.inference.config import Request
from worldfoundry.inference.frames import read_prefix
from worldfoundry.inference.world import DiffusionWorld


def sample(world: DiffusionWorld, request: Request, prefix: np.ndarray | None) -> tuple[np.ndarray, float, int]:
    """Pixels, seconds of sampling and decoding, and calls of the last block."""
    calls = []
    handle = world.network.blocks[-1].register_forward_hook(lambda *_: calls.append(1))
    start = time.perf_counter()
    video = world.sample(request, [prefix], None)
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    handle.remove()
    return video, seconds, len(calls)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of uint8 pixels, in dB; 99 for equal ones."""
    error = float(((a.astype(np.float64) - b) ** 2).mean())
    return round(float(10 * np.log10(255**2 / error)), 2) if error else 99.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", required=True)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.02, 0.05, 0.1, 0.2, 0.4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    world = wf.load(options.world, device=options.device)
    exact = world.resolve(prompt=options.prompt, num_inference_steps=options.steps, guidance_scale=options.guidance_scale)
    prefix = None
    if options.input is not None:
        prefix = read_prefix(options.input, exact.num_prefix_frames, exact.height, exact.width)
    requests = {0.0: exact, **{t: exact.replace(step_cache=t) for t in options.thresholds}}
    seconds: dict[float, list[float]] = {t: [] for t in requests}
    videos, calls = {}, {}
    for round_ in range(options.rounds + 1):
        for threshold, request in requests.items():
            videos[threshold], took, calls[threshold] = sample(world, request, prefix)
            seconds[threshold] += [took] if round_ else []
    rows = []
    for threshold in requests:
        ratios = [a / b for a, b in zip(seconds[0.0], seconds[threshold], strict=True)]
        fewer = max(2, round(options.steps * calls[threshold] / calls[0.0]))
        shorter = sample(world, exact.replace(num_inference_steps=fewer), prefix)[0]
        rows.append({
            "threshold": threshold, "calls": calls[threshold], "seconds": round(float(np.median(seconds[threshold])), 4),
            "speedup": [round(float(f(ratios)), 3) for f in (np.median, np.min, np.max)],
            "psnr_to_exact": psnr(videos[threshold], videos[0.0]), "fewer_steps": fewer,
            "psnr_of_fewer_steps": psnr(shorter, videos[0.0]),
        })  # fmt: skip
        print(rows[-1])
    load = os.getloadavg()[0]
    result = {"hardware": hardware(), "load": load, "world": world.provenance, "request": exact.to_dict(), "rows": rows}
    options.out.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
