"""The whole of curation: discover, fingerprint, run the stages on what is new, pack shards, write tables and report."""

import json
import platform
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from worldfoundry import __version__
from worldfoundry.core.devices import available_cores
from worldfoundry.core.errors import UsageError
from worldfoundry.core.progress import progress
from worldfoundry.core.provenance import code_commit
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.discover import discover
from worldfoundry.curation.executor import Executor, in_process
from worldfoundry.curation.pack import pack
from worldfoundry.curation.report import write_report
from worldfoundry.curation.rows import RETRIED, Failure, Row
from worldfoundry.curation.sources import fingerprint, process_source, quarantine_row
from worldfoundry.curation.store import REDO, Store
from worldfoundry.curation.tables import SCHEMAS, read_table, write_table


@dataclass(frozen=True, kw_only=True)
class CurateSummary:
    """What a run ended with. `files` = sources + duplicates + quarantined; `rejected`, `quarantined` count by reason."""

    files: int
    sources: int
    partial: int
    duplicates: int
    clips: int
    images: int
    video_s: float
    rejected: dict[str, int]
    quarantined: dict[str, int]
    processed: int
    report: Path


def curate(config: CurateConfig, *, executor: Executor = in_process) -> CurateSummary:
    """Make or complete the clip dataset at `config.out`; running it again resumes, and changes nothing if all is done.

    Bad files become rows of the quarantine table. Raises UsageError if the input holds no media, or `out` was made
    from other input or with other parameters; ResourceError if the disk is full (then the same call resumes).
    """
    started, wall_s, cpu_s = datetime.now(UTC), time.perf_counter(), time.process_time()
    files = discover(config.input, exclude=config.out)
    store = Store(config.out)
    with store.opened(config):
        sources, unreadable = fingerprint(files, store)
        commits = {row["source_id"]: store.commit(row["source_id"]) for row in sources}
        todo = _unfinished(sources, commits, store)
        with progress("curate", total=len(todo), unit="files") as bar:
            for commit in executor(partial(process_source, config=config, out=config.out), todo):
                commits[commit["source_id"]] = commit
                bar.advance(note=_so_far(commits))
        tables = _collect(sources, commits, unreadable)
        shards = pack(store, tables["clips"], config.shard_mb)
        tables["clips"] = [{**clip, "shard": shards[clip["key"]]} for clip in tables["clips"]]
        summary = _summary(files, tables, len(todo), store.report)
        run = {
            "started": started.isoformat(timespec="seconds"),
            "wall_s": round(time.perf_counter() - wall_s, 3),
            "cpu_s": round(time.process_time() - cpu_s, 3),
            "peak_memory_mb": peak_memory_mb(),
        }
        tables["runs"] = [*read_table(store.tables, "runs"), _run_row(run, config, summary)]
        for name in SCHEMAS:
            write_table(store.tables, name, tables[name])
        write_report(store, tables, summary)
    return summary


def _unfinished(sources: list[Row], commits: dict[str, Row | None], store: Store) -> list[Row]:
    """Sources to process. Raises UsageError where going on would mix what is in the shards with something else."""
    packed = set(store.packed())
    sidecars = {row["source_id"]: row["sidecars"] for row in sources}
    gone, changed, todo = [], [], []
    for path in sorted(store.work.glob("*/commit.json")):
        commit = json.loads(path.read_text(encoding="utf-8"))
        in_shards = any(clip["key"] in packed for clip in commit["clips"])
        if in_shards and commit["source_id"] not in sidecars:
            gone.append(commit["clips"][0]["uri"])
        elif in_shards and commit["sidecars"] != sidecars[commit["source_id"]]:
            changed.append(commit["clips"][0]["uri"])
    if gone:
        raise UsageError(
            f"{str(store.out)!r} holds clips of {len(gone)} files that the input lacks, such as {gone[0]!r}.",
            f"Give the input that they came from (it may have grown). {REDO}",
        )
    if changed:
        raise UsageError(
            f"The sidecars of {len(changed)} files changed after their clips were packed, such as of {changed[0]!r}.", REDO
        )
    for row in sources:
        commit = commits[row["source_id"]]
        retry = commit and commit["failure"] and commit["failure"]["code"] in RETRIED
        if commit is None or retry or commit["sidecars"] != row["sidecars"]:
            todo.append(row)
    return todo


def _collect(sources: list[Row], commits: dict[str, Row | None], unreadable: list[Row]) -> dict[str, list[Row]]:
    """The tables' rows, in an order that depends on the input alone. A moved file's rows carry its new place."""
    tables: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    tables["quarantine"] = list(unreadable)
    for row in sources:
        commit = commits[row["source_id"]]
        if commit is None:
            raise RuntimeError(f"the executor returned nothing for {row['uri']!r}")
        place = {"uri": row["uri"]}
        if commit["failure"]:
            failure = Failure(**commit["failure"])
            for uri in (row["uri"], *row["duplicates"]):
                own = replace(failure, message=failure.message.replace(row["uri"], uri))
                tables["quarantine"].append(quarantine_row({**row, "uri": uri}, row["source_id"], own))
        else:
            tables["sources"].append({**row, **commit["source"]})
        tables["shots"] += commit["shots"]
        tables["clips"] += [{**clip, **place} for clip in commit["clips"]]
        tables["rejected"] += [{**clip, **place} for clip in commit["rejected"]]
        tables["events"] += commit["events"]
    tables["quarantine"].sort(key=lambda row: row["uri"])
    return tables


def _summary(files: list[Row], tables: dict[str, list[Row]], processed: int, report: Path) -> CurateSummary:
    clips, sources = tables["clips"], tables["sources"]
    return CurateSummary(
        files=len(files),
        sources=len(sources),
        partial=sum(row["partial"] for row in sources),
        duplicates=sum(len(row["duplicates"]) for row in sources),
        clips=len(clips),
        images=sum(clip["encoding"] == "image" for clip in clips),
        video_s=round(sum(clip["duration_s"] for clip in clips), 3),
        rejected=dict(Counter(reason for row in tables["rejected"] for reason in row["reasons"]).most_common()),
        quarantined=dict(Counter(row["code"] for row in tables["quarantine"]).most_common()),
        processed=processed,
        report=report,
    )


def _run_row(run: Row, config: CurateConfig, summary: CurateSummary) -> Row:
    return {
        **run,
        "files": summary.files,
        "processed": summary.processed,
        "clips": summary.clips,
        "quarantined": sum(summary.quarantined.values()),
        "input": config.input,
        "config": json.dumps(config.parameters()),
        "worldfoundry": __version__,
        "commit": code_commit(),
        "host": f"{platform.platform(terse=True)}, {available_cores()} cores",
    }


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # bytes on macOS, kilobytes elsewhere


def _so_far(commits: dict[str, Row | None]) -> str:
    done = [commit for commit in commits.values() if commit]
    bad = sum(commit["failure"] is not None for commit in done)
    return f"{sum(len(commit['clips']) for commit in done)} clips" + (f", {bad} files in quarantine" if bad else "")
