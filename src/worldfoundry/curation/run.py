"""Running the stages on one source: what is pending, one step at a time, each committed before the next.

A step is one stage, or the one decoding pass that feeds every stage that still needs frames. Everything wrong with a row is
a value: its commit says which stage failed, with which code. Only a full disk (ResourceError) and Ctrl-C are raised: they
concern the run, not the row.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from worldfoundry.core.errors import MediaError, ResourceError
from worldfoundry.core.files import disk_full_is_clear
from worldfoundry.core.video_io import count_decoded
from worldfoundry.curation.commits import Commit, Commits
from worldfoundry.curation.graph import BASE, Graph
from worldfoundry.curation.lowres import SCALED, Look, SmallPictures, watch_frames
from worldfoundry.curation.rows import RETRIED, Failure, Row, SourceError
from worldfoundry.curation.stage import FunctionStage, Watcher
from worldfoundry.curation.stages import WATCH, watched


@dataclass(frozen=True, kw_only=True)
class Step:
    """Stages that run together (one, unless they share a decoding pass), on a source or on one of its clips."""

    stages: tuple[FunctionStage, ...]
    clip_id: str | None = None

    @property
    def first(self) -> FunctionStage:
        return self.stages[0]

    @property
    def isolate(self) -> bool:
        return self.first.isolate

    @property
    def names(self) -> tuple[tuple[str, str | None], ...]:
        return tuple((stage.name, self.clip_id) for stage in self.stages)


@dataclass(kw_only=True)
class Spent:
    """What a stage took. Of stages that share a decoding pass, the first one pays for all that is not another's own work."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    decoded_frames: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Add what the block takes; CPU seconds are those of this thread, since decoders work in others meanwhile."""
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        yield
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.thread_time() - cpu_s


class Columns(Mapping[str, Any]):
    """A source's row: what it began with, and behind it the columns of its commits, each read when it is asked for."""

    def __init__(self, base: Row, graph: Graph, commit_of: Callable[[FunctionStage], Commit | None]) -> None:
        self.base, self.graph, self.commit_of = base, graph, commit_of

    def __getitem__(self, column: str) -> Any:
        if column in self.base:
            return self.base[column]
        stage = self.graph[self.graph.maker[column]]
        if self.base["image"] and not stage.images:
            return None
        commit = self.commit_of(stage)
        if commit is None:
            raise KeyError(column)
        return commit[column]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.base, *self.graph.maker))

    def __len__(self) -> int:
        return len(self.base) + len(self.graph.maker)

    def __contains__(self, column: object) -> bool:
        return column in self.base or column in self.graph.maker


