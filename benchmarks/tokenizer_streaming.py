"""Long clips: memory of streaming, and what a bounded attention window or independent windows cost in quality.

    python benchmarks/tokenizer_streaming.py [--tokenizer nano-cv8x8x8] [--clips FOLDER]

Memory: decoding 33, 330 and 3 300 frames, and 720p, each in a process of its own. Quality (of a trained tokenizer, on every
video of FOLDER that is long enough): attention windows of several lengths against full attention, and clips of 17 or 49
frames each on its own, as the released code cuts them, against the stream. Writes benchmarks/tokenizer_streaming.json.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import worldfoundry as wf
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.core.video_io import read_video
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.chunks import decode_stream, decode_windows, encode_windows
from worldfoundry.tokenizers.config import NAMED

OFFICIAL = "Cosmos-Tokenize1-CV8x8x8-720p"
WINDOWS, FRAMES = (1, 2, 4, 7), (17, 49)
CASES = [
    {"model": "debug-cv8x8x8", "frames": frames, "height": 128, "width": 128, "dtype": "float32"} for frames in (33, 330, 3300)
] + [{"model": OFFICIAL, "frames": 9, "height": 720, "width": 1280, "dtype": dtype} for dtype in ("float32", "bfloat16")]


def memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024, 1)


@torch.inference_mode()
def decode_case(model: str, frames: int, height: int, width: int, dtype: str) -> dict[str, Any]:
    """Decode noise latents chunk by chunk and let every frame go."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(NAMED[model].to_dict()).eval().requires_grad_(False).to(getattr(torch, dtype))
    spec, before = tokenizer.spec, memory("VmRSS")
    latents = spec.latent_frames(spec.round_up_frames(frames))
    chunks = (torch.randn(1, spec.channels, 1, height // spec.h, width // spec.w) for _ in range(latents))
    start, decoded = time.perf_counter(), 0
    for video in decode_stream(tokenizer, chunks):
        decoded += video.shape[2]
    return {
        "decoded_frames": decoded,
        "loaded_mib": before,
        "peak_mib": memory("VmHWM"),
        "seconds": round(time.perf_counter() - start, 2),
    }


@torch.inference_mode()
def quality(tokenizer: Any, video_BCTHW: torch.Tensor) -> dict[str, dict[str, float]]:
    """Squared errors of one clip: with attention windows of several lengths, and cut into independent windows."""
    rows = {}
    length = tokenizer.spec.latent_frames(video_BCTHW.shape[2])
    for window in (*[w for w in WINDOWS if w < length], length):
        for module in tokenizer.modules():
            if hasattr(module, "window"):
                module.window = window
        name = "full attention" if window == length else f"attention window {window}"
        rows[name] = errors(tokenizer.decode(tokenizer.encode(video_BCTHW)), video_BCTHW, FRAMES)
    for frames in FRAMES:
        whole = video_BCTHW[:, :, : video_BCTHW.shape[2] // frames * frames]
        out = decode_windows(tokenizer, encode_windows(tokenizer, whole, frames))
        rows[f"independent clips of {frames}"] = errors(out, whole, (frames,))
    return rows


def errors(out_BCTHW: torch.Tensor, x_BCTHW: torch.Tensor, cuts: tuple[int, ...]) -> dict[str, float]:
    """Mean squared error, and mean squared error of the change from frame to frame, at joins every `cuts` frames and elsewhere."""
    error = (out_BCTHW.float() - x_BCTHW)[0]
    change = error.diff(dim=1).square().mean(dim=(0, 2, 3))
    joins = torch.tensor([any((t + 1) % cut == 0 for cut in cuts) for t in range(len(change))])
    return {
        "mse": float(error.square().mean()),
        "at_joins": float(change[joins].mean()),
        "inside": float(change[~joins].mean()),
    }


def pooled(clips: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Errors averaged over clips, in dB of the range 2."""
    rows = []
    for name in clips[0]:
        means = {key: statistics.mean(clip[name][key] for clip in clips) for key in clips[0][name]}
        rows.append({"variant": name, "n": len(clips)} | {f"{k}_psnr_db": decibels(v) for k, v in means.items()})
    return rows


def decibels(mse: float) -> float | None:
    """PSNR for values in [-1, 1]; None where nothing was averaged (a clip without joins)."""
    return None if math.isnan(mse) else round(-10 * math.log10(mse / 4), 2)


def long_clips(folder: Path, frames: int) -> Iterator[torch.Tensor]:
    for file in sorted(folder.rglob("*.mp4")):
        video = read_video(file).frames
        if len(video) >= frames:
            yield torch.from_numpy(video[:frames])[None].movedim(-1, 1).float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default="nano-cv8x8x8")
    parser.add_argument("--clips", type=Path, help="folder of videos; without it only memory is measured")
    parser.add_argument("--frames", type=int, default=97, help="frames of each clip: 1 + t·k")
    parser.add_argument("--case", type=json.loads, help="internal: one case in this process")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(decode_case(**args.case)))
        return
    rows = []
    for case in CASES:
        done = subprocess.run(
            [sys.executable, __file__, "--case", json.dumps(case)], check=True, capture_output=True, text=True
        )
        rows.append({**case, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    found: dict[str, Any] = {"streams": rows}
    if args.clips:
        tokenizer = wf.load(args.tokenizer)
        found["quality"] = pooled([quality(tokenizer, clip) for clip in long_clips(args.clips, args.frames)])
        found["tokenizer"], found["frames"] = args.tokenizer, args.frames
    facts = provenance(benchmark="tokenizer streaming", load_average=os.getloadavg()[0])
    write_json(Path(__file__).with_suffix(".json"), {**facts, **found})


if __name__ == "__main__":
    main()
