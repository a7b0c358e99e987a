"""From commits to tables: what is known of every planned clip, which are kept, what the seven tables say.

Nothing here decodes or encodes, and the order of the rows depends on the input alone.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import Graph
from worldfoundry.curation.pack import Sample
from worldfoundry.curation.rows import Failure, Row, quarantine_row
from worldfoundry.curation.run import SourceRun
from worldfoundry.curation.scores.duplicates import reject_duplicates
from worldfoundry.curation.select import select
from worldfoundry.curation.stages import ENCODE
from worldfoundry.curation.store import Store
from worldfoundry.curation.tables import SCHEMAS

# What of a clip's row goes into key.json: facts of the content, nothing of where the source lay.
JSON_FIELDS = (
    "clip_id",
    "source_id",
    "start_s",
    "end_s",
    "duration_s",
    "num_frames",
    "fps",
    "width",
    "height",
    "bucket",
    "caption",
    "motion",
    "action_names",
    "state_names",
)
# Field of key.json → column that it is taken from if there is anything in it.
JSON_IF_ANY = {"episode": "about", "crop": "crop", "caption_windows": "caption_windows"}
# One of the caption windows of a clip: frames [first, last), what is said of them and by whom, or why nothing is.
WINDOW = {
    "first": pa.int32(),
    "last": pa.int32(),
    "text": pa.string(),
    "source": pa.string(),
    "tokens": pa.int32(),
    "error": pa.string(),
}
# Reasons of a clip whose stage failed keep these codes; others are named after the stage.
KEPT_CODES = frozenset({"DECODER_CRASHED", "DECODER_TIMEOUT", "STAGE_CRASHED", "STAGE_TIMEOUT", "OUT_OF_MEMORY"})
NOT_ENCODED = "NOT_ENCODED"


@dataclass(kw_only=True)
class Collected:
    """All sources, their planned clips with `reasons` and `kept`, why sources failed, and those that are not done yet."""

    runs: dict[str, SourceRun]
    clips: list[Row] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)

    @property
    def kept(self) -> dict[str, list[str]]:
        """Source id → ids of the clips that are kept."""
        found: dict[str, list[str]] = {}
        for clip in self.clips:
            if clip["kept"]:
                found.setdefault(clip["source_id"], []).append(clip["clip_id"])
        return found


def collect(sources: Iterable[Row], graph: Graph, store: Store, config: CurateConfig) -> Collected:
    """Read the scores of all clips and select among them."""
    found = Collected(runs={row["source_id"]: SourceRun(row, graph, store.source_folder(row["source_id"])) for row in sources})
    for source_id, run in found.runs.items():
        failure = run.failure()
        if failure is not None:
            found.failures[source_id] = failure
        elif run.next_step() is None:
            found.clips += planned_clips(run)
        else:
            found.undone.append(run.row["uri"])
    found.clips = select(found.clips, config, (*graph.scores, *graph.tags))
    if config.scores.dedup != "off":
        found.clips = reject_duplicates(found.clips, found.runs, config.scores)
    return found


def planned_clips(run: SourceRun) -> list[Row]:
    """A row per plan with its span and the scores and tags of the stages per source."""
    columns, rows = run.columns, []
    scored = {
        name: columns[name] for stage in run.graph.source_stages for name in (*stage.scores, *stage.tags) if name in columns
    }
    info, video = columns["info"], columns["video"]
    for i, plan in enumerate(columns["plans"]):
        rows.append(
            {
                "clip_id": plan.clip_id,
                "source_id": run.row["source_id"],
                "uri": run.row["uri"],
                "image": run.row["image"],
                "shot_index": plan.shot_index,
                "start_pts": plan.start_pts,
                "end_pts": plan.end_pts,
                "start_s": plan.start_s,
                "end_s": plan.end_s,
                "duration_s": round(plan.end_s - plan.start_s, 6),
                "num_frames": plan.last - plan.first,
                "source_fps": video["fps"] if video else 0.0,
                "source_height": info.height,
                "source_width": info.width,
                "caption": run.row["caption"],
                **{name: values[i] if values is not None else None for name, values in scored.items()},
            }
        )
    return rows


def finish_clips(found: Collected, *, missing: str = "") -> dict[str, str]:
    """Add to every kept clip what the stages per clip made; one whose stage failed becomes rejected. Returns encode keys.

    `missing`: the reason of kept clips that were never encoded; "" if there can be none.
    """
    keys: dict[str, str] = {}
    for clip in found.clips:
        if not clip["kept"]:
            continue
        run = found.runs[clip["source_id"]]
        failure = run.failure(clip["clip_id"])
        encoded = run.commit(run.graph[ENCODE], clip["clip_id"])
        if failure is not None:
            reason = failure.code if failure.code in KEPT_CODES else f"{failure.stage.upper()}_FAILED"
            clip |= {"kept": False, "reasons": [reason]}
        elif encoded is None and missing:
            clip |= {"kept": False, "reasons": [missing]}
        else:
            clip |= _made(run, clip["clip_id"])
            clip["caption"] = clip["caption"] or str(clip["about"].get("caption") or clip.get("caption_text") or "")
            clip["key"] = clip["clip_id"]
            keys[clip["clip_id"]] = run.keys[ENCODE]
    return keys


def _made(run: SourceRun, clip_id: str) -> Row:
    made: Row = {}
    for stage in run.graph.clip_stages:
        if stage.images or not run.row["image"]:
            commit = run.commit(stage, clip_id)
            if commit is None:
                raise RuntimeError(f"the executor left the stage {stage.name!r} of clip {clip_id!r} undone")
            made |= {name: commit[name] for name in stage.outputs}
    return made


def samples(clips: Iterable[Row], keys: dict[str, str]) -> list[Sample]:
    """What is to be packed."""
    return [
        Sample(
            source_id=clip["source_id"],
            clip_id=clip["clip_id"],
            start_pts=clip["start_pts"],
            bucket=clip["bucket"],
            bytes=clip["bytes"],
            encode_key=keys[clip["clip_id"]],
            text=json.dumps(_facts(clip), ensure_ascii=False, sort_keys=True),
        )
        for clip in clips
        if clip["kept"]
    ]


def _facts(clip: Row) -> Row:
    facts = {name: clip[name] for name in JSON_FIELDS} | {"motion": clip["motion"] or 0.0}
    return facts | {name: clip[made] for name, made in JSON_IF_ANY.items() if clip.get(made)}


def make_tables(found: Collected, unreadable: list[Row], shards: dict[str, str]) -> dict[str, list[Row]]:
    """The rows of all tables but `runs`. A moved file's rows carry its new place."""
    tables: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    tables["quarantine"] = list(unreadable)
    of_source: dict[str, list[Row]] = {}
    for clip in found.clips:
        clip["motion"] = clip["motion"] or 0.0  # an image does not move
        of_source.setdefault(clip["source_id"], []).append(clip)
        if clip["kept"]:
            tables["clips"].append({**clip, "shard": shards[clip["clip_id"]]})
        else:
            tables["rejected"].append(clip)
    for source_id, run in found.runs.items():
        clips = of_source.get(source_id, [])
        failure = found.failures.get(source_id) or _no_clip(run, clips)
        if failure is None:
            tables["sources"].append({**run.row, **_source_facts(run, clips)})
        else:
            for uri in (run.row["uri"], *run.row["duplicates"]):
                own = replace(failure, message=failure.message.replace(run.row["uri"], uri))
                tables["quarantine"].append(quarantine_row({**run.row, "uri": uri}, source_id, own))
        tables["shots"] += [{"source_id": source_id, **shot} for shot in run.columns.get("shots") or ()]
        tables["events"] += _events(run, clips)
    tables["quarantine"].sort(key=lambda row: row["uri"])
    return tables


