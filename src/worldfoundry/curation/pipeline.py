"""The whole of curation: find the sources, run what is pending on them, select clips, finish those, pack shards, write tables.

    discover → fingerprint → [stages per source] → select → [stages per clip] → shards → tables and report

What stands in brackets goes through an executor, one source at a time; the rest is quick and happens here.
"""

import json
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worldfoundry import __version__
from worldfoundry.core.devices import available_cores
from worldfoundry.core.errors import UsageError
from worldfoundry.core.provenance import code_commit
from worldfoundry.curation.collect import NOT_ENCODED, Collected, collect, extra_columns, finish_clips, make_tables, samples
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.discover import discover
from worldfoundry.curation.executors import Executor, open_executor
from worldfoundry.curation.fetch import Copies, copies_of
from worldfoundry.curation.graph import Graph, build_graph, spec_of
from worldfoundry.curation.meter import Meter, say_selected
from worldfoundry.curation.pack import loose_files, pack, read_ledger
from worldfoundry.curation.report.page import Curated, write_report
from worldfoundry.curation.rows import Row
from worldfoundry.curation.run import SourceRun
from worldfoundry.curation.scores.prepare import prepare, settled
from worldfoundry.curation.select import conditions
from worldfoundry.curation.shots_network import fetch_network
from worldfoundry.curation.sources import fingerprint
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.curation.stages import ENCODE
from worldfoundry.curation.store import REDO, Store
from worldfoundry.curation.tables import SCHEMAS, content_hash, read_table, write_table
from worldfoundry.curation.work import StageWork


@dataclass(frozen=True, kw_only=True)
class CurateSummary:
    """What a run ended with. `files` = sources + duplicates + quarantined; `rejected`, `quarantined` count by reason.

    `processed` counts the sources on which a stage ran, `content_hash` is the same for the same dataset however it came to be.
    """

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
    content_hash: str
    report: Path


def curate(
    config: CurateConfig,
    *,
    stages: Sequence[FunctionStage] = (),
    executor: Executor | None = None,
    retry: frozenset[str] = frozenset(),
) -> CurateSummary:
    """Make or complete the clip dataset at `config.out`; running it again resumes, and changes nothing if all is done.

    `stages` are stages of the caller's own. Failures with a code in `retry` are tried again. Bad files become rows of the
    quarantine table. Raises UsageError if the input holds no media or lacks files whose clips are in the dataset, or the
    machine cannot carry the plan; ResourceError if the disk is full (then the same call resumes).
    """
    timer = _Timer()
    config, own = _portable(config, stages)
    graph = build_graph(config, own)
    conditions(config, (*graph.scores, *graph.tags))  # a bad condition is said before the work
    prepare(config.scores)
    files = discover(config.input, exclude=config.out)
    store = Store(config.out)
    with ExitStack() as workers:
        run_on = executor or workers.enter_context(open_executor(config, graph))
        with store.opened(config):
            copies = copies_of(config)
            sources, unreadable = fingerprint(files, store, run_on, copies)
            _refuse_vanished(sources, store)
            store.save_sources(sources, unreadable, len(files))
            work = StageWork(config, own, retry)
            analysed = _pending(sources, graph, store, retry)
            timer.decoded_to_analyse = _run("analyse", run_on, work, analysed)
            found = collect(sources, graph, store, config)
            if found.undone:
                raise RuntimeError(f"the executor left {found.undone[0]!r} undone")
            say_selected(found.clips)
            _forget_lost(found, store)
            kept = found.kept
            finished = _pending(
                [{**row, "keep": kept[row["source_id"]]} for row in sources if row["source_id"] in kept], graph, store, retry
            )
            copies.forget(_addresses(row for row in sources if row["source_id"] not in kept))
            timer.decoded_to_encode = _run("finish clips", run_on, work, finished, copies)
            workers.close()  # now, so that the time and the memory of their processes count
            found.runs |= {row["source_id"]: SourceRun(row, graph, store.source_folder(row["source_id"])) for row in finished}
            processed = len({row["source_id"] for row in (*analysed, *finished)})
            return _publish(found, unreadable, len(files), graph, store, config, timer, processed)


def _run(phase: str, run_on: Executor, work: StageWork, rows: list[Row], last: Copies | None = None) -> int:
    """Run what is pending, with progress; copies are removed as it goes if nothing comes after. Returns frames decoded."""
    store = Store(work.config.out)
    runs = {
        row["source_id"]: SourceRun(row, work.graph, store.source_folder(row["source_id"]), retry=work.retry) for row in rows
    }
    with Meter(phase, work.graph.stages, {source_id: run.awaited() for source_id, run in runs.items()}) as meter:
        for result in run_on(work, rows):
            meter.add(result)
            if last is not None:
                last.forget(_addresses([runs[result["source_id"]].row]))
    return meter.decoded


