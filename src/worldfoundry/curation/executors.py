"""Who runs the stages: this process, several processes, or Ray Data. The same graph, and the same dataset.

One signature for all: `executor(work, rows)` yields a result per row, in any order. What is wrong with a row is in its
commits, never an exception; what is raised concerns the run (a full disk) and ends it. Rows hold addresses and small values;
pictures stay in the workers, results in the commits.
"""

import importlib.util
import json
import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

from worldfoundry.core.devices import available_cores
from worldfoundry.core.errors import MissingExtraError, ResourceError, UsageError, WorldFoundryError
from worldfoundry.curation.child import Child, Stopped, portable
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import Graph
from worldfoundry.curation.rows import Row
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.curation.work import StageWork, Work


class Executor(Protocol):
    """Maps work over rows; no order promised."""

    def __call__(self, work: Work, rows: Iterable[Row]) -> Iterator[Row]: ...


def in_process(work: Work, rows: Iterable[Row]) -> Iterator[Row]:
    """One row after the other, everything here."""
    return map(work, rows)


@contextmanager
def open_executor(config: CurateConfig, graph: Graph) -> Iterator[Executor]:
    """The executor that the config names. Raises UsageError before anything is done if the machine cannot carry the plan."""
    check_stages_fit(graph, config)
    with ExitStack() as stack:
        if config.executor == "ray":
            yield stack.enter_context(_ray(config, graph))
        elif config.executor == "pool":
            yield stack.enter_context(Pool(pool_size(config, graph), config.memory_mb))
        elif config.isolate:
            child = stack.enter_context(Child(config.memory_mb))
            yield lambda work, rows: (work.guarded(row, child, everything=False) for row in rows)
        else:
            yield in_process


def check_stages_fit(graph: Graph, config: CurateConfig) -> None:
    """Raises UsageError for a stage that asks for more than this machine has, MissingExtraError if Ray is not installed."""
    if config.executor == "ray":
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray")
        return
    for stage in graph.stages:
        if stage.cpus > available_cores():
            message = f"The stage {stage.name!r} asks for {stage.cpus:g} CPUs, and this machine has {available_cores()}."
            raise UsageError(message, "Lower its cpus, or use a cluster: --executor ray --ray-address.")
        if stage.gpus and stage.gpus > (gpus := _gpus()):  # asking takes two seconds: it imports torch
            message = f"The stage {stage.name!r} asks for {stage.gpus:g} GPUs, and this machine has {gpus}."
            raise UsageError(message, "Lower its gpus, or use a cluster: --executor ray --ray-address.")


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


# --- processes -----------------------------------------------------------------------------------------------------