def extra_columns(graph: Graph) -> dict[str, dict[str, pa.DataType]]:
    """Table → the columns that it has because of the stages that ran."""
    own = {**dict.fromkeys(graph.tags, pa.string()), **dict.fromkeys(graph.scores, pa.float64())}
    if "signatures" in graph.maker:
        own |= {"duplicate_of": pa.string(), "duplicate_kind": pa.string(), "duplicate_score": pa.float64()}
    kept: dict[str, pa.DataType] = {"crop": pa.list_(pa.int32())}
    if "caption_windows" in graph.maker:
        kept["caption_windows"] = pa.list_(pa.struct(WINDOW))
    if "caption_embedding" in graph.maker:
        kept["caption_embedding"] = pa.list_(pa.float32())
    return {"clips": own | kept, "rejected": own}


def _no_clip(run: SourceRun, clips: list[Row]) -> Failure | None:
    """Why a source that went through all stages has no clip: what broke it, else its most frequent reason."""
    if any(clip["kept"] for clip in clips):
        return None
    video: Row | None = run.columns["video"]
    if video and video["problem"]:
        message = f"Only {video['num_good_frames']} frames decode well, and no span of them gives a clip."
        return Failure(stage="watch", code=video["problem"], message=message)
    reasons = [reason for clip in clips for reason in clip["reasons"]]
    if not reasons:
        return Failure(stage="plan", code="BLANK", message="Every frame is nearly uniform black or white, or in a transition.")
    code = max(sorted(set(reasons)), key=reasons.count)
    longest_s = max(clip["duration_s"] for clip in clips)
    count = video["num_frames"] if video else 1
    message = f"{count} frames gave no clip: {len(clips)} rejected, the longest of {longest_s:.2f} s."
    stage = code.removesuffix("_FAILED").lower() if code.endswith("_FAILED") else ENCODE if code in KEPT_CODES else "select"
    return Failure(stage=stage, code=code, message=message)


def _source_facts(run: SourceRun, clips: list[Row]) -> Row:
    columns = run.columns
    info: Any = columns["info"]
    video = columns["video"] or {
        "fps": 0.0,
        "variable_rate": False,
        "num_frames": 1,
        "duration_s": 0.0,
        "partial": False,
        "problem": "",
    }
    facts = {name: getattr(info, name) for name in ("codec", "pixel_format", "width", "height", "rotation", "has_audio")}
    shots, kept = columns["shots"], sum(clip["kept"] for clip in clips)
    return {**facts, **video, "num_shots": 1 if shots is None else len(shots), "num_clips": kept}


def _events(run: SourceRun, clips: list[Row]) -> list[Row]:
    """Seconds per stage, of the source and of its clips."""
    commits = [(None, run.commit(stage)) for stage in run.graph.source_stages]
    for clip in clips:
        if clip["kept"] or "encoding" in clip:
            commits += [(clip["clip_id"], run.commit(stage, clip["clip_id"])) for stage in run.graph.clip_stages]
    source_id = run.row["source_id"]
    return [{"source_id": source_id, "clip_id": clip_id, **commit.event} for clip_id, commit in commits if commit is not None]
