"""An autoregressive world from its first frames to pixels: seconds until the first new frame, and video frames per second.

    python benchmarks/ar_end_to_end.py [--world FOLDER] [--clip VIDEO] [--rounds 5]

Per round, interleaved: plain decoding, copied guesses and (where the world has heads) Medusa's, each as a guarded stream of one
video, detokenisation included, after one warm-up of each. Without --world the network is of nano size with random weights: the same
work per pass, but nothing is said of how often guesses are right. Without --clip the prefix is a frame of noise that was blurred.
The guards look at every piece; what they say of random pictures is not asked. Writes benchmarks/ar_end_to_end.json.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import worldfoundry as wf
from worldfoundry.autoregressive.config import ar_size
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.core.video_io import read_video
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_world import AutoregressiveWorld

TOKENIZER, WAYS = "nano-dv8x16x16", ("none", "copy", "medusa")


def random_world() -> AutoregressiveWorld:
    """Of nano size; Medusa heads start at zero."""
    defaults = AutoregressiveDefaults(height=128, width=128, fps=12)
    network = Transformer(ar_size("nano")).eval().requires_grad_(False)
    return AutoregressiveWorld(network, wf.load(TOKENIZER, dtype="float32"), defaults)


def prefix_of(world: AutoregressiveWorld, clip: Path | None) -> np.ndarray:
    """As many frames as the world conditions on."""
    count, height, width = world.config.num_prefix_frames, world.config.height, world.config.width
    if clip is not None:
        return read_video(clip).frames[:count]
    noise = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    return np.repeat((smooth * 255).byte().numpy()[None], count, axis=0)


def one(world: AutoregressiveWorld, prefix: np.ndarray, way: Any, seed: int) -> dict[str, float]:
    """A video as a stream; the clock starts with the request."""
    start = time.perf_counter()
    stream = world.stream(input=prefix, seed=seed, speculate=way)
    times = [(time.perf_counter() - start, len(piece)) for piece in stream]
    new = sum(count for _, count in times[1:])
    return {
        "first_new_frame_s": times[1][0],
        "video_s": times[-1][0],
        "new_frames_per_s": new / times[-1][0],
        "frames_per_s": (new + times[0][1]) / times[-1][0],
        "tokens_per_s": stream.tally.tokens_per_s,
        "forwards": stream.tally.forwards,
        "tokens_per_forward": stream.tally.tokens_per_forward,
        "share_of_decoding": stream.tally.duration_s / times[-1][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default=None, help="a world folder or shipped name")
    parser.add_argument("--clip", type=Path, default=None, help="a video whose first frames are continued")
    parser.add_argument("--num-frames", type=int, default=None, help="frames of each video; default the world's own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; default torch's own")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    began, load = time.perf_counter(), os.getloadavg()
    world = wf.load(options.world) if options.world else random_world()
    if options.num_frames:
        world.config = world.config.replace(num_frames=options.num_frames)
    load_s, prefix = time.perf_counter() - began, prefix_of(world, options.clip)
    looking = GuardPolicy(action="warn", reason="a benchmark: nothing is handed out")
    world.guardrails = Guardrails.from_policy(looking)
    ways = [way for way in WAYS if way != "medusa" or world.network.medusa is not None]
    first = {way: one(world, prefix, way, 0)["first_new_frame_s"] for way in ways}  # the very first call after load is plain
    rounds = [{way: one(world, prefix, way, seed) for way in ways} for seed in range(1, options.rounds + 1)]
    spread = {
        way: {
            name: [round(f([r[way][name] for r in rounds]), 4) for f in (statistics.median, min, max)]
            for name in rounds[0][way]
        }
        for way in ways
    }
    write_json(options.out, {
        "world": options.world or "nano size, random weights", "clip": options.clip and options.clip.name,
        "frames": [world.config.num_frames, world.config.height, world.config.width], "prefix_frames": len(prefix),
        "threads": torch.get_num_threads(), "dtype": str(world.network.embed.weight.dtype), "rounds": options.rounds,
        "load_average": [round(value, 2) for value in (*load[:1], *os.getloadavg()[:1])], "load_s": round(load_s, 3),
        "first_call_first_new_frame_s": {way: round(value, 3) for way, value in first.items()},
        "median_min_max": spread, "made_with": provenance(),
    })  # fmt: skip
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
