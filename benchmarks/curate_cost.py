"""What curation without captions costs per minute of video, beside the operators of Data-Juicer that stand for its stages.

    python -m venv /tmp/data-juicer
    /tmp/data-juicer/bin/pip install -c constraints/cpu.txt py-data-juicer aiohttp torch opencv-python-headless scenedetect-headless \
        av==13.1.0 imageio-ffmpeg easyocr      # and ffprobe in its bin (npm's ffprobe-static has one)
    python benchmarks/curate_cost.py FOLDER --out benchmarks/curate_cost.json --rival /tmp/data-juicer

Both read the same files, one process at a time and one thread each where that can be asked for. The figure is CPU seconds with all
children; resident sizes are sampled. Data-Juicer runs as its users run it (`dj-process` with a recipe, one worker); what its framework
costs on one quick operator and one file is measured by itself.

The same job means: its scene split encodes only files in which it finds a cut and hands on the others as they are. So ours copies the
packets of a file without a cut, cuts no borders, and leaves the network out. "Without encoding" is the same recipe with a threshold of
the scene detector that nothing reaches (it looks at every frame, and encodes none), and for ours a selection that keeps no clip.
--rival-files gives both sides fewer files in this comparison.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from curate_measure import measured

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import VIDEO_SUFFIXES, probe_video
from worldfoundry.curation.tables import read_table

ENCODING = ("encode", "captions")  # stages after the selection
CURATE = """
import json, sys
from pathlib import Path
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
summary = curate(CurateConfig.from_dict({"input": sys.argv[1], "out": Path(sys.argv[2]), **json.loads(sys.argv[3])}))
print(json.dumps({"clips": summary.clips, "content_hash": summary.content_hash, "quarantined": summary.quarantined}))
"""
VERSIONS = """
import imageio_ffmpeg, importlib.metadata, json
names = "py-data-juicer scenedetect-headless opencv-python-headless av imageio-ffmpeg torch datasets easyocr".split()
print(json.dumps({**{n: importlib.metadata.version(n) for n in names}, "ffmpeg": imageio_ffmpeg.get_ffmpeg_exe()}))
"""
# Data-Juicer's operators, with what they stand for. Parameters not named are its defaults.
SPLIT = "video_split_by_scene_mapper"
OPERATORS = {
    SPLIT: {"stands for": "shots, plan, encode", "save_dir": "SAVE"},
    "video_duration_filter": {"stands for": "probe, select (--min-s, --max-s)", "min_duration": 2, "max_duration": 60},
    "video_resolution_filter": {"stands for": "probe, select (--where)", "min_width": 16, "min_height": 16},
    "video_motion_score_filter": {"stands for": "motion, camera_path, movement", "min_score": 0.0, "sampling_fps": 2},
    "video_deduplicator": {"stands for": "fingerprint (equal bytes)"},
}
NOTHING_FOUND = {"threshold": 1e9}  # of video_split_by_scene_mapper: all the looking, none of the encoding
SAME_JOB = {"copy_gop": 100_000, "encode": {"crop": "off"}, "shots": {"network": "off"}}
NOTHING_KEPT = {"min_motion": 1e9}
LEFT_OUT = [
    "aesthetics, NSFW, watermark, tagging: their models cannot be had here, and no stage of ours is on by default for them",
    "text: EasyOCR fails on torchvision here, so neither side looks for it",
]
OURS_ALONE = [
    "camera motion type",
    "focus, noise, exposure",
    "borders",
    "check of every clip written",
    "thumbnails",
    "shards, tables, report",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--files", nargs="*", default=[], help="names within the folder; all videos by default")
    parser.add_argument("--rival", type=Path, help="the environment that Data-Juicer is installed in")
    parser.add_argument("--rival-files", nargs="*", default=[], help="names for the comparison; as --files by default")
    parser.add_argument("--only", choices=["ours", "rival"], help="run one part and keep the other of an earlier run")
    options = parser.parse_args()
    names = options.files or sorted(p.name for p in options.folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    before = json.loads(options.out.read_text()) if options.out.is_file() else {}
    result = {
        "benchmark": "curate_cost",
        **footage([options.folder / name for name in names]),
        "machine": f"{platform.platform(terse=True)}, {len(os.sched_getaffinity(0))} cores",
        "worldfoundry": before.get("worldfoundry"),
        "same_job": before.get("same_job"),
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.only != "rival":
            result["worldfoundry"] = ours(work / "all", [options.folder / name for name in names], {})
            write_json(options.out, result)
        if options.rival and options.only != "ours":
            files = [(options.folder / name).resolve() for name in options.rival_files or names]
            result["same_job"] = {}
            for name, part in same_job(work, files, options.rival.resolve()):
                result["same_job"][name] = part
                write_json(options.out, result)
    print(json.dumps(result, indent=1))


def footage(files: list[Path]) -> dict:
    infos = [probe_video(file) for file in files]
    seconds = sum(info.duration_s for info in infos)
    megapixels = sum(info.width * info.height * info.fps * info.duration_s for info in infos) / 1e6
    return {
        "files": [file.name for file in files],
        "minutes_of_video": round(seconds / 60, 4),
        "megapixels_per_s": round(megapixels / seconds, 3),
    }


def same_job(work: Path, files: list[Path], home: Path) -> Iterator[tuple[str, Any]]:
    """Both sides with and without encoding, and how often ours is contained in theirs."""
    yield "footage", footage(files)
    yield "ours, beyond the defaults", SAME_JOB
    ran = {}
    for name, parameters in {"encoding": SAME_JOB, "no_encoding": SAME_JOB | NOTHING_KEPT}.items():
        ran["ours", name] = ours(work / name, files, parameters)
        yield f"ours_{name}", ran["ours", name]
    for name, part in rival(work, files, footage(files)["minutes_of_video"], home):
        ran["theirs", name] = part
        yield f"data_juicer_{name}", part
    for name in ("encoding", "no_encoding"):
        if "error" not in ran["theirs", name]:
            yield f"ratio_{name}", round(ran["theirs", name]["cpu_s"] / ran["ours", name]["cpu_s"], 2)


def ours(work: Path, files: list[Path], parameters: dict) -> dict:
    """A run from nothing; per stage what the events say, and in "other" what no stage accounts for (start-up, shards, tables)."""
    (work / "in").mkdir(parents=True)
    for file in files:
        (work / "in" / file.name).symlink_to(file.resolve())
    command = [sys.executable, "-c", CURATE, str(work / "in"), str(work / "clips"), json.dumps(parameters)]
    run = measured(command, env=one_thread())
    if run["returncode"]:
        raise SystemExit(run["error"])
    tables = work / "clips" / "tables"
    events, sources, clips = (read_table(tables, name) for name in ("events", "sources", "clips"))
    stages: dict[str, dict] = defaultdict(lambda: {"cpu_s": 0.0, "decoded_frames": 0})
    for event in events:
        stages[event["stage"]]["cpu_s"] += event["cpu_s"]
        stages[event["stage"]]["decoded_frames"] += event["decoded_frames"]
    frames = sum(
        probe_video(file).num_frames for file in files
    )  # of files without a kept clip, too: they are no rows of sources
    decoded = sum(stage["decoded_frames"] for name, stage in stages.items() if name not in ENCODING)
    return {
        **per_minute(run, footage(files)["minutes_of_video"]),
        **json.loads(run["out"].splitlines()[-1]),
        "stages_cpu_s": {name: round(stage["cpu_s"], 3) for name, stage in stages.items()},
        "other_cpu_s": round(run["cpu_s"] - sum(stage["cpu_s"] for stage in stages.values()), 2),
        "encode_cpu_s": round(sum(stage["cpu_s"] for name, stage in stages.items() if name in ENCODING), 2),
        "source_frames": frames,
        "decoded_before_encode": decoded,
        "decoded_over_source_frames": round(decoded / frames, 4),
        "decoded_to_encode": sum(stages[name]["decoded_frames"] for name in ENCODING if name in stages),
        "clips_by_encoding": dict(Counter(row["encoding"] for row in clips)),
        "encoded_s": round(sum(row["duration_s"] for row in clips if row["encoding"] == "x264"), 3),
        "size": {
            "rows": {path.stem: len(read_table(tables, path.stem)) for path in sorted(tables.glob("*.parquet"))},
            "bytes_per_row": {path.stem: bytes_per_row(path) for path in sorted(tables.glob("*.parquet"))},
            "clip_s": round(sum(row["duration_s"] for row in clips), 3),
            "source_bytes": sum(row["bytes"] for row in sources),
            "shard_bytes": sum(path.stat().st_size for path in (work / "clips" / "shards").rglob("*.tar")),
            "work_bytes": sum(path.stat().st_size for path in (work / "clips" / "work").rglob("*") if path.is_file()),
        },
    }


def bytes_per_row(path: Path) -> float:
    """Uncompressed, so that many rows take less."""
    table = pq.read_table(path)
    return round(table.nbytes / max(1, len(table)), 1)


def per_minute(run: dict, minutes: float) -> dict:
    figures = {name: run[name] for name in ("wall_s", "cpu_s", "peak_mb", "peak_sum_mb", "load")}
    return {"cpu_s_per_minute": round(run["cpu_s"] / minutes, 2), **figures}


def one_thread() -> dict[str, str]:
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    return {**os.environ, **dict.fromkeys(threads, "1"), "OMP_WAIT_POLICY": "PASSIVE"}


# --- Data-Juicer ---------------------------------------------------------------------------------------------------


def rival(work: Path, files: list[Path], minutes: float, home: Path) -> Iterator[tuple[str, Any]]:
    """The recipe with and without encoding, and the framework alone (one quick operator on one file)."""
    (work / "bin").mkdir()
    asked = measured([str(home / "bin" / "python"), "-c", VERSIONS])
    found = json.loads(asked["out"])
    (work / "bin" / "ffmpeg").symlink_to(found.pop("ffmpeg"))
    yield "versions", found
    yield "operators", OPERATORS
    yield "left_out", LEFT_OUT
    yield "lacks_of_ours", OURS_ALONE
    finds_nothing = OPERATORS | {SPLIT: OPERATORS[SPLIT] | NOTHING_FOUND}
    yield "encoding", with_rate(recipe_run(work, files, OPERATORS, home, "encoding"), minutes)
    yield "no_encoding", with_rate(recipe_run(work, files, finds_nothing, home, "no-encoding"), minutes)
    one = {"video_duration_filter": OPERATORS["video_duration_filter"]}
    yield "framework_alone", recipe_run(work, files[:1], one, home, "none")


def with_rate(run: dict, minutes: float) -> dict:
    return {"cpu_s_per_minute": round(run["cpu_s"] / minutes, 2), **run} if "error" not in run else run


def recipe_run(work: Path, files: list[Path], operators: dict, home: Path, name: str) -> dict:
    """One `dj-process`: what it cost and how many rows it left, or the last lines of its error."""
    folder = work / f"juicer-{name}"
    (folder / "save").mkdir(parents=True)
    rows = [{"videos": [str(file)], "text": "<__dj__video> <|__dj__eoc|>"} for file in files]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    process = []
    for operator, given in operators.items():
        parameters = {
            key: str(folder / "save") if value == "SAVE" else value for key, value in given.items() if key != "stands for"
        }
        process.append({operator: parameters})
    recipe = {
        "project_name": name,
        "dataset_path": str(folder / "in.jsonl"),
        "export_path": str(folder / "out" / "out.jsonl"),
        "np": 1,
        "open_tracer": False,
        "use_cache": False,
        "skip_op_error": False,
        "process": process,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    env = one_thread() | {
        "PATH": f"{work / 'bin'}:{home / 'bin'}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
    }
    env.pop("PYTHONPATH", None)
    run = measured([str(home / "bin" / "dj-process"), "--config", str(folder / "recipe.yaml")], env=env, cwd=folder)
    kept = folder / "out" / "out.jsonl"
    figures = {key: run[key] for key in ("wall_s", "cpu_s", "peak_mb", "peak_sum_mb", "load")}
    if run["returncode"] or not kept.is_file():
        return {
            **figures,
            "error": [line.replace(f"{home}/", "") for line in (run["error"] + run["out"]).splitlines() if line.strip()][-12:],
        }
    written = [path for path in (folder / "save").rglob("*.mp4")]
    return {
        **figures,
        "rows": len(kept.read_text().splitlines()),
        "clips_written": len(written),
        "encoded_s": round(sum(probe_video(path).duration_s for path in written), 3),
        "bytes_written": sum(path.stat().st_size for path in written),
    }


if __name__ == "__main__":
    main()
