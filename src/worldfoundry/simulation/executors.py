"""Who renders: this process, several processes, or Ray actors. All give the same bytes; episodes do not know of each other.

One signature for all: `executor(config, indices)` renders and writes these episodes and yields the renderer's name after each.
A worker makes textures, models and its OpenGL context once and keeps them for all its episodes. Files are whole or absent, so a
worker may be stopped at any moment.
"""

import importlib.util
import logging
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from worldfoundry.core.errors import MissingExtraError, ResourceError, UsageError, WorldFoundryError
from worldfoundry.simulation.config import SimulateConfig
from worldfoundry.simulation.kind import Kind

DIED = ResourceError(
    "A rendering process died (out of memory, or killed).", "Run the same command again, with fewer --workers."
)


def kind_of(config: SimulateConfig) -> Kind:
    """The functions that render this kind of world; its file is imported only when it is asked for."""
    return import_module(f"worldfoundry.simulation.{config.kind}").KIND


def render_all(config: SimulateConfig, indices: list[int]) -> Iterator[str]:
    """Render with the executor that the config names. Raises what a worker raised, or ResourceError if one has died."""
    if config.executor == "ray":
        return render_with_ray(config, indices)
    alone = config.workers == 1 or len(indices) < 2
    return (render_here if alone else render_in_processes)(config, indices)


def check(config: SimulateConfig) -> None:
    """Raises MissingExtraError when the executor is not installed."""
    if config.executor == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


def render_here(config: SimulateConfig, indices: list[int]) -> Iterator[str]:
    """One after the other, in this process."""
    with kind_of(config).open_episodes(config) as write:
        for index in indices:
            yield write(index)


# --- processes -----------------------------------------------------------------------------------------------------


def render_in_processes(config: SimulateConfig, indices: list[int]) -> Iterator[str]:
    """Each of `config.workers` processes takes every n-th episode."""
    spawn = multiprocessing.get_context("spawn")  # an OpenGL context must not be forked
    results = spawn.Queue()
    shares = [indices[i :: config.workers] for i in range(min(config.workers, len(indices)))]
    workers = [spawn.Process(target=_work, args=(config, share, results), daemon=True) for share in shares]
    try:
        for worker in workers:
            worker.start()
        for _ in indices:
            yield next_result(results, workers)
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()


def _work(config: SimulateConfig, indices: list[int], results: Any) -> None:
    """In a worker: render until done, or until the parent is gone. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread_each()
    parent = multiprocessing.parent_process()
    try:
        for name in render_here(config, indices):
            results.put(name)
            if parent is not None and not parent.is_alive():
                return
    except WorldFoundryError as error:
        results.put(portable(error))


def one_thread_each() -> None:
    """llvmpipe draws with as many threads as there are cores; with a worker on each core, one is enough."""
    os.environ["LP_NUM_THREADS"] = "1"


def portable(error: WorldFoundryError) -> WorldFoundryError:
    """The same words and exit code in a class that survives the way from process to process: not all have a plain constructor."""
    kind = next(kind for kind in (UsageError, ResourceError, WorldFoundryError) if isinstance(error, kind))
    return kind(error.message, error.hint)


def next_result(results: Any, workers: list[Any], patience_s: float = 1.0) -> str:
    """What the next worker reports. Raises its error, or ResourceError if one has died."""
    while True:
        codes = [worker.exitcode for worker in workers]
        try:
            found = results.get(timeout=patience_s)
        except queue.Empty:
            if any(codes) or None not in codes:
                raise DIED from None
            continue
        return name_or_raise(found)


def name_or_raise(found: str | WorldFoundryError) -> str:
    """A worker's report: the renderer's name, or the error that it met."""
    if isinstance(found, WorldFoundryError):
        raise found
    return found


# --- Ray -----------------------------------------------------------------------------------------------------------


class Actor:
    """What lives in a Ray worker: opens the kind at its first episode and keeps it."""

    def __init__(self, config: SimulateConfig) -> None:
        one_thread_each()
        self.config, self.stack = config, ExitStack()
        self.render: Callable[[int], str] | None = None

    def write(self, index: int) -> str | WorldFoundryError:
        """Render and write one episode; an error is handed over, not raised, so that it arrives with its own words."""
        try:
            if self.render is None:
                self.render = self.stack.enter_context(kind_of(self.config).open_episodes(self.config))
            return self.render(index)
        except WorldFoundryError as error:
            return portable(error)


def render_with_ray(config: SimulateConfig, indices: list[int]) -> Iterator[str]:
    """`config.workers` actors with a core each; whoever is done takes the next episode.

    A Ray that already runs in this program or that RAY_ADDRESS names is used (`config.out` must then be a folder that all its
    machines share); else one is started on this machine, and stopped in the end.
    """
    check(config)
    import ray
    from ray.exceptions import RayActorError

    ours = not ray.is_initialized()
    if ours:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": config.workers, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    elsewhere = config.replace(out=config.out.resolve())  # an actor's working folder is its own
    actors: list[Any] = [ray.remote(num_cpus=1)(Actor).remote(elsewhere) for _ in indices[: config.workers]]
    try:
        waiting = iter(indices[len(actors) :])
        busy = {actor.write.remote(index): actor for actor, index in zip(actors, indices, strict=False)}
        while busy:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            actor = busy.pop(done)
            if (index := next(waiting, None)) is not None:
                busy[actor.write.remote(index)] = actor
            yield name_or_raise(ray.get(done))
    except RayActorError:
        raise DIED from None
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()
