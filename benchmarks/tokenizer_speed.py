"""Speed and memory of the 105 M video tokenizer against diffusers' AutoencoderKLCosmos: same weights and process, interleaved.

    python benchmarks/tokenizer_speed.py [--device cuda] [--frames 9] [--size 128] [--rounds 9]

Writes benchmarks/tokenizer_speed_<device>.json: seconds (median, min, max), ratios of each round, operations, the machine's
measured matrix rate, relative difference and PSNR between the outputs, and the peak memory of each in a process of its own.
Run it on an otherwise idle machine; the load average is recorded.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.diffusers import from_diffusers

VARIANTS = ("peer float32", "ours float32", "ours bfloat16", "peer bfloat16")
Network = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def build(variant: str, device: str) -> Network:
    """(encode, decode) of one variant; the weights follow from a fixed seed."""
    from diffusers import AutoencoderKLCosmos

    torch.manual_seed(0)
    peer = AutoencoderKLCosmos().eval().requires_grad_(False)
    dtype = getattr(torch, variant.split()[1])
    if variant.startswith("peer"):
        peer = peer.to(device, dtype)
        return (lambda x: peer.encode(x.to(dtype)).latent_dist.mode()), (lambda z: peer.decode(z.to(dtype)).sample)
    ours = from_diffusers(peer.state_dict(), dict(peer.config)).eval().requires_grad_(False).to(device, dtype)
    return ours.encode, ours.decode


def build_alone(variant: str, device: str) -> Network:
    """The same without the peer's weights passing through this process."""
    if variant.startswith("peer"):
        return build(variant, device)
    torch.manual_seed(0)
    ours = build_tokenizer(NAMED["Cosmos-Tokenize1-CV8x8x8-720p"].to_dict()).eval().requires_grad_(False)
    ours = ours.to(device, getattr(torch, variant.split()[1]))
    return ours.encode, ours.decode


def video(frames: int, size: int, device: str) -> Tensor:
    return (torch.rand(1, 3, frames, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(device)


def seconds(run: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_rate(dtype: torch.dtype, device: str, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product, best of ten."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, device) for _ in range(10))
    return round(2 * side**3 / best / 1e9, 1)


def operations(network: Network, x: Tensor, z: Tensor) -> dict[str, float]:
    """GFLOP of the peer's encode and decode, as torch counts them."""
    found = {}
    for name, run, value in (("encode", network[0], x), ("decode", network[1], z)):
        with FlopCounterMode(display=False) as counter:
            run(value)
        found[name] = round(counter.get_total_flops() / 1e9, 2)
    return found


@torch.inference_mode()
def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Time every variant that runs here, one after the other in each round."""
    x = video(args.frames, args.size, args.device)
    networks, failed = {}, {}
    for variant in VARIANTS:
        network = build(variant, args.device)
        try:
            network[1](network[0](x))
            networks[variant] = network
        except RuntimeError as error:
            failed[variant] = str(error).splitlines()[0]
    z = networks["peer float32"][0](x)
    y = networks["peer float32"][1](z)
    times: dict[str, dict[str, list[float]]] = {v: {"encode": [], "decode": []} for v in networks}
    for _ in range(args.rounds):
        for variant, (encode, decode) in networks.items():
            times[variant]["encode"].append(seconds(lambda encode=encode: encode(x), args.device))
            times[variant]["decode"].append(seconds(lambda decode=decode: decode(z), args.device))
    rows = {v: row(v, networks[v], times[v], times["peer float32"], (x, z, y)) for v in networks}
    return {"rows": rows, "does_not_run": failed, "peer_gflop": operations(networks["peer float32"], x, z)}


def row(
    variant: str, network: Network, mine: dict[str, list[float]], peer: dict[str, list[float]], truth: Any
) -> dict[str, Any]:
    """One variant: times, ratios against the peer in float32 round by round, and how its output differs."""
    x, z, y = truth
    out = {}
    for verb in ("encode", "decode"):
        ratios = [theirs / ours for theirs, ours in zip(peer[verb], mine[verb], strict=True)]
        out[verb] = {"seconds": spread(mine[verb]), "ratio": spread(ratios)}
    error = network[1](z).float() - y
    out["relative_difference"] = float((error.abs().max() / y.abs().max()).cpu())
    latent_error = network[0](x).float() - z
    out["relative_difference_of_latents"] = float((latent_error.abs().max() / z.abs().max()).cpu())
    mse, peak = float(error.square().mean()), float(y.max() - y.min())
    out["psnr_db"] = round(10 * math.log10(peak**2 / mse), 2) if mse else None
    return out


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def peak_memory(variant: str, device: str, frames: int, size: int) -> dict[str, float]:
    """MiB at the peak of one encode and decode in a process of its own; on a CPU the weights' share stands beside it."""
    command = [sys.executable, __file__, "--memory", variant, "--device", device, "--frames", str(frames), "--size", str(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


@torch.inference_mode()
def print_memory(args: argparse.Namespace) -> None:
    x = video(args.frames, args.size, args.device)
    encode, decode = build_alone(args.memory, args.device)
    if args.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        decode(encode(x))
        peak = torch.cuda.max_memory_allocated()
    else:
        before = status_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        decode(encode(x))
        peak = status_bytes("VmHWM")
    print(json.dumps({"loaded_mib": round(before / 2**20), "peak_mib": round(peak / 2**20)}))


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", choices=VARIANTS)
    args = parser.parse_args()
    if args.memory:
        print_memory(args)
        return
    load = os.getloadavg()[0]
    found = compare(args)
    found["matrix_gflops"] = {str(d)[6:]: matrix_rate(d, args.device) for d in (torch.float32, torch.bfloat16)}
    ran = [variant for variant in VARIANTS if variant in found["rows"]]
    shapes = ((args.frames, args.size), (33, 256), (17, 512))
    found["memory"] = {
        f"{frames}x{size}x{size}": {v: peak_memory(v, args.device, frames, size) for v in ran} for frames, size in shapes
    }
    facts = provenance(benchmark="tokenizer speed", frames=args.frames, size=args.size, rounds=args.rounds, load_average=load)
    target = Path(__file__).with_name(f"tokenizer_speed_{args.device}.json")
    write_json(target, {**facts, **found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
