"""One block of the 7B diffusion transformer on a GPU against diffusers' block: milliseconds, TFLOP/s, share of the matrix rate.

    python benchmarks/dit_block_gpu.py [--device cuda] [--grid 16 44 80] [--rounds 10]

The default grid is 121 frames of 704x1280: 56 320 tokens. Same weights, bfloat16, interleaved; `compiled` is ours under
torch.compile. Writes benchmarks/dit_block_<device>.json. A smaller --grid, --width and --heads try it out on a CPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.diffusion.diffusers import from_diffusers
from worldfoundry.nn.rope import rope_tables

TEXT_ROWS, RANK, TEXT_WIDTH = 512, 256, 1024
Run = Callable[[], Tensor]


def blocks(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """diffusers' block, ours with its weights, and our config."""
    from diffusers import CosmosTransformer3DModel

    torch.manual_seed(0)
    fields = {
        "in_channels": 16, "out_channels": 16, "num_attention_heads": args.heads, "attention_head_dim": args.width // args.heads,
        "num_layers": 1, "text_embed_dim": TEXT_WIDTH, "adaln_lora_dim": RANK, "concat_padding_mask": False,
    }  # fmt: skip
    peer = CosmosTransformer3DModel(**fields).eval().requires_grad_(False)
    ours = from_diffusers(peer.state_dict(), dict(peer.config)).eval()
    move = {"device": args.device, "dtype": torch.bfloat16}
    return peer.transformer_blocks[0].to(**move), ours.blocks[0].to(**move), ours.config


def runs(args: argparse.Namespace) -> dict[str, Run]:
    """The variants on the same input."""
    peer, ours, config = blocks(args)
    t, h, w = args.grid
    D, device = args.width, torch.device(args.device)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, torch.bfloat16)

    x, position, context = draw(1, t, h * w, D), draw(t, h * w, D), draw(1, TEXT_ROWS, TEXT_WIDTH)
    embedding, base = draw(1, D), draw(1, 3 * D)
    cos, sin = rope_tables((t, h, w), config.head_dim, config.rope_ratios, None, device)
    both = [torch.cat([table, table], dim=-1)[0, 0] for table in (cos, sin)]
    memo: dict = {}
    call = (x, position, F.silu(embedding)[:, None, None], base[:, None, None], context, cos, sin)
    compiled = torch.compile(ours, dynamic=False)
    return {
        "peer": lambda: peer(x.flatten(1, 2), context, embedding, base, both, position.flatten(0, 1)[None]).view_as(x),
        "ours": lambda: ours(*call, memo),
        "compiled": lambda: compiled(*call),
    }


def operations(args: argparse.Namespace) -> float:
    """Operations of a block, with the text's keys and values left out: they are made once per sample."""
    n, D = args.grid[0] * args.grid[1] * args.grid[2], args.width
    return 2 * n * 14 * D * D + 4 * n * n * D + 4 * n * TEXT_ROWS * D


def seconds(run: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rates(args: argparse.Namespace) -> dict[str, float]:
    """TFLOP/s of a square product and of the fused attention at this size, best of ten."""
    side, n = 8192 if args.device == "cuda" else 1024, args.grid[0] * args.grid[1] * args.grid[2]
    a, b = (torch.randn(side, side, device=args.device, dtype=torch.bfloat16) for _ in range(2))
    q = torch.randn(1, args.heads, n, args.width // args.heads, device=args.device, dtype=torch.bfloat16)
    products = min(seconds(lambda: a @ b, args.device) for _ in range(10))
    attention = min(seconds(lambda: F.scaled_dot_product_attention(q, q, q), args.device) for _ in range(10))
    return {"matrix": round(2 * side**3 / products / 1e12, 3), "attention": round(4 * n * n * args.width / attention / 1e12, 3)}


@torch.no_grad()
def compare(args: argparse.Namespace) -> dict[str, Any]:
    variants = runs(args)
    expected = variants["peer"]().float()
    times: dict[str, list[float]] = {name: [] for name in variants}
    rows: dict[str, Any] = {}
    for name, run in variants.items():
        error = max((run().float() - expected).norm() for _ in range(3))  # the first calls also compile and warm up
        rows[name] = {"relative_difference": float(error / expected.norm())}
    for _ in range(args.rounds):
        for name, run in variants.items():
            times[name].append(seconds(run, args.device))
    rate, flop = rates(args), operations(args)
    for name, mine in times.items():
        middle = statistics.median(mine)
        ratios = [a / b for a, b in zip(times["peer"], mine, strict=True)]
        rows[name] |= {
            "ms": round(1e3 * middle, 3), "ms_min": round(1e3 * min(mine), 3), "ms_max": round(1e3 * max(mine), 3),
            "tflops": round(flop / middle / 1e12, 3), "share_of_matrix_rate": round(flop / middle / 1e12 / rate["matrix"], 3),
            "ratio": round(statistics.median(ratios), 3), "ratio_min": round(min(ratios), 3), "ratio_max": round(max(ratios), 3),
        }  # fmt: skip
    return {"operations_tflop": round(flop / 1e12, 4), "rates_tflops": rate, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--grid", type=int, nargs=3, default=(16, 44, 80), help="patches in time, height and width")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    found = compare(args)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    facts = provenance(benchmark="dit block", device=name, grid=list(args.grid), width=args.width, rounds=args.rounds)
    write_json(Path(__file__).with_name(f"dit_block_{args.device}.json"), {**facts, **found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
