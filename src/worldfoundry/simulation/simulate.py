"""Render a data set: a folder that can be continued and is never mixed. Who renders: `executors.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldfoundry import __version__
from worldfoundry.core.devices import package_version
from worldfoundry.core.errors import UsageError
from worldfoundry.core.files import read_fields, sole_writer, write_json
from worldfoundry.core.progress import progress, say
from worldfoundry.simulation.config import SimulateConfig
from worldfoundry.simulation.executors import check, kind_of, render_all
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
    missing, or another process is writing there, MissingExtraError without mujoco or the executor, ResourceError when the disk is
    full or a worker dies.
    """
    load_mujoco()
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"{str(config.out)!r} is a file.", "Choose a folder for --out.")
    check(config)
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
        for name in render_all(config, todo):
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


def describe(config: SimulateConfig) -> dict[str, Any]:
    """What dataset.json says about the folder, known before the first frame; equal for runs that may share a folder."""
    options = config.to_dict()
    del options["out"], options["workers"], options["executor"]
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
