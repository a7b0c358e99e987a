"""What the page lists: the funnel, reasons with samples, shots in time, near-duplicates, quarantine, and where the time went."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from worldfoundry.core.progress import clock
from worldfoundry.curation.report.pictures import Picture
from worldfoundry.curation.report.thresholds import evenly
from worldfoundry.curation.rows import Row
from worldfoundry.curation.select import Condition

if TYPE_CHECKING:
    from worldfoundry.curation.pipeline import CurateSummary

Tables = dict[str, list[Row]]
Show = Callable[[Row], Picture | None]

SAMPLES_PER_REASON, MOST_REASONS = 6, 20
MOST_CLUSTERS, MOST_IN_CLUSTER = 24, 5
MOST_SPANS, MOST_SPANS_OF_FILE = 10_000, 2_000
SLOWEST = 15


def funnel(tables: Tables, summary: "CurateSummary") -> list[Row]:
    """Steps from files to kept video, each with its share of the step that it is measured against."""
    decoded_s = sum(row["duration_s"] for row in tables["sources"])
    known = {row["source_id"] for row in tables["sources"]}
    planned_s = sum(row["duration_s"] for row in [*tables["clips"], *tables["rejected"]] if row["source_id"] in known)
    steps = [
        ("files found", summary.files, str(summary.files), summary.files),
        ("distinct, readable, with a clip", summary.sources, str(summary.sources), summary.files),
        ("video in these files", decoded_s, clock(decoded_s), decoded_s),
        ("in shots, transitions left out", planned_s, clock(planned_s), decoded_s),
        ("kept as clips", summary.video_s, f"{clock(summary.video_s)} in {summary.clips} clips", decoded_s),
    ]
    return [
        {"label": label, "text": text, "share": round(100 * min(1.0, value / base), 2) if base else 0.0}
        for label, value, text, base in steps
    ]


def reasons(rejected: Sequence[Row], wanted: Sequence[Condition], show: Show) -> list[Row]:
    """Why clips were rejected, the most frequent reason first, each with a few of its clips, evenly taken."""
    of_reason: dict[str, list[Row]] = defaultdict(list)
    for clip in rejected:
        for reason in clip["reasons"]:
            of_reason[reason].append(clip)
    rows = []
    for reason in sorted(of_reason, key=lambda name: (-len(of_reason[name]), name))[:MOST_REASONS]:
        clips = of_reason[reason]
        asked = [condition for condition in wanted if condition.reason == reason]
        rows.append(
            {
                "reason": reason,
                "clips": len(clips),
                "seconds": sum(clip["duration_s"] for clip in clips),
                "share": round(100 * len(clips) / len(rejected), 2),
                "asked": " and ".join(f"{c.name} {c.sign} {plain(c.value)}" for c in asked),
                "samples": [
                    {"clip": clip, "picture": show(clip), "value": ", ".join(f"{c.name} {plain(clip[c.name])}" for c in asked)}
                    for clip in evenly(clips, SAMPLES_PER_REASON)
                ],
            }
        )
    return rows


def timelines(tables: Tables) -> list[Row]:
    """Per video: its shots, transitions and planned clips as spans in percent of its length, until the page is full."""
    of_source: dict[str, dict[str, list[Row]]] = {}
    for name in ("shots", "clips", "rejected"):
        for row in tables[name]:
            of_source.setdefault(row["source_id"], defaultdict(list))[name].append(row)
    lines, spans = [], 0
    for source in tables["sources"]:
        if source["image"]:
            continue
        own = of_source.get(source["source_id"], {})
        line = _timeline(source, own.get("shots", []), [*own.get("clips", []), *own.get("rejected", [])])
        spans += sum(len(line[name]) for name in ("shots", "marks", "clips"))
        if lines and spans > MOST_SPANS:
            break
        lines.append(line)
    return lines


def _timeline(source: Row, shots: list[Row], clips: list[Row]) -> Row:
    length_s = max(source["duration_s"], 1e-6)
    marks = _transitions(shots)
    clips = sorted(clips, key=lambda clip: clip["start_s"])

    def placed(rows: list[Row], start: str, end: str) -> list[Row]:
        return [
            {**row, "x": round(100 * row[start] / length_s, 3), "w": round(100 * (row[end] - row[start]) / length_s, 3)}
            for row in rows[:MOST_SPANS_OF_FILE]
        ]

    kinds = Counter(mark["kind"] for mark in marks)
    kept = sum(clip["kept"] for clip in clips)
    return {
        **source,
        "shots": placed(shots, "start_s", "end_s"),
        "marks": placed(marks, "from_s", "until_s"),
        "clips": placed(clips, "start_s", "end_s"),
        "cropped": max(len(shots), len(clips)) > MOST_SPANS_OF_FILE,
        "told": ", ".join(
            [
                counted(len(shots), "shot"),
                *(counted(n, kind) for kind, n in kinds.items()),
                f"{kept} of {counted(len(clips), 'clip')} kept",
            ]
        ),
    }


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


def clusters(tables: Tables, show: Show) -> tuple[list[Row], int]:
    """Near-duplicates beside the clip that stays, each with the pair's kind and distance; and how many such clips there are."""
    stays = {clip["clip_id"]: clip for clip in [*tables["clips"], *tables["rejected"]]}
    of_clip: dict[str, list[Row]] = defaultdict(list)
    for clip in tables["rejected"]:
        if clip.get("duplicate_of") in stays:
            of_clip[clip["duplicate_of"]].append(clip)
    rows = []
    for clip_id in sorted(of_clip, key=lambda name: (-len(of_clip[name]), name))[:MOST_CLUSTERS]:
        gone = sorted(of_clip[clip_id], key=lambda clip: -clip["duplicate_score"])
        members = [
            {"clip": clip, "picture": show(clip), "distance": 1 - clip["duplicate_score"], "kind": clip["duplicate_kind"]}
            for clip in gone[:MOST_IN_CLUSTER]
        ]
        rows.append(
            {
                "stays": {"clip": stays[clip_id], "picture": show(stays[clip_id])},
                "gone": members,
                "more": len(gone) - len(members),
            }
        )
    return rows, len(of_clip)


