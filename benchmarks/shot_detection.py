"""Shot detection on composites of real clips: F1 by type of transition, false alarms, and frames per CPU-second.

    python benchmarks/shot_detection.py --clips FOLDER --work FOLDER [--spans FILE] [--scenedetect PYTHON]

Compared: ours, ours with TransNet V2 on doubtful windows, TransNet V2 alone (published threshold rule, at 0.4), and the
five detectors of PySceneDetect with their defaults, run by another Python that has it (`--scenedetect`). Composites come
from `shot_composites.py`: seeds and source clips of the held-out half, on which nothing was tuned. CPU time is the whole
process's, decoding included, one thread where a library lets us say so.

Matching, one to one: a cut is found if a prediction lies within 2 frames of it; a gradual transition if a prediction overlaps
it, 2 frames allowed. What is left over is a false alarm. Types are left out of this except in `f1_typed`, where the
predicted type must be right too. Intervals: 95 %, bootstrap over composites. Writes benchmarks/shot_detection.json; what an
earlier run on the same composites wrote of other detectors stays (`--only`).
"""

import argparse
import json
import os
import pickle
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from shot_composites import Event, compose, load_footage, split_clips, write_composite

from worldfoundry.core.files import write_json
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.core.progress import say
from worldfoundry.core.provenance import provenance
from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.lowres import Look, Pictures, watch_frames
from worldfoundry.curation.shots import Transition, find_transitions
from worldfoundry.curation.shots_network import Network, transition_probability
from worldfoundry.perception.transnet_v2 import HEIGHT, WIDTH, load_transnet_v2

TOLERANCE = 2
HELD_OUT_SEEDS, TUNING_SEEDS = 1000, 0
KINDS = ("cut", "dissolve", "fade", "wipe")
PEER_NAME = "PySceneDetect"
Detector = Callable[[Path], list[Any]]


def ours(path: Path, network: Network | None, where: Literal["doubtful", "everywhere"] = "doubtful") -> list[Transition]:
    pictures = Pictures()
    table = watch_frames(path, [Look(size=(HEIGHT, WIDTH), add=pictures.add)])
    return find_transitions(np.stack(pictures.rgb), table.fps, ShotConfig(network=where), network)