class SourceRun:
    """One source and what is committed for it. `row["keep"]` lists the clips that stages per clip run on; absent at first."""

    def __init__(self, row: Row, graph: Graph, folder: Path, *, retry: frozenset[str] = frozenset()) -> None:
        self.row, self.graph, self.folder = row, graph, folder
        self.retried, self.keys = RETRIED | retry, graph.keys(row)
        self.tried: set[tuple[str, str | None]] = {(stage, clip_id) for stage, clip_id in row.get("tried", ())}
        self._read: dict[tuple[str, str | None], Commit] = {}
        self.columns = Columns({name: row[name] for name in BASE if name in row}, graph, self.commit)

    # --- what is there -----------------------------------------------------------------------------------------------

    def commits(self, clip_id: str | None = None) -> Commits:
        return Commits(self.folder / "clips" / clip_id if clip_id else self.folder)

    def commit(self, stage: FunctionStage, clip_id: str | None = None) -> Commit | None:
        """The commit of a stage under its present key."""
        place = stage.name, clip_id
        if place not in self._read:
            found = self.commits(clip_id).read(stage.name, self.keys[stage.name])
            if found is None:
                return None
            self._read[place] = found
        return self._read[place]

    def failure(self, clip_id: str | None = None) -> Failure | None:
        """Why the source, or one of its clips, has come to its end."""
        stages = self.graph.clip_stages if clip_id else self.graph.source_stages
        found = (self.commit(stage, clip_id) for stage in stages if self._applies(stage))
        return next((commit.failure for commit in found if commit and commit.failure), None)

    def next_step(self, only: Sequence[str] | None = None) -> Step | None:
        """What to run now among the stages named; None when all is done, the source has failed, or waits for another stage."""
        for stage in self.graph.source_stages:
            if self._applies(stage):
                if self._pending(stage):
                    if only is not None and stage.name not in only:
                        return None
                    return Step(stages=self._together(stage))
                commit = self.commit(stage)
                if commit is not None and commit.failure:
                    return None
        for clip_id in self.row.get("keep", ()):
            for stage in self.graph.clip_stages:
                if not self._applies(stage):
                    continue
                if self._pending(stage, clip_id):
                    if only is not None and stage.name not in only:
                        break
                    return Step(stages=(stage,), clip_id=clip_id)
                commit = self.commit(stage, clip_id)
                if commit is not None and commit.failure:
                    break
        return None

    def awaited(self) -> Counter[str]:
        """How often each stage is still to run, if none fails: on the source, or, once they are known, on its kept clips."""
        on_clips = "keep" in self.row
        stages = self.graph.clip_stages if on_clips else self.graph.source_stages
        places = self.row["keep"] if on_clips else (None,)
        due = (stage.name for place in places for stage in stages if self._applies(stage) and self._pending(stage, place))
        return Counter(due)

    def _applies(self, stage: FunctionStage) -> bool:
        return stage.images or not self.row["image"]

    def _pending(self, stage: FunctionStage, clip_id: str | None = None) -> bool:
        commit = self.commit(stage, clip_id)
        if commit is None:
            return True
        again = commit.failure is not None and commit.failure.code in self.retried
        return again and (stage.name, clip_id) not in self.tried

    def _together(self, first: FunctionStage) -> tuple[FunctionStage, ...]:
        """All pending stages that watch frames share a decoding pass, if what they read is there."""
        if first.name != WATCH and first.per != "frames":
            return (first,)
        others = [stage for stage in self.graph.source_stages if stage.per == "frames" and stage is not first]
        return (first, *(stage for stage in others if self._applies(stage) and self._pending(stage) and self._readable(stage)))

    def _readable(self, stage: FunctionStage) -> bool:
        makers = [self.graph[self.graph.maker[name]] for name in stage.inputs if name in self.graph.maker]
        return all(not self._applies(maker) or not self._pending(maker) for maker in makers)

    # --- what happens ------------------------------------------------------------------------------------------------

    def run(self, step: Step) -> list[Row]:
        """Carry out a step and commit it, good or bad. Returns an event per stage."""
        commits, started, cpu = self.commits(step.clip_id), time.perf_counter(), time.process_time()
        commits.sweep()
        staging, results, failed = None, [], None
        spent = {stage.name: Spent() for stage in step.stages}
        with count_decoded() as decoded:
            try:
                with disk_full_is_clear(commits.folder), _blaming(step.first.name):
                    row: Mapping[str, Any] = self.columns
                    if step.clip_id:
                        staging = commits.folder / ".staging"
                        staging.mkdir(parents=True)
                        row = self._clip_row(step.clip_id, staging)
                    shared = len(step.stages) > 1 or step.first.per == "frames"
                    results = self._watch(step, spent) if shared else [step.first.added(row)]
            except _Failed as error:
                failed = error
        first, others = spent[step.first.name], [spent[stage.name] for stage in step.stages[1:]]
        first.wall_s = time.perf_counter() - started - sum(other.wall_s for other in others)
        first.cpu_s = time.process_time() - cpu - sum(other.cpu_s for other in others)
        first.decoded_frames = decoded.frames
        if failed is not None:
            if staging is not None:
                commits.sweep()
            return self.fail(step, failed.stage, failed.code, failed.message, first)
        return self._commit(step, results, staging, spent)

    def _commit(self, step: Step, results: list[Row], staging: Path | None, spent: Mapping[str, Spent]) -> list[Row]:
        events: list[Row] = []
        for stage, result in zip(step.stages, results, strict=True):
            took = vars(spent[stage.name])
            try:
                with _blaming(stage.name):
                    commits = self.commits(step.clip_id)
                    commit = commits.write(stage.name, self.keys[stage.name], columns=result, staging=staging, **took)
            except _Failed as failed:  # the stage returned something that cannot be stored
                return events + self.fail(step, failed.stage, failed.code, failed.message)
            events.append(self._note(stage.name, step.clip_id, commit))
        return events

    def fail(self, step: Step, stage: str, code: str, message: str, spent: Spent | None = None) -> list[Row]:
        """Commit that a stage failed. What the message says of a temporary copy it says of the file itself."""
        before = self.commits(step.clip_id).read(stage, self.keys[stage])
        attempt = before.failure.attempt + 1 if before and before.failure else 1
        message = message.replace(str(self.row.get("path") or self.row["uri"]), self.row["uri"])
        failure = Failure(stage=stage, code=code, message=message, attempt=attempt)
        commit = self.commits(step.clip_id).write(stage, self.keys[stage], failure=failure, **vars(spent or Spent()))
        return [self._note(stage, step.clip_id, commit)]

    def forget(self, stage: str, clip_id: str) -> None:
        """Let a stage of a clip run again."""
        self.commits(clip_id).forget(stage)
        self._read.pop((stage, clip_id), None)

    def refresh(self) -> None:
        """Read commits anew: another process has written some."""
        self._read.clear()

    def _note(self, stage: str, clip_id: str | None, commit: Commit) -> Row:
        self._read[stage, clip_id] = commit
        self.tried.add((stage, clip_id))
        return {**commit.event, "clip_id": clip_id, "code": commit.failure.code if commit.failure else ""}

    def _clip_row(self, clip_id: str, staging: Path) -> Row:
        plan = next(plan for plan in self.columns["plans"] if plan.clip_id == clip_id)
        names = {name for stage in self.graph.clip_stages for name in stage.inputs}
        made_here = {name: self.graph[maker] for name, maker in self.graph.maker.items() if self.graph[maker].per == "clip"}
        row: Row = {name: self.columns[name] for name in names if name not in made_here}
        for name in names & made_here.keys():
            commit = self.commit(made_here[name], clip_id)
            if commit is not None:
                row[name] = commit[name]
        return {**row, "plan": plan, "staging": staging}

    def _watch(self, step: Step, spent: Mapping[str, Spent]) -> list[Row]:
        """One decoding pass for all stages of the step."""
        pictures, watchers = SmallPictures(), {}
        looks: list[Look] = []
        for stage in step.stages:
            if stage.name == WATCH:
                looks.append(Look(size=SCALED, add=pictures.add))
            else:
                with _blaming(stage.name), spent[stage.name].counted():
                    watchers[stage.name] = stage.watcher(self.columns)
                add = _blamed(stage.name, watchers[stage.name], spent[stage.name])
                looks.append(Look(size=stage.picture, add=add, every_s=stage.every_s))
        frames = watch_frames(self.columns["path"], looks)
        results = []
        for stage in step.stages:
            if stage.name == WATCH:
                results.append(watched(frames, pictures.result()))
                continue
            with _blaming(stage.name), spent[stage.name].counted():
                results.append(stage.checked(watchers[stage.name].result()))
        return results

    def allowed_s(self, step: Step, timeout_s: float, factor: float) -> float:
        """How long a step may take."""
        info = self.columns.get("info")
        return timeout_s + factor * (info.duration_s if info is not None else 0.0)


