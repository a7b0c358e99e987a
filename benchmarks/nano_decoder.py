"""What a diffusion decoder gains over the tokenizer's own decoder: true tokens of held-out clips, decoded both ways.

    python benchmarks/nano_decoder.py DOMAIN… --decoder nano-decoder --clips 12 --out benchmarks/nano_decoder.json [--sheets FOLDER]

A DOMAIN is a clip dataset that no training saw; its first 33 frames per clip are encoded to tokens and to latents. Candidates: the
discrete tokenizer's decoder, the diffusion decoder in several numbers of steps, and the continuous tokenizer's reconstruction,
which a decoder that drew its true latents would reach. PSNR and SSIM over all frames, the perceptual distance over every eighth;
95 % bootstrap intervals over sources, and of the difference to the discrete tokenizer's decoder on the same resamples. Times are
medians of one clip alone.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import worldfoundry as wf
from worldfoundry.core.devices import hardware
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import machine
from worldfoundry.data.clips import ClipDataset
from worldfoundry.evaluation.bootstrap import ClipSums, interval, paired_difference, resampling_weights, source_indices
from worldfoundry.evaluation.catalogue import HED_NAME, choose_metrics
from worldfoundry.evaluation.distributions import DistributionMetric
from worldfoundry.inference.decoding import decode_whole
from worldfoundry.inference.token_decoder import TokenDecoder

FRAMES, STRIDE = 33, {"psnr": 1, "ssim": 1, HED_NAME: 8}
OWN, CEILING = "tokenizer's own decoder", "continuous tokenizer (ceiling)"


def read(folder: Path, count: int) -> tuple[np.ndarray, list[str], float]:
    """Up to `count` clips, spread evenly: uint8 [N, T, H, W, 3], their sources, frames per second."""
    dataset = ClipDataset(folder)
    long = [record for record in dataset.records if record.num_frames >= FRAMES]
    chosen = [long[i] for i in np.unique(np.linspace(0, len(long) - 1, min(count, len(long))).round().astype(int))]
    frames = np.stack([dataset.video(record, 0, FRAMES) for record in chosen])
    return frames, [record.source_id for record in chosen], chosen[0].fps


def candidates(decoder: TokenDecoder, steps: list[int], fps: float) -> dict[str, Callable[[torch.Tensor, int], np.ndarray]]:
    """Name → (video [1, 3, T, H, W] in [-1, 1], seed) → uint8 [1, T, H, W, 3], with the time of what follows the tokens."""

    def own(video: torch.Tensor, seed: int) -> np.ndarray:
        tokens = decoder.tokens.encode_indices(video)
        return timed(
            OWN, lambda: decode_whole(decoder.tokens, decoder.tokens.quantizer.indices_to_codes(tokens, decoder.tokens.dtype))
        )

    def ceiling(video: torch.Tensor, seed: int) -> np.ndarray:
        z = decoder.latents.encode(video)
        return timed(CEILING, lambda: decode_whole(decoder.latents, z))

    def diffusion(count: int, video: torch.Tensor, seed: int) -> np.ndarray:
        tokens, generator = decoder.tokens.encode_indices(video), torch.Generator().manual_seed(seed)
        name = label(count)
        return timed(name, lambda: decoder.decode(tokens, fps=fps, generators=[generator], num_inference_steps=count))

    made: dict[str, Callable[[torch.Tensor, int], np.ndarray]] = {OWN: own}
    made |= {label(count): lambda v, s, n=count: diffusion(n, v, s) for count in steps}
    return {**made, CEILING: ceiling}


def label(steps: int) -> str:
    return f"diffusion decoder, {steps} step{'s' if steps > 1 else ''}"


TIMES: dict[str, list[float]] = {}


def timed(name: str, call: Callable[[], np.ndarray]) -> np.ndarray:
    start = time.perf_counter()
    result = call()
    TIMES.setdefault(name, []).append(time.perf_counter() - start)
    return result


@torch.inference_mode()
def measure(decoder: TokenDecoder, domains: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    chosen = choose_metrics(list(STRIDE), applicable=[], clips=options.clips, fetch=True).metrics
    metrics = {metric.name: metric for metric in chosen if not isinstance(metric, DistributionMetric)}
    sums: dict[str, dict[str, dict[str, list[ClipSums]]]] = {}
    sources: dict[str, list[str]] = {}
    for domain in domains:
        frames, sources[domain.name], fps = read(domain, options.clips)
        sums[domain.name] = {}
        for number, true in enumerate(frames):
            video = torch.from_numpy(true).movedim(-1, 0)[None].float() / 127.5 - 1
            shown = [true]
            for name, make in candidates(decoder, options.steps, fps).items():
                made = make(video, number)[0]
                shown.append(made)
                for metric, stride in STRIDE.items():
                    found = metrics[metric].sums(true[None, ::stride], made[None, ::stride], 0).clips()
                    sums[domain.name].setdefault(metric, {}).setdefault(name, []).append(found)
            if options.sheets and number < options.show:
                sheet(options.sheets / f"{domain.name}-{number}.png", shown)
            print(domain.name, number, flush=True)
    return {"domains": {name: table(sums[name], sources[name]) for name in sums}, "all": table(*pooled(sums, sources))}


@torch.inference_mode()
def measure_joins(decoder: TokenDecoder, domain: Path, count: int) -> dict[str, Any] | None:
    """Clips of two chunks and more: is a join seen, and are later chunks worse than the first? None where clips are too short.

    `change_at_join`: mean absolute difference of neighbouring frames where a chunk takes over, over that at other borders of
    latent frames, which are seen too; 1 means like any other border.
    """
    config, t = decoder.config, decoder.latents.spec.t
    border = 1 + (config.chunk_frames - 1) * t  # the first frame that the first chunk does not make
    long = [record for record in ClipDataset(domain).records if record.num_frames >= border + t][:count]
    changes, psnr = [], []
    for record in long:
        true = ClipDataset(domain).video(record, 0, 1 + (record.num_frames - 1) // t * t)
        tokens = decoder.tokens.encode_indices(torch.from_numpy(true).movedim(-1, 0)[None].float() / 127.5 - 1)
        made = decoder.decode(tokens, fps=record.fps, generators=[torch.Generator().manual_seed(0)])[0].astype(np.float32)
        error_F = ((made - true) ** 2).mean(axis=(1, 2, 3))
        psnr.append([10 * np.log10(255**2 / part.mean()) for part in (error_F[:border], error_F[border:])])
        change_F = np.abs(np.diff(made, axis=0)).mean(axis=(1, 2, 3))  # [i] is between i and i + 1
        joins = range(border - 1, len(change_F), t * (config.chunk_frames - config.overlap_frames))
        others = [i for i in range(0, len(change_F), t) if i not in joins]
        changes.append(change_F[list(joins)].mean() / change_F[others].mean())
    if not long:
        return None
    first, later = np.mean(psnr, axis=0)
    return {
        "clips": len(long),
        "change_at_join": float(np.mean(changes)),
        "psnr_first": float(first),
        "psnr_later": float(later),
    }


def pooled(sums: dict[str, Any], sources: dict[str, list[str]]) -> tuple[dict[str, Any], list[str]]:
    """All domains as one, every source under its domain's name."""
    joined: dict[str, dict[str, list[ClipSums]]] = {}
    for found in sums.values():
        for metric, by_name in found.items():
            for name, parts in by_name.items():
                joined.setdefault(metric, {}).setdefault(name, []).extend(parts)
    return joined, [f"{name}/{source}" for name, of_domain in sources.items() for source in of_domain]


