"""Put a trained world into the package: bfloat16 weights, its tokenizer by name, a card with its measured table.

    python scripts/ship_world.py RUN/world nano-diffusion --tokenizer nano-cv8x8x8 [--steps 6 --sigma-min 0.3] [--table OUT/results.json]

Writes src/worldfoundry/weights/NAME. Run it once to be able to measure what ships (`worldfoundry evaluate world`), and again with
--table to print what was measured into the card.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from cards import WEIGHTS, cell

import worldfoundry as wf
from worldfoundry.core.provenance import machine
from worldfoundry.inference.world_folder import save_world

CONTROLS = {
    "model": "**model**",
    "model, other clips' actions": "other clips' actions",
    "model, zero actions": "zero actions",
    "copy last frame": "copy last frame",
    "constant velocity (pyramid Lucas-Kanade)": "constant velocity",
    "nearest training clip": "nearest training clip",
    "background control (oracle)": "background control (has seen the future)",
    "tokenizer ceiling": "tokenizer ceiling",
}
CARD = """---
library_name: worldfoundry
license: apache-2.0
tags: [world-model, video-diffusion, cosmos, robotics]
---

# {name}

A diffusion world model of the Cosmos family (arXiv 2501.03575, section 5.1) for a laptop: {parameters:.2f} M parameters in bfloat16,
in the latents of `{tokenizer}`. From a prompt, {prefix} given frames and, in the pusher's world, actions, it makes {frames} frames
of {height}x{width}.

    import worldfoundry as wf
    world = wf.load("{name}")                 # dtype="float32" on a CPU without bfloat16 instructions
    video = world.generate("A magenta pusher moves on a checkered table.", input="clip.mp4", actions=actions)

Its actions are {actions}, in the simulator's units (m/s); other domains are trained with zeros there.

## Training

{steps} steps of 16 clips, {hours} hours on {machine} ({precision}), from {begin}, on {data}.

## Measured

{measured}

## What it cannot do

{limits}
"""


def tables(results: Path) -> str:
    """A table per domain: moving pixels per horizon and in all, kernel distance, position of the pusher."""
    found = json.loads(results.read_text(encoding="utf-8"))
    parts = [
        "Held-out scenes (seeds that no training saw), 33 frames of which 9 are given, pooled over clips; 95 % bootstrap intervals "
        "over sources. Made by `worldfoundry evaluate world` on `benchmarks/nano_diffusion_clips.sh`."
    ]
    for name, domain in found["domains"].items():
        parts += ["", f"### {name}: {domain['clips']} clips of {domain['sources']} sources", "", *domain_table(domain)]
    return "\n".join(parts)


def domain_table(domain: dict[str, Any]) -> list[str]:
    cells = {(row["candidate"], row["metric"], row["horizon"]): row for row in domain["rows"]}
    columns = [("psnr_moving", horizon) for horizon in domain["horizons"]]
    columns += sorted({(row["metric"], "all") for row in domain["rows"] if row["metric"].startswith(("KD", "centroid"))})
    head = [f"moving dB {h}" if m == "psnr_moving" else {"centroid_error_pusher": "pusher px"}.get(m, m) for m, h in columns]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for candidate, label in CONTROLS.items():
        if (candidate, "psnr_moving", "all") in cells:
            values = [cell(cells.get((candidate, metric, horizon))) for metric, horizon in columns]
            lines.append(f"| {label} | " + " | ".join(values) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sigma-min", type=float)
    parser.add_argument("--frame-rates", type=float, nargs="+", default=[], help="the commonest first, where clips had several")
    parser.add_argument("--extension", choices=("frames", "latents"), help="what a window of a long video is given")
    parser.add_argument("--rename", nargs=2, metavar=("FROM", "TO"), help="a folder's name in what the run recorded")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--data", default="simulator renders (benchmarks/nano_diffusion_clips.sh)")
    parser.add_argument("--begin", default="nothing", help="what the run started from, in words")
    parser.add_argument("--limits", type=Path, help="a text file: what its videos show to be wrong")
    args = parser.parse_args()
    world, tokenizer = wf.load(args.source, dtype="float32"), wf.load(args.tokenizer, dtype="float32")
    for name, tensor in tokenizer.state_dict().items():
        if not torch.equal(tensor, world.tokenizer.state_dict()[name]):
            raise SystemExit(f"{args.source} was not trained with {args.tokenizer}: {name} differs.")
    world.network.to(torch.bfloat16)
    if args.steps:
        world.config = world.config.replace(num_inference_steps=args.steps)
    if args.extension:
        world.config = world.config.replace(extension=args.extension)
    if args.frame_rates:
        world.config = world.config.replace(fps=args.frame_rates[0], frame_rates=tuple(args.frame_rates))
    if args.sigma_min:
        world.scheduler = world.scheduler.replace(sigma_min=args.sigma_min)
    facts, defaults = {k: v for k, v in world.provenance.items() if k != "folder"}, world.config
    facts["begin"] = args.begin
    if args.rename:
        facts = json.loads(json.dumps(facts).replace(*args.rename))
    card = CARD.format(
        name=args.name, tokenizer=args.tokenizer, parameters=sum(p.numel() for p in world.network.parameters()) / 1e6,
        prefix=defaults.num_prefix_frames, frames=defaults.num_frames, height=defaults.height, width=defaults.width,
        actions=" and ".join(f"`{name}`" for name in defaults.action_names), steps=facts["steps"], hours=facts["hours"],
        machine=machine(facts["hardware"]), precision=facts["precision"], data=args.data,
        begin=args.begin, measured=tables(args.table) if args.table else "Not yet.",
        limits=args.limits.read_text(encoding="utf-8").strip() if args.limits else "Not yet looked at.",
    )  # fmt: skip
    folder = save_world(
        WEIGHTS / args.name, world, provenance=facts, card=card, overwrite=True, shipped_tokenizer=args.tokenizer
    )
    print(folder, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, "MB")


if __name__ == "__main__":
    main()
