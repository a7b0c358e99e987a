"""What the page's sliders move: every score of every planned clip, the thresholds of the run, and who resembles whom.

The page applies the same rules as `select` and `duplicates`, to the same numbers, so that what it says would stay is what
`worldfoundry curate select` then keeps. Conditions that no slider or box can stand for are handed on unchanged.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import Graph
from worldfoundry.curation.rows import Row
from worldfoundry.curation.run import SourceRun
from worldfoundry.curation.scores.dedup import COVERED
from worldfoundry.curation.select import Condition, conditions
from worldfoundry.curation.stages import ENCODE

SIZES = ("source_height", "source_width", "source_fps")
# More clips than this make a page of scores alone that is slow to open; it is then counted on an even sample.
MOST_CLIPS = 20_000
MOST_WORDS = 24  # of a tag that gets a box for each
NEW, ENCODED, FAILED = 0, 1, 2


def threshold_data(
    clips: Sequence[Row], runs: Mapping[str, SourceRun], graph: Graph, config: CurateConfig, *, most: int = MOST_CLIPS
) -> Row:
    """JSON for the page's script. `clips` are all planned clips as they were selected."""
    shown = evenly(clips, most)
    motion, *wanted = conditions(config, (*graph.scores, *graph.tags))
    texts = dict(zip(wanted, config.where, strict=True))
    names = [name for stage in graph.source_stages for name in stage.scores]
    columns = [_column(shown, name, wanted) for name in dict.fromkeys(("duration_s", *names, *SIZES))]
    columns[0] |= {"flag": "--min-s", "low": config.min_s, "most_low": config.max_s / 2}
    for column in columns:
        if column["name"] == "motion":
            column |= {"flag": "--min-motion", "low": max(float(motion.value), column["low"] or 0.0)}
    tags = [_tag(shown, name, wanted) for stage in graph.source_stages for name in stage.tags]
    tags = [tag for tag in tags if tag["words"]]
    moved = {condition for part in (*columns, *tags) for condition in part.pop("moved")}
    fixed = [condition for condition in wanted if condition not in moved]
    same = {column["name"]: next((v for v in column["values"] if v is not None), None) for column in columns if _idle(column)}
    return {
        "total": len(clips),
        "clips": len(shown),
        "command": f"worldfoundry curate select {shlex.quote(str(config.out))}",
        "columns": [column for column in columns if column["name"] not in same],
        "same": {name: value for name, value in same.items() if value is not None},
        "unmeasured": [name for name, value in same.items() if value is None],
        "tags": tags,
        "fixed_conditions": [texts[condition] for condition in fixed],
        "fixed_out": [int(not clip["kept"] and not all(c.holds(clip.get(c.name)) for c in fixed)) for clip in shown],
        "had_conditions": bool(config.where),
        "duration_s": [clip["duration_s"] for clip in shown],
        "length_s": [None if clip["image"] else clip["end_s"] - clip["start_s"] for clip in shown],
        "fps": [clip["source_fps"] for clip in shown],
        "kept": [int(clip["kept"]) for clip in shown],
        "state": [_state(runs.get(clip["source_id"]), clip) for clip in shown],
        **_likeness(shown),
    }


def evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows, evenly taken from all."""
    step = max(1.0, len(rows) / most) if most else 1.0
    return [rows[int(i * step)] for i in range(min(len(rows), most))]


def _column(clips: Sequence[Row], name: str, wanted: Sequence[Condition]) -> Row:
    """A score of all clips (None where it was not taken), and the strictest thresholds that the run had on it."""
    lows = [
        c for c in wanted if c.name == name and c.sign == ">=" and name != "duration_s"
    ]  # that is --min-s, but not for images
    highs = [c for c in wanted if c.name == name and c.sign == "<="]
    still = name == "motion"  # an image does not move; its motion is written as 0
    return {
        "name": name,
        "values": [None if still and clip["image"] else _json(clip.get(name)) for clip in clips],
        "low": max((float(c.value) for c in lows), default=None),
        "high": min((float(c.value) for c in highs), default=None),
        "moved": [*lows, *highs],
    }


def _idle(column: Row) -> bool:
    """Whether there is nothing to choose: no threshold, and one value of all clips, or none."""
    return "flag" not in column and column["low"] is column["high"] is None and len(set(column["values"]) - {None}) < 2


def _tag(clips: Sequence[Row], name: str, wanted: Sequence[Condition]) -> Row:
    """A word of all clips as a number into `words`; [] if they are too many, or the run asks for one of them by `=`."""
    own = [c for c in wanted if c.name == name]
    out = {str(c.value) for c in own if c.sign == "!="}
    words = sorted(out | {str(clip[name]) for clip in clips if clip.get(name) is not None})
    if len(words) > MOST_WORDS or any(c.sign == "=" for c in own):
        return {"words": [], "moved": []}
    at = {word: i for i, word in enumerate(words)}
    values = [None if clip.get(name) is None else at[str(clip[name])] for clip in clips]
    return {"name": name, "words": words, "values": values, "out": [int(word in out) for word in words], "moved": own}


def _json(value: Any) -> float | int | str | None:
    """A number as JSON has it; those that it lacks as words that JavaScript reads as such."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _state(run: SourceRun | None, clip: Row) -> int:
    """Whether the clip is encoded already, or cannot be."""
    if clip["kept"]:
        return ENCODED
    if run is None:
        return NEW
    if run.failure(clip["clip_id"]) is not None:
        return FAILED
    return ENCODED if run.commit(run.graph[ENCODE], clip["clip_id"]) is not None else NEW


def _likeness(clips: Sequence[Row]) -> Row:
    """All pairs of near-duplicates, the order in which they are looked at, and the clips that were not compared.

    A pair is [a, b, b has what a shows, a has what b shows].
    """
    at = {clip["clip_id"]: i for i, clip in enumerate(clips)}
    pairs = [
        [at[m.a], at[m.b], int(m.covers_a >= COVERED), int(m.covers_b >= COVERED)]
        for clip in clips
        for m in clip.get("matches", ())
        if m.a in at and m.b in at
    ]
    if not any("matches" in clip for clip in clips):
        return {"dedup": False, "pairs": [], "rank": [], "uncompared": []}

    def rank(i: int) -> tuple[float, float, str]:
        return -clips[i]["source_width"] * clips[i]["source_height"], -clips[i]["duration_s"], clips[i]["clip_id"]

    uncompared = [i for i, clip in enumerate(clips) if "matches" not in clip and not clip["image"]]
    paired = {i for pair in pairs for i in pair[:2]}
    return {"dedup": True, "pairs": pairs, "rank": sorted(paired, key=rank), "uncompared": uncompared}
