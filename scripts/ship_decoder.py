"""Put a trained diffusion decoder into the package: the bfloat16 adapter, a card with its measured table.

    python scripts/ship_decoder.py RUN/decoder nano-decoder [--steps 10 --sigma-min 0.1] [--table benchmarks/nano_decoder.json]

Writes src/worldfoundry/weights/NAME. Run it once to be able to measure what ships (`benchmarks/nano_decoder.py`), and again with
--table to print what was measured into the card.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from cards import WEIGHTS, cell

from worldfoundry.core.checkpoint import read_config, read_weights, write_component
from worldfoundry.core.files import atomic_folder, read_fields
from worldfoundry.core.provenance import machine
from worldfoundry.inference.token_decoder import KIND, TokenDecoderConfig, load_token_decoder

CARD = """---
library_name: worldfoundry
license: apache-2.0
tags: [video-tokenizer, video-diffusion, cosmos, lora]
---

# {name}

A diffusion decoder of the Cosmos family (arXiv 2501.03575, section 5.2.4) for a laptop: an adapter of `{world}` ({parameters:.2f} M
parameters in bfloat16) that draws, in the latents of that world's tokenizer, what tokens of `{tokenizer}` stand for.

    import torch, worldfoundry as wf
    decoder = wf.load("{name}")
    tokens = decoder.tokens.encode_indices(video_BCTHW)     # or those of an autoregressive world
    frames = decoder.decode(tokens, fps=12, generators=[torch.Generator().manual_seed(0)])

## Training

`worldfoundry train decoder CLIPS --world {world} --tokenizer {tokenizer} --out RUN`: {steps} steps of 16 clips, {hours} hours on
{machine} ({precision}); the world stays as it is, low-rank additions, token embeddings and the layer that reads them are trained.

## Measured

{measured}

## What it cannot do

{limits}
"""


def tables(path: Path) -> str:
    """All domains together, Markdown."""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = found["all"]["rows"]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row["candidate"], row["metric"]): row for row in rows}
    lines = ["| | " + " | ".join(metrics) + " | seconds per clip |", "|---" * (len(metrics) + 2) + "|"]
    for candidate in dict.fromkeys(row["candidate"] for row in rows):
        values = [cell(cells[candidate, metric]) for metric in metrics]
        lines.append(f"| {candidate} | " + " | ".join(values) + f" | {found['seconds_per_clip'][candidate]:.2f} |")
    head = (
        f"{found['all']['clips']} clips of {found['frames']} frames, 128x128, five simulated domains, seeds that no training saw; 95 % "
        f"intervals over sources; decoding times on {found['hardware']}, {found['threads']} thread(s), beside other work: compare them "
        "with each other only. Made by "
        "`benchmarks/nano_decoder.py`; by domain in `docs/results/diffusion_decoder.md`."
    )
    return "\n".join([head, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sigma-min", type=float)
    parser.add_argument("--rename", nargs=2, metavar=("FROM", "TO"), help="a folder's name in what the run recorded")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--limits", type=Path, help="a text file: what its videos show to be wrong")
    args = parser.parse_args()
    load_token_decoder(args.source)  # whether it fits the world and the tokenizer of this version
    fields = read_config(args.source)
    fields.pop("kind")
    config, facts = TokenDecoderConfig.from_dict(fields, where=str(args.source)), read_fields(args.source / "provenance.json")
    if args.steps:
        config = config.replace(num_inference_steps=args.steps)
    if args.sigma_min:
        config = config.replace(scheduler=config.scheduler.replace(sigma_min=args.sigma_min))
    if args.rename:
        facts = json.loads(json.dumps(facts).replace(*args.rename))
    card = CARD.format(
        name=args.name, world=config.world, tokenizer=config.tokenizer, parameters=facts["parameters"] / 1e6, steps=facts["steps"],
        hours=facts["hours"], machine=machine(facts["hardware"]), precision=facts["precision"],
        measured=tables(args.table) if args.table else "Not yet.",
        limits=args.limits.read_text(encoding="utf-8").strip() if args.limits else "Not yet looked at.",
    )  # fmt: skip
    with atomic_folder(WEIGHTS / args.name, overwrite=True) as folder:
        write_component(folder, config.to_dict(), read_weights(args.source), kind=KIND, provenance=facts, card=card)
    print(WEIGHTS / args.name, sum(f.stat().st_size for f in (WEIGHTS / args.name).iterdir()) / 1e6, "MB")


if __name__ == "__main__":
    main()
