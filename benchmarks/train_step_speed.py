"""Training steps of a 37 M diffusion transformer against diffusers' CosmosTransformer3DModel: same weights, batch, noise and loop.

    python benchmarks/train_step_speed.py [--device cuda] [--rounds 9] [--batch 2] [--tokens 320 1280] [--clock wall|cpu]

A step is: EDM loss, backward, clipping, AdamW (fused, float32 weights). The two take turns. Writes
benchmarks/train_step_speed_<device>.json: milliseconds per step (median, min, max), ratios of each round, the difference of the
losses of the first step, operations by formula and the share of the machine's measured matrix rate. Run it on an otherwise idle
machine with OMP_NUM_THREADS set to its cores; the load average is recorded. `--layers` makes a smoke run small.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.devices import matrix_rate
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.diffusion.diffusers import from_diffusers
from worldfoundry.diffusion.flops import training_flops
from worldfoundry.diffusion.loss import denoising_loss
from worldfoundry.diffusion.parametrization import NetworkDenoiser

FIELDS = {
    "in_channels": 17, "out_channels": 16, "num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 8, "mlp_ratio": 4.0,
    "text_embed_dim": 384, "adaln_lora_dim": 64, "max_size": (32, 64, 64), "concat_padding_mask": False,
}  # fmt: skip
GRIDS = {80: (5, 8, 8), 320: (5, 16, 16), 1280: (5, 32, 32)}
TEXT_ROWS = 64
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Peer(nn.Module):
    """diffusers' network behind the call that ours has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCTHW: Tensor, c_noise_B: Tensor, context_BLD: Tensor, **_: Any) -> Tensor:
        mask_B1THW = torch.zeros_like(x_BCTHW[:, :1])
        return self.network(x_BCTHW, c_noise_B, context_BLD, fps=24, condition_mask=mask_B1THW, return_dict=False)[0]


def networks(fields: dict[str, Any], device: str) -> dict[str, Any]:
    """The peer with seeded random weights, and ours with the same."""
    from diffusers import CosmosTransformer3DModel

    torch.manual_seed(0)
    peer = CosmosTransformer3DModel(**fields)
    ours = from_diffusers(peer.state_dict(), dict(peer.config))
    return {"peer": Peer(peer).to(device).train(), "ours": ours.to(device).train().requires_grad_(True)}


def stepper(network: nn.Module, tokens: int, batch: int, device: str, dtype: torch.dtype) -> Callable[[], float]:
    """A function that takes one training step and returns its loss."""
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, batch, 16, *GRIDS[tokens], generator=generator).to(device)
    sigma = torch.randn(batch, generator=generator).exp().to(device)
    condition = Condition(context_BLD=torch.randn(batch, TEXT_ROWS, 384, generator=generator).to(device))
    denoiser, optimizer = NetworkDenoiser(network), torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def step() -> float:
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = denoising_loss(denoiser, 0.5 * x0, sigma, noise, condition).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def measure(fields: dict[str, Any], tokens: int, dtype: torch.dtype, args: argparse.Namespace) -> dict[str, Any]:
    """Both, in turns."""
    nets, clock, device = networks(fields, args.device), CLOCKS[args.clock], torch.device(args.device)
    steps = {name: stepper(network, tokens, args.batch, args.device, dtype) for name, network in nets.items()}
    losses = {name: step() for name, step in steps.items()}
    for step in steps.values():
        step()  # warms up, too: the first one made the optimizer's moments
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(args.rounds):
        for name in sorted(steps, reverse=bool(turn % 2)):
            start = clock()
            steps[name]()
            seconds[name].append(clock() - start)
    rate = matrix_rate(device, dtype)
    flops = training_flops(nets["ours"].config, (args.batch, *GRIDS[tokens]), TEXT_ROWS)
    ratios = [peer / ours for peer, ours in zip(seconds["peer"], seconds["ours"], strict=True)]
    return {
        "tokens": tokens,
        "batch": args.batch,
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in nets["ours"].parameters()),
        "milliseconds": {name: summary([1000 * s for s in values]) for name, values in seconds.items()},
        "speedup": summary(ratios),
        "first_loss_difference": abs(losses["peer"] - losses["ours"]) / abs(losses["peer"]),
        "gflop": round(flops / 1e9, 2),
        "matrix_gflop_s": round(rate / 1e9, 1),
        "utilization": {name: round(flops / statistics.median(values) / rate, 3) for name, values in seconds.items()},
    }


def summary(values: list[float]) -> dict[str, float]:
    return {name: round(f(values), 3) for name, f in (("median", statistics.median), ("min", min), ("max", max))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[320, 1280], choices=GRIDS)
    parser.add_argument("--layers", type=int, default=FIELDS["num_layers"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    fields, rows = FIELDS | {"num_layers": args.layers}, []
    for tokens in args.tokens:
        for dtype in (torch.float32, torch.bfloat16):
            rows.append(measure(fields, tokens, dtype, args))
            print(rows[-1], flush=True)
    facts = provenance(rounds=args.rounds, clock=args.clock, threads=torch.get_num_threads(), load=os.getloadavg(), rows=rows)
    write_json(args.out or Path(__file__).parent / f"train_step_speed_{torch.device(args.device).type}.json", facts)


if __name__ == "__main__":
    main()
