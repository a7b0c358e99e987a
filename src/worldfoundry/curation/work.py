"""What executors hand out, one row at a time: fingerprinting a file, and running the pending stages of a source."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from worldfoundry.core.errors import MediaError
from worldfoundry.curation.child import Child, Died, Place
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.fetch import Copies, copies_of
from worldfoundry.curation.graph import Graph, build_graph
from worldfoundry.curation.rows import Row
from worldfoundry.curation.run import SourceRun, Step, run_all
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.curation.store import Store

At = Callable[[Place | None, float], None]


def silent(place: Place | None, allowed_s: float) -> None:
    """Nobody watches."""


class Work(Protocol):
    """Can be pickled. `work(row)` does everything here; `guarded` does what is risky, or everything, in a child."""

    def __call__(self, row: Row, at: At = ...) -> Row: ...
    def guarded(self, row: Row, child: Child, *, everything: bool) -> Row: ...


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """SHA-256 of one file. Reading bytes is not risky."""

    copies: Copies

    def __call__(self, row: Row, at: At = silent) -> Row:
        try:
            return {"uri": row["uri"], "sha256": self.copies.sha256(row["uri"]), "code": "", "message": ""}
        except MediaError as error:
            return {"uri": row["uri"], "sha256": "", "code": error.code, "message": error.message}

    def guarded(self, row: Row, child: Child, *, everything: bool) -> Row:
        return self(row)


@dataclass(frozen=True)
class StageWork:
    """Runs a source's pending stages, each committed when it is done. Returns {"source_id", "events"}.

    `stages` are stages given as objects, which only this process knows. `only` names those to run (all if None). Safe to
    repeat and to kill. Raises ResourceError (disk full).
    """

    config: CurateConfig
    stages: tuple[FunctionStage, ...] = ()
    retry: frozenset[str] = frozenset()
    only: tuple[str, ...] | None = None
    isolated_only: bool = False

    @cached_property
    def copies(self) -> Copies:
        return copies_of(self.config)

    @cached_property
    def graph(self) -> Graph:
        return build_graph(self.config, self.stages)

    def __call__(self, row: Row, at: At = silent) -> Row:
        with self._local(row) as run:
            return {"source_id": row["source_id"], "events": self._run(run, at) if run else []}

    def guarded(self, row: Row, child: Child, *, everything: bool) -> Row:
        """A child that dies costs the source, or the clip, that it was at; the rest goes on in the next child."""
        risky = replace(self, stages=(), isolated_only=not everything)
        with self._local(row) as run:
            events: list[Row] = []
            while run is not None and (step := run.next_step(self.only)) is not None:
                if not (everything or step.isolate):
                    events += run.run(step)
                    continue
                try:
                    done = child.call(risky, {**run.row, "tried": sorted(run.tried, key=str)})["events"]
                    run.tried |= {(event["stage"], event["clip_id"]) for event in done}
                    events += done
                except Died as died:
                    events += self._died(run, step, died)
                run.refresh()
            return {"source_id": row["source_id"], "events": events}

    def _run(self, run: SourceRun, at: At) -> list[Row]:
        def announce(step: Step) -> None:
            at(step.names[0], run.allowed_s(step, self.config.timeout_s, self.config.timeout_factor))

        return run_all(run, only=self.only, isolated_only=self.isolated_only, at=announce)

    def _died(self, run: SourceRun, step: Step, died: Died) -> list[Row]:
        name, clip_id = died.place or step.names[0]
        stage = self.graph[name]
        code = f"{'DECODER' if stage.isolate else 'STAGE'}_{'TIMEOUT' if died.timed_out else 'CRASHED'}"
        return run.fail(Step(stages=(stage,), clip_id=clip_id), name, code, died.message)

    @contextmanager
    def _local(self, row: Row) -> Iterator[SourceRun | None]:
        """The source with its files on this machine; None if they could not be had, which is then committed."""
        folder = Store(Path(self.config.out)).source_folder(row["source_id"])

        def run_of(row: Row) -> SourceRun:
            return SourceRun(row, self.graph, folder, retry=self.retry)

        if "path" in row:  # in a child: its parent holds the copies
            yield run_of(row)
            return
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self.copies.local(row["uri"]))
                episode = stack.enter_context(self.copies.local(row["episode_uri"]))
            except MediaError as error:
                run = run_of(row)
                step = run.next_step(self.only)
                if step is not None:
                    run.fail(step, step.first.name, error.code, error.message)
                yield None
                return
            yield run_of({**row, "path": str(path), "episode_path": str(episode) if row["episode_uri"] else ""})

    def __getstate__(self) -> Row:
        """Without the graph and what it knows of copies, which every process builds for itself."""
        return {name: value for name, value in vars(self).items() if name not in ("graph", "copies")}
