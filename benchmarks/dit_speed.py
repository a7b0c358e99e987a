"""Speed of a 37 M diffusion transformer against diffusers' CosmosTransformer3DModel: same weights and process, interleaved.

    python benchmarks/dit_speed.py [--rounds 15] [--steps 35] [--sample-rounds 3] [--clock wall|cpu]

Writes benchmarks/dit_speed_cpu.json: the count of operations and bytes, milliseconds per forward (median, min, max) of the peer,
of ours and of a floor (nothing but prepacked oneDNN products and fused attention), ratios of each round, relative differences,
seconds per sample (guided; the peer's pipeline asks its network twice per step), milliseconds per training step of a 6 M network,
and the machine's measured rates. Run it on an otherwise idle machine with OMP_NUM_THREADS set to its cores. `--clock cpu` counts
processor time instead, which says something on a loaded machine with one thread only.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.diffusers import from_diffusers
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.parametrization import EDM, NetworkDenoiser
from worldfoundry.diffusion.samplers import sample_euler
from worldfoundry.diffusion.schedule import karras_sigmas

FIELDS = {
    "in_channels": 17, "out_channels": 16, "num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 8, "mlp_ratio": 4.0,
    "text_embed_dim": 384, "adaln_lora_dim": 64, "max_size": (32, 64, 64), "concat_padding_mask": False,
}  # fmt: skip
TRAINED = FIELDS | {"attention_head_dim": 32, "num_layers": 6, "mlp_ratio": 3.0, "adaln_lora_dim": 32}
GRIDS = {320: (5, 8, 8), 1280: (5, 16, 16)}
TEXT_ROWS, FPS, GUIDANCE = 64, 24, 7.0
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Run = Callable[[], Any]


def networks(fields: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The peer with seeded random weights, and ours with the same."""
    from diffusers import CosmosTransformer3DModel

    torch.manual_seed(0)
    peer = CosmosTransformer3DModel(**fields).eval()
    return peer, from_diffusers(peer.state_dict(), dict(peer.config)).eval()