def table(sums: dict[str, dict[str, list[ClipSums]]], sources: list[str]) -> dict[str, Any]:
    source_N = source_indices(sources, len(sources))
    weights_RG, rows = resampling_weights(int(source_N.max()) + 1, 1000, 0), []
    for metric, by_name in sums.items():
        joined = {name: join(parts).by_source(source_N) for name, parts in by_name.items()}
        for name, own in joined.items():
            low, high = interval(own, weights_RG)
            difference = paired_difference(own, joined[OWN], weights_RG)
            rows.append({
                "candidate": name, "metric": metric, "value": own.value(), "low": low, "high": high,
                "minus_own": difference[0], "minus_own_low": difference[1], "minus_own_high": difference[2],
            })  # fmt: skip
    return {"clips": len(sources), "sources": int(source_N.max()) + 1, "rows": rows}


def join(parts: list[ClipSums]) -> ClipSums:
    total, count = (np.concatenate([getattr(part, field) for part in parts]) for field in ("total_N", "count_N"))
    return ClipSums(total_N=total, count_N=count, decibel=parts[0].decibel)


def sheet(path: Path, videos: list[np.ndarray]) -> None:
    """One row per video, the true one first; every sixth frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.concatenate(list(video[2::6]), axis=1) for video in videos]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domains", type=Path, nargs="+")
    parser.add_argument("--decoder", default="nano-decoder")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 4, 2, 1])
    parser.add_argument("--clips", type=int, default=12, help="of each domain")
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--show", type=int, default=2, help="pictures per domain")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    decoder = wf.load(options.decoder)
    found = measure(decoder, options.domains, options)
    joins = {domain.name: measure_joins(decoder, domain, options.clips) for domain in options.domains}
    seconds = {name: float(np.median(times)) for name, times in TIMES.items()}
    write_json(options.out, {
        "what": "tokens of held-out clips, decoded", "decoder": options.decoder, "frames": FRAMES, "strides": STRIDE,
        "dtype": str(decoder.network.patch_embed.weight.dtype), "hardware": machine(hardware()), "threads": torch.get_num_threads(),
        "seconds_per_clip": seconds, "joins": joins, **found,
    })  # fmt: skip


if __name__ == "__main__":
    main()
