"""Render a data set: episodes in one or several processes, a folder that can be continued and is never mixed."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from worldfoundry import __version__
from worldfoundry.core.devices import package_version
from worldfoundry.core.errors import ResourceError, UsageError, WorldFoundryError
from worldfoundry.core.files import read_fields, sole_writer, write_json
from worldfoundry.core.progress import progress, say
from worldfoundry.simulation.config import SimulateConfig
from worldfoundry.simulation.kind import Kind
from worldfoundry.simulation.render import load_mujoco

DATASET = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class SimulateSummary:
    """What `simulate` did. `rendered` episodes are new, `kept` were there from an earlier run of the same options."""

    out: Path
    rendered: int
    kept: int
    frames: int
    bytes: int
    renderers: tuple[str, ...]


def simulate(config: SimulateConfig) -> SimulateSummary:
    """Render `config.episodes` episodes into `config.out` and describe the folder in dataset.json.

    An interrupted run is continued by the same options. Raises UsageError when the folder holds anything else or OpenGL is
    missing, or another process is writing there, MissingExtraError without mujoco, ResourceError when the disk is full or a worker dies.
    """
    load_mujoco()
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"{str(config.out)!r} is a file.", "Choose a folder for --out.")
    kind_of(config).prepare(config)  # what cannot be had is said before anything is written
    with sole_writer(config.out):
        return _simulate(config)


def _simulate(config: SimulateConfig) -> SimulateSummary:
    kind, out = kind_of(config), config.out
    description = describe(config)
    begin(out, description)
    todo = [index for index in range(config.episodes) if not kind.is_whole(config, index)]
    kept = config.episodes - len(todo)
    if kept:
        say(f"{out}: {kept} of {config.episodes} episodes are already there")
    renderers = set(read_fields(out / DATASET).get("renderers", []))
    with progress("simulate", total=len(todo), unit="episodes") as bar:
        for name in _render_all(config, todo):
            renderers.add(name)
            bar.advance(1)
    kind.finish(config)
    write_json(out / DATASET, {**description, "complete": True, "renderers": sorted(renderers)})
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return SimulateSummary(
        out=out,
        rendered=len(todo),
        kept=kept,
        frames=kind.count_frames(config),
        bytes=size,
        renderers=tuple(sorted(renderers)),
    )


def kind_of(config: SimulateConfig) -> Kind:
    """The functions that render this kind of world; its file is imported only when it is asked for."""
    return import_module(f"worldfoundry.simulation.{config.kind}").KIND


def describe(config: SimulateConfig) -> dict[str, Any]:
    """What dataset.json says about the folder, known before the first frame; equal for runs that may share a folder."""
    options = config.to_dict()
    del options["out"], options["workers"]
    flags = " ".join(as_flag(name, value) for name, value in options.items())
    return {
        "format": "worldfoundry.episodes/1",
        "scene": config.kind,
        "command": f"worldfoundry simulate {config.kind} --out OUT {flags}",
        "options": options,
        "seeds": f"episode i is drawn from numpy default_rng(({config.seed}, i)), i = 0 … {config.episodes - 1}",
        **kind_of(config).facts(config),
        "versions": {
            "worldfoundry": __version__,
            **{name: package_version(name) for name in ("mujoco", "numpy", "av")},
        },
    }


def as_flag(name: str, value: Any) -> str:
    """An option as it is typed."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} " + (" ".join(map(str, value)) if isinstance(value, list) else str(value))


def begin(out: Path, description: dict[str, Any]) -> None:
    """Make the folder, or accept one that the same options began. Raises UsageError for any other folder that is not empty."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{str(out)!r} is a file.", "Choose a folder for --out.")
    if not out.exists() or not any(out.iterdir()):
        write_json(out / DATASET, {**description, "complete": False, "renderers": []})
        return
    if not (out / DATASET).exists():
        raise UsageError(f"The folder {str(out)!r} is not empty and holds no simulated data set.", "Choose another --out.")
    found = read_fields(out / DATASET)
    if found.get("scene") != description["scene"]:
        raise UsageError(f"The folder {str(out)!r} holds a data set of kind {found.get('scene')!r}.", "Choose another --out.")
    before = found.get("options")
    if before != description["options"]:
        differing = sorted(key for key, value in description["options"].items() if (before or {}).get(key) != value)
        raise UsageError(
            f"The folder {str(out)!r} holds a data set made with other options ({', '.join(differing)}).",
            "Give the same options to continue it, or choose another --out.",
        )
    for leftover in out.glob(".episode_*"):  # half a file of a process that was killed
        leftover.unlink()


def render_episodes(config: SimulateConfig, indices: list[int]) -> Iterator[str]:
    """Render and write these episodes in this process; yields the renderer's name after each."""
    with kind_of(config).open_episodes(config) as write:
        for index in indices:
            yield write(index)


def _render_all(config: SimulateConfig, todo: list[int]) -> Iterator[str]:
    """Render here, or in worker processes that each take every n-th episode; yields the renderer's name after each episode."""
    if config.workers == 1 or len(todo) < 2:
        yield from render_episodes(config, todo)
        return
    spawn = multiprocessing.get_context("spawn")  # an OpenGL context must not be forked
    results = spawn.Queue()
    shares = [todo[i :: config.workers] for i in range(min(config.workers, len(todo)))]
    workers = [spawn.Process(target=_work, args=(config, share, results), daemon=True) for share in shares]
    try:
        for worker in workers:
            worker.start()
        for _ in todo:
            yield next_result(results, workers)
    finally:
        # Files are whole or absent, so a worker may be stopped at any moment.
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()


def _work(config: SimulateConfig, indices: list[int], results: Any) -> None:
    """In a worker: render until done, or until the parent is gone. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["LP_NUM_THREADS"] = "1"  # llvmpipe: one worker per core, one thread per worker
    parent = multiprocessing.parent_process()
    try:
        for name in render_episodes(config, indices):
            results.put(name)
            if parent is not None and not parent.is_alive():
                return
    except WorldFoundryError as error:
        results.put(error)


def next_result(results: Any, workers: list[Any], patience_s: float = 1.0) -> str:
    """What the next worker reports. Raises its error, or ResourceError if one has died."""
    while True:
        codes = [worker.exitcode for worker in workers]
        try:
            found = results.get(timeout=patience_s)
        except queue.Empty:
            if any(codes) or None not in codes:
                raise ResourceError(
                    "A rendering process died (out of memory, or killed).", "Run the same command again, with fewer --workers."
                ) from None
            continue
        if isinstance(found, WorldFoundryError):
            raise found
        return found
