"""Put a trained tokenizer into the package: bfloat16 weights, a card with its measured table.

    python scripts/ship_tokenizer.py RUN/tokenizer nano-cv8x8x8 [--table OUT/table/results.json]

Writes src/worldfoundry/weights/NAME. Run it once to be able to measure the shipped weights (benchmarks/nano_tokenizers.sh), and
again with --table to print what was measured into the card.
"""

import argparse
import json
from pathlib import Path

import torch
from cards import WEIGHTS, cell

from worldfoundry.core.checkpoint import load_component, save_component
from worldfoundry.core.provenance import machine

CARD = """---
library_name: worldfoundry
license: apache-2.0
tags: [video-tokenizer, cosmos, causal]
---

# {name}

A causal {kind} video tokenizer of the Cosmos family (arXiv 2501.03575, section 4), small enough for a laptop:
{t}x{h}x{w} compression, {bottleneck}, {parameters:.2f} M parameters in bfloat16.

    import worldfoundry as wf
    tokenizer = wf.load("{name}")                 # dtype="float32" on a CPU without bfloat16 instructions
    z = tokenizer.encode(video_BCTHW, strict=False)  # float in [-1, 1]

## Training

`worldfoundry train tokenizer CLIPS --config {name} --out RUN`: {steps} steps, {hours} hours on {machine} ({precision}),
from nothing, on {data}. L1 and squared error; for the last third also L1 of VGG-like features of one frame per clip.

## Measured

{measured}

## What it cannot do

It was trained for less than an hour on two CPU cores, on simulator renders at 128x128: it knows flat-shaded tables, blocks,
toy towns, rooms and one robot arm, and little else. Small fast things smear between frames or lose their colour, textures are
smoothed, rooms come out with wrong tints, and real footage worse.
{codec}
The tokenizer is for models that need few, smooth latents, not for storage. Better-trained weights are welcome: the recipe
is unchanged on a GPU.
"""

CONTINUOUS = """Clips of 97 frames come out 1.8 dB worse than as clips of 17, the length of its training.
At its bits a video codec (H.264) gives a far better picture."""
DISCRETE = "A video codec (H.264) cannot go as low as its bits; with 2.7 times as many it gives a somewhat better picture."


def table(results: Path, name: str) -> str:
    """Rows of the results that are this tokenizer's or its baselines', as Markdown."""
    found = json.loads(results.read_text(encoding="utf-8"))
    mine = [candidate for candidate in found["candidates"] if name in candidate]
    metrics = list(dict.fromkeys(row["metric"] for row in found["rows"]))
    cells = {(row["candidate"], row["metric"]): row for row in found["rows"]}
    lines = ["| | bits per pixel | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for candidate in mine:
        values = [cell(cells.get((candidate, metric))) for metric in metrics]
        lines.append(f"| {candidate} | {found['facts'][candidate]['bits_per_pixel']:.3g} | " + " | ".join(values) + " |")
    count = next(iter(cells.values()))["n"]
    head = (
        f"{count} clips of 33 frames, 128x128, five simulated domains, seeds that no training saw; 95 % intervals over sources."
    )
    return "\n".join([head + " Made by `benchmarks/nano_tokenizers.sh`.", "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--data", default="simulator renders (benchmarks/nano_clips.sh)")
    args = parser.parse_args()
    tokenizer = load_component(args.source, dtype=torch.bfloat16, expect="tokenizer")
    config, facts, spec = tokenizer.config, tokenizer.provenance, tokenizer.spec
    bottleneck = f"{config.codebook_size} codes (FSQ levels {config.levels})" if spec.discrete else f"{spec.channels} channels"
    card = CARD.format(
        name=args.name, kind="discrete" if spec.discrete else "continuous", t=spec.t, h=spec.h, w=spec.w, bottleneck=bottleneck,
        parameters=sum(p.numel() for p in tokenizer.parameters()) / 1e6, steps=facts["steps"], hours=facts["hours"],
        machine=machine(facts["hardware"]), precision=facts["precision"], data=args.data,
        codec=DISCRETE if spec.discrete else CONTINUOUS,
        measured=table(args.table, args.name) if args.table else "Not yet.",
    )  # fmt: skip
    folder = save_component(WEIGHTS / args.name, tokenizer, kind="tokenizer", provenance=facts, card=card, overwrite=True)
    print(folder, sum(f.stat().st_size for f in folder.iterdir()) / 1e6, "MB")


if __name__ == "__main__":
    main()