def buckets(clips: Sequence[Row]) -> list[Row]:
    rows: dict[str, Row] = {}
    for clip in clips:
        row = rows.setdefault(clip["bucket"], {"bucket": clip["bucket"], "clips": 0, "seconds": 0.0, "megabytes": 0.0})
        row["clips"] += 1
        row["seconds"] += clip["duration_s"]
        row["megabytes"] += clip["bytes"] / 1e6
    return [rows[name] for name in sorted(rows)]


def stage_times(events: Sequence[Row]) -> list[dict[str, Any]]:
    """Seconds per stage over all sources, in the order in which the stages run."""
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        row = rows.setdefault(
            event["stage"], {"stage": event["stage"], "times": 0, "wall_s": 0.0, "cpu_s": 0.0, "slowest_s": 0.0}
        )
        row["times"] += 1
        row["wall_s"] += event["wall_s"]
        row["cpu_s"] += event["cpu_s"]
        row["slowest_s"] = max(row["slowest_s"], event["wall_s"])
    return list(rows.values())


def slowest_files(tables: Tables) -> list[Row]:
    """The files that took longest, with the stage that took most of it, and what that is per second of video."""
    places = {row["source_id"]: row for row in [*tables["quarantine"], *tables["sources"]] if row["source_id"]}
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    cpu_s: Counter[str] = Counter()
    for event in tables["events"]:
        taken[event["source_id"]][event["stage"]] += event["wall_s"]
        cpu_s[event["source_id"]] += event["cpu_s"]
    rows = []
    for source_id in sorted(taken, key=lambda name: (-taken[name].total(), name))[:SLOWEST]:
        source, (stage, stage_s) = places.get(source_id, {}), taken[source_id].most_common(1)[0]
        length_s = source.get("duration_s") or 0.0
        wall_s = taken[source_id].total()
        rows.append(
            {
                "uri": source.get("uri", source_id),
                "wall_s": wall_s,
                "cpu_s": cpu_s[source_id],
                "length_s": length_s,
                "per_second": wall_s / length_s if length_s else None,
                "stage": stage,
                "stage_share": round(100 * stage_s / wall_s) if wall_s else 0,
            }
        )
    return rows


def counted(number: int, unit: str) -> str:
    """`1 shot`, `3 shots`."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def plain(value: object) -> str:
    """A number with four digits, a word as it is."""
    return f"{value:.4g}" if isinstance(value, int | float) else "unknown" if value is None else str(value)