def network_alone(path: Path, network: Network, threshold: float = 0.4) -> list[Event]:
    """Windows of 100 frames, the middle 50 of each used; a run of frames above the threshold is one transition."""
    pictures = Pictures()
    watch_frames(path, [Look(size=(HEIGHT, WIDTH), add=pictures.add)])
    rgb_THWC, answers = np.stack(pictures.rgb), []
    for first in range(0, len(rgb_THWC), 50):
        window = np.clip(np.arange(first - 25, first + 75), 0, len(rgb_THWC) - 1)
        answers.append(network(rgb_THWC[window])[25:75])
    above_T = np.concatenate([[False], np.concatenate(answers)[: len(rgb_THWC)] > threshold, [False]])
    edges = np.flatnonzero(np.diff(above_T.astype(np.int8)))
    return [Event(kind="", start=int(a) + 1, end=int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


PEER = """
import json, sys, time
import cv2
from scenedetect import detect, __version__
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector, ThresholdDetector
cv2.setNumThreads(1)
found = {"version": __version__}
for kind in (ContentDetector, AdaptiveDetector, HashDetector, HistogramDetector, ThresholdDetector):
    for path in sys.argv[1:]:
        start = time.process_time()
        cuts = [float(scene[0].seconds) for scene in detect(path, kind(), start_in_scene=True)[1:]]
        found.setdefault(kind.__name__, []).append([cuts, time.process_time() - start])
print(json.dumps(found))
"""


def run_peer(python: str, composites: Sequence[dict[str, Any]]) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """PySceneDetect says seconds, so that a variable frame rate costs it nothing; they become frames here."""
    paths = [str(composite["path"]) for composite in composites]
    done = subprocess.run([python, "-c", PEER, *paths], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    version, results = found.pop("version"), {}
    for name, per_video in found.items():
        results[f"PySceneDetect {name}"] = [
            {
                "found": [
                    Event(kind="", start=f, end=f)
                    for f in (int(np.abs(composite["times_s_T"] - cut_s).argmin()) for cut_s in cuts_s)
                ],
                "cpu_s": cpu_s,
            }
            for composite, (cuts_s, cpu_s) in zip(composites, per_video, strict=True)
        ]
    return version, results


def run(detector: Detector, composites: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for composite in composites:
        start = time.process_time()
        found = detector(composite["path"])
        yield {"found": found, "cpu_s": time.process_time() - start}


# --- scores ------------------------------------------------------------------------------------------------------------


def is_hit(found: Any, truth: Event) -> bool:
    if truth.kind == "cut":
        return abs((found.start + found.end) / 2 - truth.start) <= TOLERANCE
    return found.start <= truth.end + TOLERANCE and found.end >= truth.start - TOLERANCE


def match(found: Sequence[Any], truth: Sequence[Event]) -> tuple[list[int | None], list[int]]:
    """(index of what was found for each true transition, or None; indices of what is left over)."""
    used: set[int] = set()
    hits: list[int | None] = []
    for event in truth:
        near = [i for i, f in enumerate(found) if i not in used and is_hit(f, event)]
        best = min(near, key=lambda i: abs(found[i].start + found[i].end - event.start - event.end), default=None)
        used |= {best} - {None}
        hits.append(best)
    return hits, [i for i in range(len(found)) if i not in used]


def count(found: Sequence[Any], composite: dict[str, Any]) -> Counter[str]:
    """What the scores are made of: of each type, how many there are, are found, are found with their type; false alarms by place."""
    counts: Counter[str] = Counter()
    hits, extra = match(found, composite["transitions"])
    for event, i in zip(composite["transitions"], hits, strict=True):
        counts[f"true {event.kind}"] += 1
        counts[f"hit {event.kind}"] += i is not None
        if i is None:
            continue
        counts[f"said {event.kind} is {found[i].kind}"] += 1
        if event.kind != "cut" and found[i].kind:
            both = min(event.end, found[i].end) - max(event.start, found[i].start)
            counts["overlap"] += max(0, both) / (max(event.end, found[i].end) - min(event.start, found[i].start))
            counts["overlaps"] += 1
    for i in extra:
        decoys = [d.kind for d in composite["decoys"] if found[i].start <= d.end + 2 and found[i].end >= d.start - 2]
        counts[f"false {decoys[0] if decoys else 'elsewhere'}"] += 1
        counts[f"false said {found[i].kind}"] += 1
        counts["false"] += 1
    for kind in KINDS:
        said = sum(f.kind == kind for f in found)
        counts[f"typed {kind}"] += said
    return counts


def scores(counts: Counter[str]) -> dict[str, float]:
    true, hit = (sum(counts[f"{what} {kind}"] for kind in KINDS) for what in ("true", "hit"))
    result = {
        "f1": 2 * hit / (true + hit + counts["false"]),
        "precision": hit / max(1, hit + counts["false"]),
        "recall": hit / true,
    }
    for kind in KINDS:
        result[f"recall {kind}"] = counts[f"hit {kind}"] / max(1, counts[f"true {kind}"])
        right = counts[f"said {kind} is {kind}"]
        result[f"f1_typed {kind}"] = 2 * right / max(1, counts[f"true {kind}"] + counts[f"typed {kind}"])
    return result


def summarise(rows: Sequence[dict[str, Any]], composites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = [count(row["found"], composite) for row, composite in zip(rows, composites, strict=False)]
    total = sum(counts, Counter())
    random = np.random.default_rng(0)
    draws = [scores(sum((counts[i] for i in random.integers(0, len(counts), len(counts))), Counter())) for _ in range(500)]
    values = scores(total)
    typed = bool(sum(total[f"typed {kind}"] for kind in KINDS))
    frames, cpu_s = sum(c["num_frames"] for c in composites[: len(rows)]), sum(row["cpu_s"] for row in rows)
    return {
        "composites": len(rows),
        "frames": frames,
        "scores": {
            name: {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
            for name, value in values.items()
            if typed or "typed" not in name
            for low, high in [np.percentile([draw[name] for draw in draws], [2.5, 97.5])]
        },
        "true": {kind: total[f"true {kind}"] for kind in KINDS},
        "found": {kind: total[f"hit {kind}"] for kind in KINDS},
        "false_alarms": {key[6:]: n for key, n in sorted(total.items()) if key.startswith("false ") and "said" not in key},
        "types": {key[5:]: n for key, n in sorted(total.items()) if key.startswith("said ")} if typed else {},
        "overlap": round(total["overlap"] / max(1, total["overlaps"]), 3) if typed else None,
        "decided_by_network": sum(getattr(f, "decided_by", "") == "network" for row in rows for f in row["found"]),
        "frames_per_cpu_s": round(frames / cpu_s, 1),
        "cpu_s": round(cpu_s, 2),
    }


def mistakes(rows: Sequence[dict[str, Any]], composites: Sequence[dict[str, Any]]) -> list[str]:
    """What was missed and what was invented, one line each."""
    lines = []
    for row, composite in zip(rows, composites, strict=False):
        hits, extra = match(row["found"], composite["transitions"])
        missed = [event for event, i in zip(composite["transitions"], hits, strict=True) if i is None]
        lines += [f"seed {composite['seed']}: missed {e.kind} {e.how} at {e.start}-{e.end}" for e in missed]
        for f in (row["found"][i] for i in extra):
            decoys = [d.kind for d in composite["decoys"] if f.start <= d.end + 2 and f.end >= d.start - 2]
            lines.append(
                f"seed {composite['seed']}: false {f.kind} at {f.start}-{f.end} {'in a ' + decoys[0] if decoys else ''}"
            )
    return lines


# --- composites --------------------------------------------------------------------------------------------------------


def make_composites(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Written once into the work folder, with what is true of them beside."""
    first = HELD_OUT_SEEDS if options.split == "held-out" else TUNING_SEEDS
    index = options.work / f"{options.split}-{options.height}x{options.width}-{options.composites}.pickle"
    if index.exists():
        return pickle.loads(index.read_bytes())
    options.work.mkdir(parents=True, exist_ok=True)
    halves = split_clips(load_footage(options.clips, options.height, options.width, spans=options.spans))
    footage, made = halves[options.split == "held-out"], []
    for seed in range(first, first + options.composites):
        composite = compose(footage, seed)
        made.append(
            {
                "path": write_composite(composite, options.work / f"{options.split}-{seed}.mp4"),
                "seed": seed,
                "num_frames": len(composite.frames_THWC),
                "times_s_T": composite.pts_T / 24000,
                "transitions": composite.transitions,
                "decoys": composite.decoys,
                "variable_rate": composite.variable_rate,
                "clips": sorted(set(composite.clips)),
            }
        )
        say(f"composite {seed}: {len(composite.frames_THWC)} frames")
    index.write_bytes(pickle.dumps(made))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of real clips (.mp4), one take each")
    parser.add_argument("--spans", type=Path, help="JSON of the usable frame spans of clips with transitions of their own")
    parser.add_argument("--work", type=Path, required=True, help="where composites are written, and found again")
    parser.add_argument("--split", choices=("tuning", "held-out"), default="held-out")
    parser.add_argument("--composites", type=int, default=32, help="of 24 transitions each")
    parser.add_argument("--take", type=int, help="so many of the composites only (TransNet V2 on every frame is slow)")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--scenedetect", default="", help="a Python that has PySceneDetect")
    parser.add_argument("--only", nargs="*", default=(), help="names of detectors, as in the JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    composites = make_composites(options)
    shown = composites[: options.take]
    for name, detect in detectors(options).items():
        if name == PEER_NAME:
            version, results = run_peer(options.scenedetect, shown)
            report(options, results, composites, version)
            continue
        rows: list[dict[str, Any]] = []
        for row in run(detect, shown):
            rows.append(row)
            if len(rows) % 4 == 0 or len(rows) == len(shown):
                report(options, {name: rows}, composites)
    for name, row in json.loads(options.out.read_text(encoding="utf-8"))["detectors"].items():
        recalls = " ".join(f"{kind} {row['found'][kind]}/{row['true'][kind]}" for kind in KINDS)
        say(f"{name}: F1 {row['scores']['f1']['value']}, {recalls}, {row['frames_per_cpu_s']} frames per CPU-second")


def detectors(options: argparse.Namespace) -> dict[str, Detector]:
    chosen: dict[str, Detector] = {"ours, fast detector alone": lambda path: ours(path, None)}
    if is_fetched("transnetv2"):
        alone = transition_probability(load_transnet_v2(model_folder("transnetv2")))
        alone(np.zeros((64, HEIGHT, WIDTH, 3), np.uint8))  # what is set up once counts for no video
        chosen["ours, doubtful windows by TransNet V2"] = lambda path: ours(path, alone)
        chosen["ours, TransNet V2 everywhere"] = lambda path: ours(path, alone, "everywhere")
        chosen["TransNet V2 alone"] = lambda path: network_alone(path, alone)
    if options.scenedetect:
        chosen[PEER_NAME] = lambda path: []
    return {name: detect for name, detect in chosen.items() if not options.only or name in options.only}


def report(
    options: argparse.Namespace, results: dict[str, Any], composites: Sequence[dict[str, Any]], version: str = ""
) -> None:
    """Written now and then, so that an interrupted run is not lost, beside what the file says of the others."""
    about = {
        "size": [options.height, options.width],
        "seeds": [composites[0]["seed"], composites[-1]["seed"]],
        "frames": sum(c["num_frames"] for c in composites),
        "variable_rate": sum(c["variable_rate"] for c in composites),
        "clips": len({name for c in composites for name in c["clips"]}),
        "decoys": dict(Counter(d.kind for c in composites for d in c["decoys"])),
        "tolerance_frames": TOLERANCE,
    }
    before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    if before.get("about") != about:
        before = {}
    made = provenance()
    run = {"version": version or made["worldfoundry"], "commit": made["commit"], "load_average": os.getloadavg()[0]}
    summary = {name: {**summarise(rows, composites), **run} for name, rows in results.items()}
    mistaken = {name: mistakes(rows, composites) for name, rows in results.items() if name.startswith("ours")}
    measured = {**before.get("detectors", {}), **summary}
    mistaken = {**before.get("mistakes", {}), **mistaken}
    write_json(options.out, {"about": about, "detectors": measured, "mistakes": mistaken, "provenance": made})


if __name__ == "__main__":
    main()
