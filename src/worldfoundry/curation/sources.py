"""One source from file to commit: fingerprint, group exact duplicates, run the stages, put the result in place at once."""

import json
from collections.abc import Iterable
from pathlib import Path

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import MediaError
from worldfoundry.core.files import atomic_folder, write_json
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.discover import is_image, local_copy, sha256_of
from worldfoundry.curation.executor import run_stages
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.rows import Failure, Outcome, Row
from worldfoundry.curation.shots import Transition, spans_between
from worldfoundry.curation.sidecars import read_caption
from worldfoundry.curation.stages import default_stages
from worldfoundry.curation.store import Store


class Fingerprints:
    """SHA-256 of contents, remembered by (uri, size, time of change) in a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                key, digest = json.loads(line)
            except ValueError:  # the last line of a killed run
                continue
            self.known[key] = digest

    def of(self, row: Row) -> str:
        """The source id of a file: the first 32 hex digits. Raises MediaError MISSING or UNREADABLE."""
        key = f"{row['uri']}|{row['bytes']}|{row['modified']}"
        if key not in self.known:
            self.known[key] = sha256_of(row["uri"])[:32]
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n" + json.dumps([key, self.known[key]]))
        return self.known[key]


def fingerprint(rows: Iterable[Row], store: Store) -> tuple[list[Row], list[Row]]:
    """(one row per distinct content with its `duplicates`, quarantine rows of files that cannot be read).

    Of several files with the same content, the first one with a sidecar speaks for all.
    """
    prints, groups, failures = Fingerprints(store.work / "fingerprints.jsonl"), {}, []
    for row in rows:
        try:
            groups.setdefault(prints.of(row), []).append(row)
        except MediaError as error:
            failure = Failure(stage="fingerprint", code=error.code, message=error.message)
            failures.append(quarantine_row(row, None, failure))
    sources = []
    for source_id, group in groups.items():
        first, *others = sorted(group, key=_speaks_first)
        sidecars = [sha256_of(uri) for uri in (first["episode_uri"], first["caption_uri"]) if uri]
        sources.append(
            {
                **first,
                "source_id": source_id,
                "duplicates": sorted(row["uri"] for row in others),
                "sidecars": stable_hash(sidecars) if sidecars else "",
            }
        )
    return sorted(sources, key=lambda row: row["uri"]), failures


def _speaks_first(row: Row) -> tuple[bool, bool, str]:
    return not (row["episode_uri"] or row["caption_uri"]), is_image(row["uri"]), row["uri"]


def quarantine_row(row: Row, source_id: str | None, failure: Failure) -> Row:
    return {
        "uri": row["uri"],
        "source_id": source_id,
        "stage": failure.stage,
        "code": failure.code,
        "message": failure.message,
        "bytes": row["bytes"],
    }


def process_source(row: Row, config: CurateConfig, out: Path) -> Row:
    """Run all stages on one source and commit what came of it, good or bad. Returns the commit.

    Safe to repeat and to kill: the source's folder appears whole, by one rename. Raises ResourceError (disk full).
    """
    folder = Store(out).source_folder(row["source_id"])
    with atomic_folder(folder, overwrite=True) as staging:
        outcome = _run(row, config, staging)
        commit = _commit(row, outcome)
        if commit["failure"]:
            for path in staging.iterdir():
                path.unlink()
        write_json(staging / "commit.json", commit)
    return commit


def _run(row: Row, config: CurateConfig, staging: Path) -> Outcome:
    try:
        with local_copy(row["uri"]) as path, local_copy(row["episode_uri"]) as episode, local_copy(row["caption_uri"]) as text:
            start = {
                "source_id": row["source_id"],
                "uri": row["uri"],
                "path": path,
                "staging": staging,
                "episode_path": episode if row["episode_uri"] else "",
                "caption": read_caption(text) if row["caption_uri"] else "",
            }
            return run_stages(start, default_stages(config))
    except MediaError as error:
        return Outcome(row=row, failure=Failure(stage="fetch", code=error.code, message=error.message))


def _commit(row: Row, outcome: Outcome) -> Row:
    result = outcome.row
    clips, rejected = result.get("clips", []), result.get("rejected", [])
    failure = outcome.failure or _no_clip(result)
    return {
        "source_id": row["source_id"],
        "sidecars": row["sidecars"],
        "failure": vars(failure) if failure else None,
        "source": None if failure else _source_facts(result),
        "shots": _shot_rows(row["source_id"], result),
        "clips": [] if failure else clips,
        "rejected": rejected,
        "events": [{"source_id": row["source_id"], **event} for event in outcome.events],
    }


def _no_clip(result: Row) -> Failure | None:
    """Why a source that went through all stages has no clip: what broke it, else its most frequent reason."""
    if result["clips"]:
        return None
    frames = result["frames"]
    if frames.problem:
        message = f"Only {int((~frames.damaged_T).sum())} frames decode well, and no span of them gives a clip."
        return Failure(stage="watch", code=frames.problem, message=message)
    reasons = [reason for clip in result["rejected"] for reason in clip["reasons"]]
    if not reasons:
        return Failure(stage="plan", code="BLANK", message="Every frame is nearly uniform black or white, or in a transition.")
    code = max(sorted(set(reasons)), key=reasons.count)
    longest_s = max(clip["duration_s"] for clip in result["rejected"])
    message = f"{len(frames)} frames gave no clip: {len(result['rejected'])} rejected, the longest of {longest_s:.2f} s."
    return Failure(stage="plan", code=code, message=message)


def _source_facts(result: Row) -> Row:
    info, frames = result["info"], result["frames"]
    facts = {name: getattr(info, name) for name in ("codec", "pixel_format", "width", "height", "rotation", "has_audio")}
    return {
        **facts,
        "image": is_image(result["uri"]),
        "fps": frames.fps if frames else 0.0,
        "variable_rate": bool(frames and frames.variable_rate),
        "num_frames": len(frames) if frames else 1,
        "duration_s": round(frames.seconds(frames.end_pts(len(frames) - 1)), 6) if frames else 0.0,
        "partial": bool(frames and frames.problem),
        "problem": frames.problem if frames else "",
        "num_shots": len(spans_between(result["transitions"], len(frames))) if frames else 1,
        "num_clips": len(result["clips"]),
    }


def _shot_rows(source_id: str, result: Row) -> list[Row]:
    """Shots between transitions, and the transitions on both sides of each; `start` and `end` are the file's own ends."""
    frames: FrameTable | None = result.get("frames")
    if frames is None:
        return []
    before: dict[int, Transition] = {t.end: t for t in result["transitions"]}
    after: dict[int, Transition] = {t.start: t for t in result["transitions"]}

    def seconds(frame: int) -> float:
        pts = int(frames.pts_T[frame]) if frame < len(frames) else frames.end_pts(frame - 1)
        return round(frames.seconds(pts), 6)

    rows = []
    for index, (start, end) in enumerate(spans_between(result["transitions"], len(frames))):
        opening, closing = before.get(start), after.get(end)
        rows.append(
            {
                "source_id": source_id,
                "shot_index": index,
                "start_pts": int(frames.pts_T[start]),
                "end_pts": frames.end_pts(end - 1),
                "start_s": seconds(start),
                "end_s": seconds(end),
                "num_frames": end - start,
                "opens_with": opening.kind if opening else "start",
                "opens_from_s": seconds(opening.start) if opening else seconds(start),
                "opens_confidence": opening.confidence if opening else 1.0,
                "closes_with": closing.kind if closing else "end",
                "closes_until_s": seconds(closing.end) if closing else seconds(end),
                "closes_confidence": closing.confidence if closing else 1.0,
            }
        )
    return rows