def _addresses(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield from (row["uri"], row["episode_uri"], row["caption_uri"])


def reselect(config: CurateConfig, *, stages: Sequence[FunctionStage] = ()) -> CurateSummary:
    """Apply the thresholds of `config` to what an earlier run stored in `config.out`: nothing is decoded or encoded.

    A clip that they keep but that was never encoded stays among the rejected, as NOT_ENCODED: `curate` encodes it. Raises
    UsageError if there is nothing to select from.
    """
    timer, store = _Timer(), Store(config.out)
    config, own = _portable(config, stages)
    graph = build_graph(config, own)
    sources, unreadable, files = store.load_sources()
    with store.opened(config):
        found = collect(sources, graph, store, config)
        if found.undone:
            raise UsageError(
                f"{len(found.undone)} files have no scores of these parameters yet, such as {found.undone[0]!r}.",
                "Run `worldfoundry curate` with them first.",
            )
        _forget_lost(found, store)
        return _publish(found, unreadable, files, graph, store, config, timer, 0)


def _portable(config: CurateConfig, stages: Sequence[FunctionStage]) -> tuple[CurateConfig, tuple[FunctionStage, ...]]:
    """Nothing left to this process: stages by name where they can be found by it, scores settled. Raises UsageError."""
    named, alone = [], []
    for stage in stages:
        spec = spec_of(stage)
        if spec is not None:
            named.append(spec)
        elif config.executor != "process" or stage.isolate:
            raise UsageError(
                f"The stage {stage.name!r} is defined where no other process finds it ({stage.function.__module__}).",
                "Move it into a file, and name it in stages as file.py:name.",
            )
        else:
            alone.append(stage)
    absolute = [str(Path(spec).expanduser().absolute()) if _is_file(spec) else spec for spec in config.stages]
    here = {"shots": fetch_network(config.shots), "scores": settled(config.scores, config.where)}
    return config.replace(stages=(*absolute, *named), out=config.out.absolute(), **here), tuple(alone)


def _is_file(spec: str) -> bool:
    return spec.partition("?")[0].rpartition(":")[0].endswith(".py")


def _pending(rows: list[Row], graph: Graph, store: Store, retry: frozenset[str]) -> list[Row]:
    """The sources on which something is to be run."""
    runs = ((row, SourceRun(row, graph, store.source_folder(row["source_id"]), retry=retry)) for row in rows)
    return [row for row, run in runs if run.next_step() is not None]


def _refuse_vanished(sources: list[Row], store: Store) -> None:
    """Raises UsageError where the input lacks files whose clips are in the dataset: a disk may not be mounted."""
    here = {row["source_id"] for row in sources}
    gone = sorted({clip["uri"] for clip in read_table(store.tables, "clips") if clip["source_id"] not in here})
    if gone:
        raise UsageError(
            f"{str(store.out)!r} holds clips of {len(gone)} files that the input lacks, such as {gone[0]!r}.",
            f"Give the input that they came from (it may have grown). {REDO}",
        )


def _forget_lost(found: Collected, store: Store) -> None:
    """Let clips be encoded again whose files are neither loose nor in a shard (a shard was removed by hand)."""
    there = {(clip_id, entry[1]) for held in read_ledger(store).values() for clip_id, entry in held.items() if clip_id}
    for source_id, clip_ids in found.kept.items():
        run = found.runs[source_id]
        for clip_id in clip_ids:
            commit = run.commit(run.graph[ENCODE], clip_id)
            if commit is None or commit.failure or (clip_id, commit.key) in there:
                continue
            if "mp4" not in loose_files(store, source_id, clip_id, commit.key):
                run.forget(ENCODE, clip_id)


def _publish(
    found: Collected,
    unreadable: list[Row],
    files: int,
    graph: Graph,
    store: Store,
    config: CurateConfig,
    timer: "_Timer",
    processed: int,
) -> CurateSummary:
    """Shards, tables and report of what is committed."""
    keys = finish_clips(found, missing=NOT_ENCODED)
    shards = pack(store, samples(found.clips, keys), config.shard_mb)
    tables = make_tables(found, unreadable, shards)
    extra = extra_columns(graph)
    for name in SCHEMAS:
        if name != "runs":
            write_table(store.tables, name, tables[name], extra.get(name))
    summary = _summary(files, tables, processed, store)
    tables["runs"] = [*read_table(store.tables, "runs"), {**timer.row(), **_run_row(config, summary)}]
    write_table(store.tables, "runs", tables["runs"])
    write_report(
        Curated(store=store, config=config, graph=graph, clips=found.clips, runs=found.runs, tables=tables, summary=summary)
    )
    return summary


def _summary(files: int, tables: dict[str, list[Row]], processed: int, store: Store) -> CurateSummary:
    clips, sources = tables["clips"], tables["sources"]
    return CurateSummary(
        files=files,
        sources=len(sources),
        partial=sum(row["partial"] for row in sources),
        duplicates=sum(len(row["duplicates"]) for row in sources),
        clips=len(clips),
        images=sum(clip["encoding"] == "image" for clip in clips),
        video_s=round(sum(clip["duration_s"] for clip in clips), 3),
        rejected=dict(Counter(reason for row in tables["rejected"] for reason in row["reasons"]).most_common()),
        quarantined=dict(Counter(row["code"] for row in tables["quarantine"]).most_common()),
        processed=processed,
        content_hash=content_hash(store.tables),
        report=store.report,
    )


class _Timer:
    """What a run took."""

    def __init__(self) -> None:
        self.started, self.wall_s, self.cpu_s = datetime.now(UTC), time.perf_counter(), _cpu_s()
        self.decoded_to_analyse = self.decoded_to_encode = 0

    def row(self) -> Row:
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "wall_s": round(time.perf_counter() - self.wall_s, 3),
            "cpu_s": round(_cpu_s() - self.cpu_s, 3),
            "peak_memory_mb": peak_memory_mb(),
            "decoded_to_analyse": self.decoded_to_analyse,
            "decoded_to_encode": self.decoded_to_encode,
        }


def _run_row(config: CurateConfig, summary: CurateSummary) -> Row:
    return {
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


def _usage() -> list[Any]:
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in _usage())


def peak_memory_mb() -> float:
    """Largest resident size so far of this process, or of a child that has ended."""
    peak = max(usage.ru_maxrss for usage in _usage())
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # bytes on macOS, kilobytes elsewhere