class _Failed(Exception):
    """What is wrong with a row, and which stage says so."""

    def __init__(self, stage: str, code: str, message: str) -> None:
        self.stage, self.code, self.message = stage, code, message


@contextmanager
def _blaming(stage: str) -> Iterator[None]:
    """Turn everything that may be wrong with one row into `_Failed`."""
    try:
        yield
    except (MediaError, SourceError) as error:
        raise _Failed(stage, error.code, error.message) from error
    except MemoryError as error:
        raise _Failed(stage, "OUT_OF_MEMORY", "Not enough memory for this file.") from error
    except FFmpegError as error:
        raise _Failed(stage, "DECODE_ERROR", str(error)) from error
    except (_Failed, ResourceError, ImportError):
        raise
    except Exception as error:  # a stage's author may raise what he likes, and it costs one row
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _Failed(stage, "INTERNAL_ERROR", f"{type(error).__name__}: {error}") from error


def _blamed(stage: str, watcher: Watcher, spent: Spent) -> Callable[[np.ndarray, float], None]:
    def add(picture_HWC: np.ndarray, time_s: float) -> None:
        with _blaming(stage), spent.counted():
            watcher.add(picture_HWC, time_s)

    return add


def run_all(run: SourceRun, *, only: Sequence[str] | None, isolated_only: bool, at: Callable[[Step], None]) -> list[Row]:
    """Run pending steps here, as long as they are among `only` and, if so asked, need isolation."""
    events: list[Row] = []
    while (step := run.next_step(only)) is not None:
        if isolated_only and not step.isolate:
            break
        at(step)
        events += run.run(step)
    return events