def pool_size(config: CurateConfig, graph: Graph) -> int:
    """As many workers as asked for, or as the machine's cores carry."""
    most = max((stage.cpus for stage in graph.stages), default=1.0)
    return config.workers or max(1, int(available_cores() // max(most, 1.0)))


class Pool:
    """Several child processes, each with a thread that hands it rows; whoever is done takes the next row."""

    def __init__(self, workers: int, memory_mb: float) -> None:
        self.children = [Child(memory_mb) for _ in range(workers)]

    def __call__(self, work: Work, rows: Iterable[Row]) -> Iterator[Row]:
        results: queue.Queue[Row | BaseException | None] = queue.Queue()
        serve, waiting, taking = self._serve, iter(rows), threading.Lock()
        threads = [
            threading.Thread(target=serve, args=(child, work, waiting, taking, results), daemon=True) for child in self.children
        ]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                found = results.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    running -= 1
                else:
                    yield found
        finally:
            if running:
                for child in self.children:
                    child.stop()
            for thread in threads:
                thread.join()

    def _serve(self, child: Child, work: Work, waiting: Iterator[Row], taking: threading.Lock, results: queue.Queue) -> None:
        """In a thread: hand rows to a child until there are none; what ends the run goes to the thread that asked."""
        try:
            while True:
                with taking:
                    row = next(waiting, None)
                if row is None:
                    break
                results.put(work.guarded(row, child, everything=True))
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that asked
            results.put(error)
        results.put(None)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.close()


# --- Ray Data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Stages that run in the same Ray actors, because they ask for the same: how many actors, and what each takes."""

    names: tuple[str, ...]
    actors: int
    cpus: float
    gpus: float


def ray_operators(stages: Sequence[FunctionStage], workers: int, gpus: float) -> list[Operator]:
    """Stages that follow each other and ask for the same become one operator; the workers are shared among those without GPU."""
    runs = [(need, tuple(stage.name for stage in run)) for need, run in groupby(stages, key=lambda s: (s.cpus, s.gpus))]
    share = max(1, workers // max(1, sum(1 for (_, gpu), _ in runs if not gpu)))
    return [
        Operator(names=names, actors=max(1, int(gpus // gpu)) if gpu else share, cpus=cpu, gpus=gpu)
        for (cpu, gpu), names in runs
    ]


def check_operators(operators: Sequence[Operator], cpus: float, gpus: float) -> None:
    """Raises UsageError if Ray could not start all actors at once and keep a CPU for itself: it would wait for ever."""
    needed = sum(operator.actors * operator.cpus for operator in operators) + 1
    needed_gpus = sum(operator.actors * operator.gpus for operator in operators)
    if needed > cpus or needed_gpus > gpus:
        parts = ", ".join(f"{o.actors} x {o.cpus:g} CPUs for {o.names[0]}..{o.names[-1]}" for o in operators)
        raise UsageError(
            f"Ray has {cpus:g} CPUs and {gpus:g} GPUs, and this needs {needed:g} and {needed_gpus:g}: {parts}, 1 for Ray itself.",
            "Use fewer --workers, or a larger cluster.",
        )


class RayWorker:
    """What lives in a Ray actor: one child, kept for all its rows."""

    def __init__(self, work: Work, memory_mb: float) -> None:
        self.work, self.child = work, Child(memory_mb)

    def __call__(self, item: dict[str, str]) -> dict[str, str]:
        """An error that concerns the run is handed over, not raised, so that it arrives with its own words."""
        before = json.loads(item["result"])
        if "error" in before:
            return item
        try:
            result = self.work.guarded(json.loads(item["row"]), self.child, everything=True)
        except WorldFoundryError as error:
            found = portable(error)
            result = {"error": [type(found).__name__, found.message, found.hint]}
        if "events" in result:
            result["events"] = before.get("events", []) + result["events"]
        return {**item, "result": json.dumps(result)}


@contextmanager
def _ray(config: CurateConfig, graph: Graph) -> Iterator[Executor]:
    """Ray Data over a cluster, or over a Ray that is started on this machine and stopped in the end."""
    import ray

    workers = config.workers or max(1, available_cores() - 1)
    ours = not ray.is_initialized()
    if ours:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if config.ray_address:
            ray.init(address=config.ray_address, **quiet)
        else:
            phases = [ray_operators(stages, workers, 0) for stages in (graph.source_stages, graph.clip_stages)]
            needed = max(math.ceil(sum(o.actors * o.cpus for o in phase)) for phase in phases)
            _check_local(graph)
            ray.init(address="local", num_cpus=needed + 1, include_dashboard=False, **quiet)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        if config.workers == 0 and config.ray_address:
            workers = max(1, int(cpus) - 1)
        for stages in (graph.source_stages, graph.clip_stages):
            check_operators(ray_operators(stages, workers, gpus), cpus, gpus)
        yield lambda work, rows: _ray_map(config, graph, workers, gpus, work, rows)
    finally:
        if ours:
            ray.shutdown()


def _check_local(graph: Graph) -> None:
    for stage in graph.stages:
        if stage.cpus > available_cores():
            message = f"The stage {stage.name!r} asks for {stage.cpus:g} CPUs, and this machine has {available_cores()}."
            raise UsageError(message, "Lower its cpus, or name a cluster with --ray-address.")


def _ray_map(config: CurateConfig, graph: Graph, workers: int, gpus: float, work: Work, rows: Iterable[Row]) -> Iterator[Row]:
    import ray

    items = [{"row": json.dumps(row), "result": "{}"} for row in rows]
    if not items:
        return
    worker: Any = RayWorker
    data = ray.data.from_items(items, override_num_blocks=min(len(items), 10_000))
    for part, operator in _parts(graph, workers, gpus, work, items[0]):
        data = data.map(
            worker,
            fn_constructor_kwargs={"work": part, "memory_mb": config.memory_mb},
            concurrency=min(operator.actors, len(items)),
            num_cpus=operator.cpus,
            num_gpus=operator.gpus or None,
        )
    for item in data.iter_rows():
        result = json.loads(item["result"])
        if "error" in result:
            kind, message, hint = result["error"]
            kinds: dict[str, Callable[..., WorldFoundryError]] = {"ResourceError": ResourceError, "UsageError": UsageError}
            raise kinds.get(kind, WorldFoundryError)(message, hint)
        yield result


def _parts(graph: Graph, workers: int, gpus: float, work: Work, item: dict[str, Any]) -> Iterator[tuple[Work, Operator]]:
    """The work of each operator: stages per source first, stages per clip where clips are to be kept."""
    if not isinstance(work, StageWork):
        yield work, Operator(names=("fingerprint",), actors=workers, cpus=1.0, gpus=0.0)
        return
    stages = graph.clip_stages if "keep" in json.loads(item["row"]) else graph.source_stages
    for operator in ray_operators(stages, workers, gpus):
        yield replace(work, only=operator.names), operator
