"""Put a trained autoregressive world into the package: bfloat16 weights, its tokenizer by name, a card with its measured table.

    python scripts/ship_autoregressive.py HEADS/world nano-ar --tokenizer nano-dv8x16x16 [--top-p 0.9] [--table OUT/results.json]

Writes src/worldfoundry/weights/NAME. Run it once to be able to measure what ships, and again with --table to print what was
measured into the card.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from cards import WEIGHTS, cell
from ship_world import CONTROLS

import worldfoundry as wf
from worldfoundry.core.provenance import machine
from worldfoundry.inference.ar_folder import save_ar_world

CARD = """---
library_name: worldfoundry
license: apache-2.0
tags: [world-model, autoregressive, video, cosmos, speculative-decoding]
---

# {name}

An autoregressive world model of the Cosmos family (arXiv 2501.03575, section 5.2) for a laptop: {parameters:.2f} M parameters in
bfloat16 that predict the tokens of `{tokenizer}` one after the other. It continues one frame, or up to {prefix}, to {frames} frames of
{height}x{width}, and hands them out as they are made.

    import worldfoundry as wf
    world = wf.load("{name}")                 # dtype="float32" on a CPU without bfloat16 instructions
    video = world.generate(input="clip.mp4", seed=0)
    for frames in world.stream(input="clip.mp4"):   # uint8 [F, H, W, 3], piece by piece
        ...

## Training

{steps} steps of {batch} clips, {minutes:.0f} minutes on {machine} ({precision}{shared}), from nothing, on {data}.

{heads}

On held-out scenes (seeds that no training saw) its next token costs {nll} nats (knowing nothing: {uniform}), and its likeliest token is
the right one in {accuracy:.1f} % of cases (copying the token at the same place of the latent frame before: {copy:.1f} %).

## Measured

{measured}

## What it cannot do

{limits}
"""


def heads_line(facts: dict[str, Any]) -> str:
    """What the Medusa heads are, in a sentence or two."""
    made = facts.get("medusa")
    if not made:
        return "It has no Medusa heads."
    scores = made["metrics"]
    rates = ", ".join(f"{100 * value:.0f} %" for name, value in scores.items() if name.startswith("accuracy_"))
    blocks = made["config"]["medusa"]["last_layers"]
    along = f"the last {blocks} blocks learned along" if blocks else "the rest stayed as it was"
    return (
        f"Its Medusa heads ({made['steps']} steps, {60 * made['hours']:.0f} minutes; {along}) guess the tokens 2, 3, … ahead right in\n"
        f"{rates} of "
        "cases on held-out clips."
    )


def table(results: Path) -> str:
    """Moving pixels of every candidate, a column per domain."""
    domains = json.loads(results.read_text(encoding="utf-8"))["domains"]
    first = next(iter(domains.values()))
    cells = {
        (row["candidate"], name): cell(row)
        for name, domain in domains.items()
        for row in domain["rows"]
        if (row["metric"], row["horizon"]) == ("psnr_moving", "all")
    }
    lines = [
        f"{first['prefix_frames']} of {first['frames']} frames given: decibels on moving pixels of the others, pooled over clips; 95 % "
        "bootstrap intervals over sources. Held-out scenes, seeds that no training saw. Made by the verb `evaluate world`.", "",
        "| | " + " | ".join(f"{name} ({d['clips']} clips of {d['sources']} sources)" for name, d in domains.items()) + " |",
        "|---" * (len(domains) + 1) + "|",
    ]  # fmt: skip
    for candidate in first["candidates"]:
        lines.append(
            f"| {CONTROLS.get(candidate, candidate)} | " + " | ".join(cells[candidate, name] for name in domains) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--speculate", choices=("none", "medusa", "copy"))
    parser.add_argument("--draft-length", type=int)
    parser.add_argument(
        "--rename", nargs=2, action="append", default=[], metavar=("FROM", "TO"), help="a folder in what was recorded"
    )
    parser.add_argument("--shared", action="store_true", help="other work ran beside the training")
    parser.add_argument("--table", type=Path, nargs="+", default=[], help="results.json, one per number of given frames")
    parser.add_argument("--data", default="simulator renders (benchmarks/nano_diffusion_clips.sh)")
    parser.add_argument("--limits", type=Path, help="a text file: what its videos show to be wrong")
    args = parser.parse_args()
    world, tokenizer = wf.load(args.source, dtype="float32"), wf.load(args.tokenizer, dtype="float32")
    for name, tensor in tokenizer.state_dict().items():
        if not torch.equal(tensor, world.tokenizer.state_dict()[name]):
            raise SystemExit(f"{args.source} was not trained with {args.tokenizer}: {name} differs.")
    world.network.to(torch.bfloat16)
    asked = {name: getattr(args, name) for name in ("temperature", "top_p", "speculate", "draft_length")}
    world.config = world.config.replace(**{name: value for name, value in asked.items() if value is not None})
    facts, defaults = {k: v for k, v in world.provenance.items() if k != "folder"}, world.config
    for old, new in args.rename:
        facts = json.loads(json.dumps(facts).replace(old, new))
    scores = facts["metrics"]
    card = CARD.format(
        name=args.name, tokenizer=args.tokenizer, parameters=sum(p.numel() for p in world.network.parameters()) / 1e6,
        prefix=defaults.num_prefix_frames, frames=defaults.num_frames, height=defaults.height, width=defaults.width,
        steps=facts["steps"], batch=facts["config"]["batch_size"], minutes=60 * facts["hours"], 
        shared=", shared with other work" if args.shared else "", machine=machine(facts["hardware"]),
        precision=facts["precision"], data=args.data, heads=heads_line(facts), nll=scores["held_out_nll"],
        uniform=scores["uniform_nll"], accuracy=100 * scores["held_out_accuracy"], copy=100 * scores["copy_accuracy"],
        measured="\n\n".join(table(path) for path in args.table) or "Not yet.",
        limits=args.limits.read_text(encoding="utf-8").strip() if args.limits else "Not yet looked at.",
    )  # fmt: skip
    folder = save_ar_world(
        WEIGHTS / args.name, world, provenance=facts, card=card, overwrite=True, shipped_tokenizer=args.tokenizer
    )
    print(folder, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, "MB")


if __name__ == "__main__":
    main()
