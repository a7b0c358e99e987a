"""Robustness of the invisible mark: bit errors, detection and false positives after re-encoding, resizing, cropping and cutting.

    python benchmarks/watermark.py FOLDER... --out benchmarks/watermark.json

Every mp4 of the folders is one clip: its first 33 frames at their own size (frames smaller than 64 pixels cannot be marked). The
same treatment without a mark gives the false positives.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from worldfoundry.core.devices import hardware
from worldfoundry.core.video_io import read_video, write_video
from worldfoundry.core.watermark import can_mark, mark, payload_bits, read, votes

FRAMES = 33


def coded(crf: int) -> Callable[[np.ndarray], np.ndarray]:
    def treat(frames: np.ndarray) -> np.ndarray:
        with TemporaryDirectory() as folder:
            return read_video(write_video(Path(folder) / "clip.mp4", frames, 12, crf=crf)).frames

    return treat


def resized(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def treat(frames: np.ndarray) -> np.ndarray:
        size = tuple(round(n * factor) for n in frames.shape[2:0:-1])
        return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])

    return treat


def cropped(frames: np.ndarray) -> np.ndarray:
    """A fifth of height and width cut off, unevenly."""
    height, width = frames.shape[1:3]
    y, x = height // 9, width // 7
    return np.ascontiguousarray(frames[:, y : y + height * 4 // 5, x : x + width * 4 // 5])


TREATMENTS: dict[str, list[Callable[[np.ndarray], np.ndarray]]] = {
    "none": [],
    "H.264 crf 18 (as saved)": [coded(18)],
    "crf 18, then crf 23": [coded(18), coded(23)],
    "crf 18, then crf 28": [coded(18), coded(28)],
    "crf 18, then crf 35": [coded(18), coded(35)],
    "crf 18, half size": [coded(18), resized(0.5)],
    "crf 18, 1.5 times the size": [coded(18), resized(1.5)],
    "crf 18, 0.9 times the size (not searched for)": [coded(18), resized(0.9)],
    "crf 18, cropped to 80 %": [coded(18), cropped],
    "crf 18, cropped to 80 %, crf 23": [coded(18), cropped, coded(23)],
    "crf 18, frames 10 to 25 only": [coded(18), lambda frames: frames[10:26]],
    "crf 18, every other frame (rate halved)": [coded(18), lambda frames: frames[::2]],
}


def measure(clips: dict[str, np.ndarray]) -> list[dict]:
    rows = []
    for name, steps in TREATMENTS.items():
        errors, hits, false_ids, seconds, at = [], 0, 0, 0.0, None
        for i, frames in enumerate(clips.values()):
            id = (0x9E3779B9 * (i + 1)) & 0xFFFFFFFF
            marked, plain = mark(frames, id), frames
            for step in steps:
                marked, plain = step(marked), step(plain)
            start = time.monotonic()
            found = read(marked)
            seconds += time.monotonic() - start
            hits += found.id == id
            if "times the size" not in name and "half" not in name:
                errors.append(float(np.mean((votes(marked)[1] > 0) != payload_bits(id).astype(bool))))
            false_ids += read(plain).id is not None
        n = len(clips)
        rows.append({
            "treatment": name, "n": n, "detected": hits, "detected_95": wilson(hits, n), "false_positives": false_ids,
            "false_positives_95": wilson(false_ids, n), "bit_error": round(float(np.mean(errors)), 4) if errors else at,
            "read_s": round(seconds / n, 3),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def wilson(hits: int, n: int, z: float = 1.96) -> list[float]:
    p, centre = hits / n, (hits / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)]


def cost(clips: dict[str, np.ndarray]) -> dict:
    psnr, milliseconds, grown = [], [], []
    for frames in clips.values():
        start = time.monotonic()
        marked = mark(frames, 1)
        milliseconds.append(1000 * (time.monotonic() - start) / len(frames))
        psnr.append(10 * np.log10(255**2 / np.mean((marked.astype(float) - frames) ** 2)))
        with TemporaryDirectory() as folder:
            sizes = [write_video(Path(folder) / "clip.mp4", f, 12).stat().st_size for f in (frames, marked)]
        grown.append(sizes[1] / sizes[0])
    return {
        "psnr_db": round(float(np.mean(psnr)), 2), "psnr_min_db": round(float(np.min(psnr)), 2),
        "mark_ms_per_frame": round(float(np.median(milliseconds)), 3), "file_size_ratio": round(float(np.mean(grown)), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-clips", type=int, default=16, help="of each folder, spread over it")
    parser.add_argument("--max-side", type=int, default=192, help="larger clips are cut to their middle")
    asked = parser.parse_args()
    chosen, clips = [], {}
    for folder in asked.folders:
        found = sorted(folder.rglob("*.mp4"))
        chosen += (
            [found[i * len(found) // asked.max_clips] for i in range(asked.max_clips)]
            if len(found) > asked.max_clips
            else found
        )
    for path in chosen:
        frames = read_video(path, max_frames=FRAMES).frames
        y, x = (max(0, (n - asked.max_side) // 2) for n in frames.shape[1:3])
        frames = np.ascontiguousarray(frames[:, y : y + asked.max_side, x : x + asked.max_side])
        if can_mark(frames):
            clips[f"{path.parent.name}/{path.stem}"] = frames
    sizes = sorted({f"{f.shape[2]}x{f.shape[1]}" for f in clips.values()})
    result = {"clips": len(clips), "sizes": sizes, "frames": FRAMES, "hardware": hardware(), "cost": cost(clips)}
    print(result)
    asked.out.write_text(json.dumps({**result, "rows": measure(clips)}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
