"""An autoregressive world from its first frames to pixels: seconds until the first new frame, and video frames per second.

    python benchmarks/ar_end_to_end.py [--world FOLDER] [--clip VIDEO] [--rounds 5]

Per round, interleaved: plain decoding, copied guesses and (where the world has heads) Medusa's, each as a guarded stream of one
video, detokenisation included, after one warm-up of each. Without --world the network is of nano size with random weights: the same
work per pass, but nothing is said of how often guesses are right. Without --clip the prefix is a frame of noise that was blurred.
The guards look at every piece; what they say of random pictures is not asked. Beside wall clock stands the processor time of all
threads (names with `cpu`), which means more on a busy machine, and how it divides: prefix to tokens, drawing tokens, tokens to
pixels, guards. Writes benchmarks/ar_end_to_end.json.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
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


class Stages:
    """Processor seconds of the stages of a world, until `take`."""

    def __init__(self, world: AutoregressiveWorld) -> None:
        self.cpu_s: dict[str, float] = {}
        for owner, name, stage in (
            (world.tokenizer, "encode_indices", "prefix to tokens"), (world, "_pixels", "tokens to pixels"),
            (world, "_tokens", "drawing tokens"), (world.guardrails, "enforce_video", "guards"), (world.guardrails, "release", "guards"),
        ):  # fmt: skip
            wrap = self._pieces if name.startswith("_") else self._call
            setattr(owner, name, wrap(getattr(owner, name), stage))

    def take(self) -> dict[str, float]:
        """What each took itself: tokens are drawn, and before them the prefix encoded, where pixels are asked for."""
        found, self.cpu_s = {"prefix to tokens": 0.0, **self.cpu_s}, {}
        found["tokens to pixels"] -= found["drawing tokens"]
        found["drawing tokens"] -= found["prefix to tokens"]
        return {f"cpu_s: {name}": seconds for name, seconds in found.items()}

    def _call(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            made = function(*given, **named)
            self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + time.process_time() - start
            return made

        return timed

    def _pieces(self, function: Callable[..., Iterator[Any]], stage: str) -> Callable[..., Iterator[Any]]:
        def timed(*given: Any, **named: Any) -> Iterator[Any]:
            pieces, end = function(*given, **named), object()
            following = self._call(lambda: next(pieces, end), stage)
            while (piece := following()) is not end:
                yield piece

        return timed


def one(world: AutoregressiveWorld, stages: Stages, prefix: np.ndarray, way: Any, seed: int) -> dict[str, float]:
    """A video as a stream; the clocks start with the request."""
    start, cpu = time.perf_counter(), time.process_time()
    stream = world.stream(input=prefix, seed=seed, speculate=way)
    times = [(time.perf_counter() - start, time.process_time() - cpu, len(piece)) for piece in stream]
    frames, (video_s, video_cpu_s, _) = sum(count for _, _, count in times), times[-1]
    new = frames - times[0][2]
    return {
        "first_new_frame_s": times[1][0],
        "first_new_frame_cpu_s": times[1][1],
        "video_s": video_s,
        "video_cpu_s": video_cpu_s,
        "new_frames_per_s": new / video_s,
        "new_frames_per_cpu_s": new / video_cpu_s,
        "frames_per_cpu_s": frames / video_cpu_s,
        "tokens_per_s": stream.tally.tokens_per_s,
        "forwards": stream.tally.forwards,
        "tokens_per_forward": stream.tally.tokens_per_forward,
        **stages.take(),
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
    stages = Stages(world)
    ways = [way for way in WAYS if way != "medusa" or world.network.medusa is not None]
    first = {way: one(world, stages, prefix, way, 0) for way in ways}  # the very first call after load is plain
    rounds = [{way: one(world, stages, prefix, way, seed) for way in ways} for seed in range(1, options.rounds + 1)]
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
        "first_calls": {way: {name: round(value, 3) for name, value in row.items()} for way, row in first.items()},
        "median_min_max": spread, "made_with": provenance(),
    })  # fmt: skip
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
