"""How well near-duplicates are found: copies of simulated clips, re-encoded, cropped, sped up, mirrored, written over, trimmed.

    python benchmarks/curate_dedup.py --out benchmarks/curate_dedup.json [--flights FOLDER]

The clips are the package's own episodes (one scene, one camera that stands still: only what moves tells them apart, the hard
case) and, with --flights, those of `worldfoundry simulate camera --episodes 12 --frames 96 --size 64 --out FOLDER`. A pair is
right if both are made from the same clip. Limits were tuned on clips with even numbers; the numbers are of those with odd ones.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import worldfoundry.data
from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import read_video, write_video
from worldfoundry.curation.scores.dedup import PerceptualLimits, perceptual_matches
from worldfoundry.curation.scores.signature import Signature, sample_times, signature

FPS = 12.0


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BOX)) for f in frames])


def coded(frames: np.ndarray, crf: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return read_video(write_video(Path(folder) / "a.mp4", frames, FPS, crf=crf)).frames


def overlaid(frames: np.ndarray) -> np.ndarray:
    made = []
    for frame in frames:
        picture = Image.fromarray(frame)
        draw, (width, height) = ImageDraw.Draw(picture), picture.size
        draw.text((4, height - 12), "subscribe", fill="white", font=ImageFont.load_default(9))
        draw.rectangle((width - 12, 2, width - 3, 8), fill=(200, 20, 20))
        made.append(np.asarray(picture))
    return np.stack(made)


def cropped(frames: np.ndarray, share: float) -> np.ndarray:
    cut = round(share * frames.shape[1])
    return frames[:, cut:-cut, cut:-cut]


def at_speed(frames: np.ndarray, speed: float) -> np.ndarray:
    return frames[np.minimum((np.arange(int(len(frames) / speed)) * speed).round().astype(int), len(frames) - 1)]


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "re-encode": lambda f: coded(resized(f, 48, 48), 35),
    "crop 4 %": lambda f: cropped(f, 0.04),
    "crop 8 %": lambda f: cropped(f, 0.08),
    "faster x1.5": lambda f: at_speed(f, 1.5),
    "slower x0.75": lambda f: at_speed(f, 0.75),
    "mirror": lambda f: f[:, :, ::-1],
    "overlay": overlaid,
    "trim to 60 %": lambda f: f[int(0.2 * len(f)) : int(0.8 * len(f))],
    "brighter": lambda f: np.clip(f * 1.15 + 12, 0, 255).astype(np.uint8),
    "mirror, faster, re-encode": lambda f: coded(at_speed(f[:, :, ::-1], 1.25), 32),
}


def of_clip(frames: np.ndarray) -> Signature:
    times = sample_times(len(frames) / FPS)
    return signature(resized(frames[np.minimum((times * FPS).astype(int), len(frames) - 1)], 18, 32))


def interval(hits: int, n: int) -> list[float]:
    """Wilson's interval at 95 %."""
    if n == 0:
        return [0.0, 1.0]
    p, z = hits / n, 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round(float((centre - half) / (1 + z * z / n)), 4), round(float((centre + half) / (1 + z * z / n)), 4)]


def measure(files: list[Path], limits: PerceptualLimits) -> dict:
    """Precision over all pairs found, recall per kind of copy against its original."""
    clips: dict[str, Signature] = {}
    for file in files:
        frames = read_video(file).frames
        for kind, change in {"original": lambda f: f, **COPIES}.items():
            clips[f"{file.parent.name}/{file.stem}|{kind}"] = of_clip(change(frames))
    started = time.process_time()
    matches = perceptual_matches(clips, limits)
    cpu_s = time.process_time() - started
    right = [m for m in matches if m.a.split("|")[0] == m.b.split("|")[0]]
    found = {frozenset((m.a, m.b)) for m in right}
    recall = {}
    for kind in COPIES:
        hits = sum(
            frozenset((f"{file.parent.name}/{file.stem}|original", f"{file.parent.name}/{file.stem}|{kind}")) in found
            for file in files
        )
        recall[kind] = {
            "found": hits,
            "n": len(files),
            "recall": round(hits / len(files), 4),
            "interval": interval(hits, len(files)),
        }
    pairs = len(list(combinations(clips, 2)))
    hits = sum(row["found"] for row in recall.values())
    return {
        "clips": len(clips),
        "pairs": pairs,
        "pairs_found": len(matches),
        "precision": round(len(right) / max(1, len(matches)), 4),
        "precision_interval": interval(len(right), len(matches)),
        "recall": round(hits / (len(files) * len(COPIES)), 4),
        "recall_interval": interval(hits, len(files) * len(COPIES)),
        "recall_by_kind": recall,
        "recall_of_equal_bytes": 0.0,
        "cpu_s_matching": round(cpu_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=24, help="of the package's sample footage")
    parser.add_argument("--flights", type=Path, help="a folder of `worldfoundry simulate camera`")
    parser.add_argument("--half", choices=["odd", "even"], default="odd", help="even: the clips that limits are tuned on")
    options = parser.parse_args()
    footage = sorted((Path(worldfoundry.data.__file__).parent / "sample_footage").glob("episode_*.mp4"))[: options.episodes]
    flights = sorted(options.flights.rglob("*.mp4")) if options.flights else []
    first = 1 if options.half == "odd" else 0
    limits = PerceptualLimits()
    result = {
        "benchmark": "curate_dedup",
        "half": options.half,
        "limits": vars(limits),
        "one scene": measure(footage[first::2], limits),
        **({"flights": measure(flights[first::2], limits)} if flights else {}),
        "machine": platform.platform(terse=True),
        "numpy": np.__version__,
    }
    write_json(options.out, result)
    print(json.dumps({k: v for k, v in result.items() if k != "machine"}, indent=1))


if __name__ == "__main__":
    main()