def inputs(tokens: int, dtype: torch.dtype, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, context and condition mask."""
    t, h, w = GRIDS.get(tokens) or (5, 4, tokens // 20)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 16, t, 2 * h, 2 * w, generator=generator)
    context = torch.randn(batch, TEXT_ROWS, 384, generator=generator)
    return x.to(dtype), context.to(dtype), torch.zeros(batch, 1, t, 2 * h, 2 * w, dtype=dtype)


def count(config: DiTConfig, tokens: int, bytes_each: int) -> dict[str, float]:
    """GFLOP of a forward by part, and MB of weights read and of tokens written and read between products (at least)."""
    D, n = config.model_channels, config.num_blocks
    hidden = int(D * config.mlp_ratio)
    linear = n * 2 * tokens * (6 * D * D + 2 * D * hidden)
    weights = n * (6 * D * D + 2 * D * hidden + 2 * D * config.crossattn_emb_channels + 12 * D * config.adaln_lora_dim)
    passes = n * tokens * (3 * 5 * D + 9 * D + 2 * hidden)  # norms, gated sums, q k v with their rotation, the hidden layer
    return {
        "linear_gflop": round(linear / 1e9, 2),
        "self_attention_gflop": round(n * 4 * tokens**2 * D / 1e9, 2),
        "cross_attention_gflop": round(n * 4 * tokens * TEXT_ROWS * D / 1e9, 2),
        "constant_per_sample_gflop": round(n * 4 * TEXT_ROWS * D * config.crossattn_emb_channels / 1e9, 2),
        "weights_mb": round(weights * bytes_each / 1e6, 1),
        "tokens_mb": round(2 * passes * bytes_each / 1e6, 1),
    }


def floor(config: DiTConfig, tokens: int, dtype: torch.dtype) -> Run:
    """The blocks' products and attention alone, with stock kernels: no norm, modulation, rotation, activation or sum."""
    D, h = config.model_channels, config.num_heads
    hidden = int(D * config.mlp_ratio)

    def linear(n_in: int, n_out: int) -> Callable[[Tensor], Tensor]:
        weight = torch.ops.mkldnn._reorder_linear_weight((torch.randn(n_out, n_in) * n_in**-0.5).to(dtype))
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    shapes = ((D, 3 * D), (D, D), (D, D), (D, D), (D, hidden), (hidden, D))
    blocks = [[linear(*shape) for shape in shapes] for _ in range(config.num_blocks)]
    x_BLD = torch.randn(1, tokens, D).to(dtype)
    k, v = torch.randn(2, 1, h, TEXT_ROWS, D // h).to(dtype)

    def run() -> Tensor:
        x = x_BLD
        for qkv, out, to_q, out_2, up, down in blocks:
            heads = qkv(x).unflatten(-1, (3, h, -1)).permute(2, 0, 3, 1, 4)
            x = out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
            q = to_q(x).unflatten(-1, (h, -1)).transpose(1, 2)
            x = down(up(out_2(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))))
        return x

    return run


def forwards(peer: nn.Module, ours: Any, tokens: int, dtype: torch.dtype) -> dict[str, Run]:
    x, context, mask = inputs(tokens, dtype)
    c_noise, fps, memo = torch.tensor([0.3]), torch.tensor([float(FPS)]), {}

    def our(memo: dict | None) -> Tensor:
        return ours(x, c_noise, context, fps_B=fps, condition_mask_B1THW=mask, memo=memo)

    return {
        "peer": lambda: peer(torch.cat([x, mask], 1), c_noise, context, fps=FPS, return_dict=False)[0],
        "ours": lambda: our(memo),
        "ours, nothing kept": lambda: our(None),
        "floor": floor(ours.config, tokens, dtype),
    }


def samples(peer: nn.Module, ours: Any, tokens: int, dtype: torch.dtype, steps: int) -> dict[str, Run]:
    """A guided sample: the peer as its pipelines do (two passes a step), ours as `guided` does (one pass of two)."""
    x, context, mask = inputs(tokens, dtype)
    sigmas, edm, fps = karras_sigmas(steps), EDM(), torch.tensor([float(FPS)])
    condition = Condition(context_BLD=context, fps_B=fps)
    noise = x.float() * 80

    def ask_peer(x: Tensor, sigma_B: Tensor) -> Tensor:
        x_in = torch.cat([(x * edm.c_in(sigma_B).view(-1, 1, 1, 1, 1)).to(dtype), mask], 1)
        cond, uncond = (
            peer(x_in, edm.c_noise(sigma_B), rows, fps=FPS, return_dict=False)[0].float() for rows in (context, 0 * context)
        )
        return edm.denoise(cond + GUIDANCE * (cond - uncond), x, sigma_B)

    def ask_ours() -> Tensor:
        return sample_euler(guided(NetworkDenoiser(ours), condition, condition.unconditional(), GUIDANCE), noise, sigmas)

    return {"peer": lambda: sample_euler(ask_peer, noise, sigmas), "ours": ask_ours}


def training_steps(tokens: int, batch: int = 16) -> dict[str, Run]:
    """Forward and backward in bfloat16 autocast, as the recipes train."""
    peer, ours = (net.requires_grad_() for net in networks(TRAINED))
    x, context, mask = inputs(tokens, torch.float32, batch)
    c_noise = torch.linspace(-1, 1, batch)

    def step(forward: Run, net: nn.Module) -> None:
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = forward()
        out.float().square().mean().backward()

    def peer_forward() -> Tensor:
        return peer(torch.cat([x, mask], 1), c_noise, context, fps=FPS, return_dict=False)[0]

    def our_forward() -> Tensor:
        return ours(x, c_noise, context, fps_B=torch.tensor([float(FPS)]), condition_mask_B1THW=mask)

    return {"peer": lambda: step(peer_forward, peer), "ours": lambda: step(our_forward, ours)}


def race(runs: dict[str, Run], rounds: int, clock: Callable[[], float], warm: int = 4) -> dict[str, Any]:
    """Milliseconds of each, one after the other in every round, and the peer's over them, round by round."""
    for _ in range(warm):
        outputs = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(1e3 * (clock() - start))
    rows: dict[str, Any] = {}
    for name, mine in times.items():
        rows[name] = {"ms": spread(mine), "ratio": spread([a / b for a, b in zip(times["peer"], mine, strict=True)])}
        rows[name]["ratio"]["of_least"] = round(min(times["peer"]) / min(mine), 3)
        expected, out = outputs["peer"], outputs[name]
        if expected is not None and name != "floor":
            rows[name]["relative_difference"] = float(
                (out.float() - expected.float()).abs().max() / expected.float().abs().max()
            )
    return rows


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def rates(dtype: torch.dtype) -> dict[str, float]:
    """GFLOP/s of a 2 048² product and of the fused attention over 1 280 tokens, GB/s of a 256 MB copy; best of ten."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    q = torch.randn(1, 8, 1280, 64).to(dtype)
    source = torch.zeros(256 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)

    def best(run: Run) -> float:
        return min(_seconds(run) for _ in range(10))

    return {
        "matrix_gflops": round(2 * 2048**3 / best(lambda: a @ b) / 1e9, 1),
        "attention_gflops": round(4 * 1280**2 * 512 / best(lambda: F.scaled_dot_product_attention(q, q, q)) / 1e9, 1),
        "copy_gbytes": round(2 * source.nbytes / best(lambda: target.copy_(source)) / 1e9, 1),
    }


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--sample-rounds", type=int, default=3, help="0 leaves the samples out")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    load, clock = os.getloadavg()[0], CLOCKS[args.clock]
    found: dict[str, Any] = {"forward": {}, "sample": {}, "training_step": {}}
    peer, ours = (net.requires_grad_(False) for net in networks(FIELDS))
    found["parameters"] = sum(p.numel() for p in ours.parameters())
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype)[6:]
            peer, ours = peer.to(dtype), ours.to(dtype)
            found[f"rates {name}"] = rates(dtype)
            for tokens in GRIDS:
                key = f"{name} {tokens}"
                rows = race(forwards(peer, ours, tokens, dtype), args.rounds, clock)
                found["forward"][key] = {"count": count(ours.config, tokens, dtype.itemsize), **rows}
                print(key, json.dumps(rows), flush=True)
            if args.sample_rounds:
                runs = samples(peer, ours, 320, dtype, args.steps)
                found["sample"][name] = race(runs, args.sample_rounds, clock, warm=1)
    for tokens in (80, 320):
        found["training_step"][str(tokens)] = race(training_steps(tokens), max(args.rounds // 3, 3), clock, warm=1)
    facts = provenance(
        benchmark="dit speed", rounds=args.rounds, steps=args.steps, clock=args.clock, load_average=load,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    write_json(Path(__file__).with_name("dit_speed_cpu.json"), {**facts, **found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
