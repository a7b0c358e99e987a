"""What curation costs in one process, in several, and on Ray, over the same 20 clips and multiples of them: where the crossover lies.

    python benchmarks/curate_executors.py --out benchmarks/curate_executors.json [--folder FOLDER]

Every executor runs once per round on every corpus, in turn, each in a process of its own: one clip of six frames (what starting
costs), the 20 clips once, and repeated. A repeated clip carries a padding box of its own at the end of the file, so that it is
another source with the same pictures. CPU seconds include all that was started (see `curate_measure.py`). Where the cores are
shared, wall times say little and CPU seconds are the figure; the load is recorded. The content hashes of a corpus must be equal,
or nothing is written.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from curate_measure import measured

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import VIDEO_SUFFIXES, write_video

EXECUTORS = ("process", "pool", "ray")
RUN = """
import json, sys, time
from pathlib import Path
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
start = time.perf_counter()
summary = curate(CurateConfig(input=sys.argv[1], out=Path(sys.argv[2]), executor=sys.argv[3], min_s=1.0, workers=int(sys.argv[4])))
print(json.dumps({"curate_s": time.perf_counter() - start, "clips": summary.clips, "content_hash": summary.content_hash}))
"""


def generate(folder: Path, clips: int, frames: int, height: int) -> list[Path]:
    """Videos of two shots each: drifting noise of large blobs, another seed per shot."""
    width, made = height * 16 // 9 // 2 * 2, []
    for seed in range(clips):
        shots = []
        for part in range(2):
            coarse = np.random.default_rng([seed, part]).integers(
                0, 256, (height // 12 + 1, width // 12 + 1, 3), dtype=np.uint8
            )
            picture = coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width]
            shots += [np.roll(picture, t, axis=1) for t in range(frames // 2)]
        made.append(write_video(folder / f"{seed:02d}.mp4", np.stack(shots), 24.0))
    return made


def repeat(files: list[Path], times: int, folder: Path) -> None:
    """Each file so many times, every copy with a `free` box of other content behind it."""
    folder.mkdir()
    for file in files:
        for copy in range(times):
            place = folder / f"{file.stem}_{copy}{file.suffix}"
            shutil.copyfile(file, place)
            if copy:
                with open(place, "ab") as out:
                    out.write((16).to_bytes(4, "big") + b"free" + copy.to_bytes(8, "big"))


def measure(videos: Path, executor: str, workers: int) -> dict:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", RUN, str(videos), str(Path(out) / "clips"), executor, str(workers)]
        run = measured(command)
        if run["returncode"]:
            raise SystemExit(f"{executor} failed:\n{run['error']}")
        return json.loads(run["out"].splitlines()[-1]) | run


def table(runs: list[dict]) -> list[dict]:
    """Medians per corpus and executor, and what a clip costs beyond starting."""
    rows: list[dict] = []
    for corpus, executor in dict.fromkeys((run["corpus"], run["executor"]) for run in runs):
        mine = [run for run in runs if (run["corpus"], run["executor"]) == (corpus, executor)]
        row = {
            "corpus": corpus,
            "executor": executor,
            "files": mine[0]["files"],
            "clips": mine[0]["clips"],
            "rounds": len(mine),
        }
        for name in ("wall_s", "cpu_s", "peak_mb", "peak_sum_mb"):
            row[name] = round(statistics.median(run[name] for run in mine), 2)
        start = next((other for other in rows if (other["corpus"], other["executor"]) == ("start", executor)), None)
        if start is not None:
            row["cpu_s_per_file"] = round((row["cpu_s"] - start["cpu_s"]) / row["files"], 3)
            row["wall_s_per_file"] = round((row["wall_s"] - start["wall_s"]) / row["files"], 3)
        rows.append(row)
    return rows


def crossover(rows: list[dict], other: str) -> float | None:
    """Number of files from which `other` is quicker than one process, by start-up and seconds per file of the largest corpus.

    None if it never is, by these figures.
    """
    start = {row["executor"]: row for row in rows if row["corpus"] == "start"}
    large = {row["executor"]: row for row in rows if row["corpus"] != "start"}
    if other not in large or "process" not in large:
        return None
    gained_s = large["process"]["wall_s_per_file"] - large[other]["wall_s_per_file"]
    lost_s = start[other]["wall_s"] - start["process"]["wall_s"]
    return round(max(lost_s, 0.0) / gained_s, 1) if gained_s > 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="take the first clips here instead of generated ones")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=240, help="of a generated clip")
    parser.add_argument("--height", type=int, default=360, help="of a generated clip")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--executors", nargs="+", default=EXECUTORS, choices=EXECUTORS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, runs = Path(folder), []
        (work / "made").mkdir()
        if args.folder:
            found = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)[: args.clips]
        else:
            found = generate(work / "made", args.clips, args.frames, args.height)
        (work / "start").mkdir()
        write_video(work / "start" / "a.mp4", np.zeros((6, 48, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[:, None], 24.0)
        corpora = {"start": 1} | {f"{times}x": times * len(found) for times in args.times}
        for times in args.times:
            repeat(found, times, work / f"{times}x")
        setting = {name: getattr(args, name) for name in ("clips", "frames", "height", "times", "rounds", "workers")}
        setting["folder"] = args.folder is not None
        for _ in range(args.rounds):
            for corpus, files in corpora.items():
                for executor in args.executors:
                    run = measure(work / corpus, executor, args.workers)
                    runs.append({"corpus": corpus, "executor": executor, "files": files, **run})
                    save(args.out, setting, runs)
    rows = table(runs)
    print("\n".join(f"{r['corpus']:<6} {r['executor']:<8} {r['wall_s']:>8} s wall {r['cpu_s']:>8} s CPU" for r in rows))


def save(out: Path, setting: dict, runs: list[dict]) -> None:
    hashes: dict[str, set[str]] = {}
    for run in runs:
        hashes.setdefault(run["corpus"], set()).add(run["content_hash"])
    if any(len(found) > 1 for found in hashes.values()):
        raise SystemExit(f"The executors disagree: {hashes}")
    rows, loads = table(runs), [run["load"] for run in runs]
    about = {
        "cores": len(os.sched_getaffinity(0)),
        "load": [min(loads), max(loads)],
        "content_hash": {corpus: found.copy().pop() for corpus, found in hashes.items()},
        "crossover_files": {name: crossover(rows, name) for name in ("pool", "ray")},
    }
    write_json(out, {"benchmark": "curate_executors", "setting": setting, **about, "rows": rows})


if __name__ == "__main__":
    main()
