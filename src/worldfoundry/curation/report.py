"""`report.html`: one self-contained page with the funnel, thumbnails of the clips, shot timelines and the quarantine table."""

import base64
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from worldfoundry.core.files import atomic_path
from worldfoundry.core.progress import clock
from worldfoundry.curation.rows import Row
from worldfoundry.curation.store import Store

if TYPE_CHECKING:
    from worldfoundry.curation.pipeline import CurateSummary

# A page of more thumbnails than this is slow to open; the tables hold everything.
MOST_CLIPS, MOST_TIMELINES, MOST_ROWS = 240, 120, 500


def write_report(store: Store, tables: dict[str, list[Row]], summary: "CurateSummary") -> Path:
    """Write the page whole or not at all; returns its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "filename": lambda uri: uri.rsplit("/", 1)[-1]}
    page = environment.get_template("report.html.j2").render(
        summary=summary,
        run=tables["runs"][-1],
        runs_s=sum(run["wall_s"] for run in tables["runs"]),
        num_runs=len(tables["runs"]),
        peak_memory_mb=max(run["peak_memory_mb"] for run in tables["runs"]),
        funnel=_funnel(tables, summary),
        clips=_spread(tables["clips"], MOST_CLIPS, store),
        timelines=_timelines(tables)[:MOST_TIMELINES],
        num_videos=sum(not source["image"] for source in tables["sources"]),
        quarantine=tables["quarantine"][:MOST_ROWS],
        rejected=tables["rejected"][:MOST_ROWS],
        num_rejected=len(tables["rejected"]),
        buckets=_buckets(tables["clips"]),
        stages=_stage_times(tables["events"]),
    )
    with atomic_path(store.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return store.report


def _funnel(tables: dict[str, list[Row]], summary: "CurateSummary") -> list[Row]:
    """Steps from files to kept video, each with its share of the step that it is measured against."""
    decoded_s = sum(row["duration_s"] for row in tables["sources"])
    known = {row["source_id"] for row in tables["sources"]}
    shots_s = sum(row["duration_s"] for row in [*tables["clips"], *tables["rejected"]] if row["source_id"] in known)
    steps = [
        ("files found", summary.files, str(summary.files), summary.files),
        ("distinct, readable, with a clip", summary.sources, str(summary.sources), summary.files),
        ("video in these files", decoded_s, clock(decoded_s), decoded_s),
        ("within shots, transitions left out", shots_s, clock(shots_s), decoded_s),
        ("kept as clips", summary.video_s, f"{clock(summary.video_s)} in {summary.clips} clips", decoded_s),
    ]
    return [
        {"label": label, "text": text, "share": round(100 * min(1.0, value / base), 2) if base else 0.0}
        for label, value, text, base in steps
    ]


def _spread(clips: list[Row], most: int, store: Store) -> list[Row]:
    """At most `most` clips, evenly taken from all, with their thumbnails inline."""
    step = max(1.0, len(clips) / most)
    shown = [clips[int(i * step)] for i in range(min(len(clips), most))]
    return [{**clip, "strip": _inline(store.strip(clip["source_id"], clip["key"]))} for clip in shown]


def _inline(path: Path) -> str:
    """A data URI, or "" if the thumbnails were removed."""
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def _timelines(tables: dict[str, list[Row]]) -> list[Row]:
    """Per source: shots, transitions and kept clips as spans in percent of its duration."""
    shots, clips = defaultdict(list), defaultdict(list)
    for row in tables["shots"]:
        shots[row["source_id"]].append(row)
    for row in tables["clips"]:
        clips[row["source_id"]].append(row)
    lines = []
    for source in tables["sources"]:
        if source["image"]:
            continue
        length_s = max(source["duration_s"], 1e-6)

        def span(start_s: float, end_s: float, length_s: float = length_s) -> dict[str, float]:
            return {"x": round(100 * start_s / length_s, 3), "w": round(100 * (end_s - start_s) / length_s, 3)}

        own = shots[source["source_id"]]
        lines.append(
            {
                **source,
                "shots": [{**shot, **span(shot["start_s"], shot["end_s"])} for shot in own],
                "marks": [{**mark, **span(mark["from_s"], mark["until_s"])} for mark in _transitions(own)],
                "kept": [{**clip, **span(clip["start_s"], clip["end_s"])} for clip in clips[source["source_id"]]],
            }
        )
    return lines


def _transitions(shots: list[Row]) -> list[Row]:
    """Every transition of a file once: what closes each shot, and what opens the first."""
    marks = [
        {"kind": s["closes_with"], "from_s": s["end_s"], "until_s": s["closes_until_s"], "confidence": s["closes_confidence"]}
        for s in shots
        if s["closes_with"] != "end"
    ]
    first = shots[0] if shots else None
    if first and first["opens_with"] != "start":
        opening = {"from_s": first["opens_from_s"], "until_s": first["start_s"], "confidence": first["opens_confidence"]}
        marks.insert(0, {"kind": first["opens_with"], **opening})
    return marks


def _buckets(clips: list[Row]) -> list[Row]:
    rows: dict[str, Row] = {}
    for clip in clips:
        row = rows.setdefault(clip["bucket"], {"bucket": clip["bucket"], "clips": 0, "seconds": 0.0, "megabytes": 0.0})
        row["clips"] += 1
        row["seconds"] += clip["duration_s"]
        row["megabytes"] += clip["bytes"] / 1e6
    return [rows[name] for name in sorted(rows)]


def _stage_times(events: list[Row]) -> list[dict[str, Any]]:
    """Seconds per stage over all sources, in the order in which the stages run."""
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        row = rows.setdefault(
            event["stage"], {"stage": event["stage"], "sources": 0, "wall_s": 0.0, "cpu_s": 0.0, "slowest_s": 0.0}
        )
        row["sources"] += 1
        row["wall_s"] += event["wall_s"]
        row["cpu_s"] += event["cpu_s"]
        row["slowest_s"] = max(row["slowest_s"], event["wall_s"])
    return list(rows.values())
