"""Speculative decoding with a trained world on held-out video: Medusa heads and the copied frame, by length of the draft.

    python benchmarks/ar_speculation.py --data HELD/pusher HELD/physics ... [--world nano-ar] [--clips 16]

The quantities of arXiv 2501.03575, Table 15: passes of the network and tokens per second by number of heads; here one video at a time, on
a CPU. Per clip, one after the other: plain decoding, every number of heads that the world has, and copies of the frame before of
several lengths, each from the same given frames and seed, decoding alone (no tokenizer), after one warm-up of each. Time is wall
clock and processor time of the process. A draft never changes what is drawn, except where bfloat16 rounds several positions at a
time otherwise than one: the share of tokens that equal plain decoding's is counted. Writes benchmarks/ar_speculation.json.
"""

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import worldfoundry as wf
from worldfoundry.autoregressive.decoding import Tally
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.inference.ar_rollout import kept_frames, make_draft, roll_out
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.conditions import to_unit_range
from worldfoundry.recipes.evaluate_world import held_out

COPIES = (4, 8, 16)


def decode(
    world: AutoregressiveWorld, network: Any, prefix: Tensor, way: tuple[Any, int], seed: int
) -> tuple[Tensor, dict[str, float]]:
    """New tokens of one clip, and what they took."""
    tally, draft, generator = Tally(), make_draft(network, *way), torch.Generator().manual_seed(seed)
    latent_frames = (world.config.num_frames - 1) // world.tokenizer.spec.t + 1 - prefix.shape[1]
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        made = list(
            roll_out(
                network, prefix, latent_frames, kept=kept_frames(network, None), sampling=world.config.sampling,
                generators=[generator], draft=draft, tally=tally,
            )
        )  # fmt: skip
    times = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return torch.cat(made, dim=1), {**asdict(tally), **times}


def summary(runs: list[dict[str, float]], plain: list[dict[str, float]], same: float) -> dict[str, float]:
    """All clips of one way together, beside plain decoding."""
    total = {name: sum(run[name] for run in runs) for name in runs[0]}
    before = {name: sum(run[name] for run in plain) for name in plain[0]}
    return {
        "forwards_per_video": total["forwards"] / len(runs),
        "tokens_per_forward": total["tokens"] / total["forwards"],
        "confirmed_share": total["confirmed"] / max(total["guessed"], 1),
        "tokens_per_s_wall": total["tokens"] / total["wall_s"],
        "tokens_per_cpu_s": total["tokens"] / total["cpu_s"],
        "speedup_forwards": before["forwards"] / total["forwards"],
        "speedup_wall": before["wall_s"] / total["wall_s"],
        "speedup_cpu": before["cpu_s"] / total["cpu_s"],
        "same_tokens": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="clip datasets, one per domain")
    parser.add_argument("--world", default="nano-ar")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    world = wf.load(options.world, dtype=options.dtype)
    network, load = world.network.for_decoding(), os.getloadavg()[0]
    per_domain = [
        options.clips // len(options.data) + (i < options.clips % len(options.data)) for i in range(len(options.data))
    ]
    prefixes = []
    for folder, count in zip(options.data, per_domain, strict=True):
        for window in held_out(world, folder, count):
            given = to_unit_range(window.frames[None, : world.config.num_prefix_frames], world.device)
            prefixes.append((folder.name, world.tokenizer.encode_indices(given).long()))
    heads = world.network.config.medusa_heads
    ways = {"plain": ("none", 1)} | {f"medusa {k}": ("medusa", k) for k in range(1, heads + 1)}
    ways |= {f"copy {k}": ("copy", k) for k in COPIES}
    for way in ways.values():
        decode(world, network, prefixes[0][1], way, 0)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    same: dict[str, list[float]] = {name: [] for name in ways}
    for seed, (_, prefix) in enumerate(prefixes):
        made = {}
        for name, way in ways.items():
            made[name], found = decode(world, network, prefix, way, seed)
            runs[name].append(found)
            same[name].append(float((made[name] == made["plain"]).float().mean()))
    rows = {name: summary(runs[name], runs["plain"], sum(same[name]) / len(same[name])) for name in ways}
    domains = {
        domain: {
            name: sum(r["forwards"] for r, (d, _) in zip(runs[name], prefixes, strict=True) if d == domain)
            / sum(d == domain for d, _ in prefixes)
            for name in ways
        }
        for domain in dict.fromkeys(d for d, _ in prefixes)
    }
    write_json(options.out, {
        "world": options.world, "clips": len(prefixes), "prefix_tokens": prefixes[0][1].numel(),
        "sampling": world.config.sampling.to_dict(),
        "threads": options.threads, "dtype": options.dtype, "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "ways": {name: {k: round(v, 4) for k, v in row.items()} for name, row in rows.items()},
        "forwards_per_video_by_domain": domains, "made_with": provenance(),
    })  # fmt: skip
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
