"""Which stages run, in which order, and under which key their results are stored.

A stage's key is a hash of its name, version and parameters and of the keys of the stages that made its inputs. So a
changed parameter gives new keys to that stage and to all that read what it makes, and to no other.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import yaml

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import UsageError, did_you_mean
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.rows import Row
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.curation.stages import default_stages

# What a source's row begins with. Of these, only the sidecars' contents can change for one and the same file.
BASE = ("source_id", "uri", "path", "image", "episode_path", "caption")


class Graph:
    """The stages in an order in which every input is made before it is read."""

    def __init__(self, stages: Iterable[FunctionStage]) -> None:
        self.stages = _in_order(tuple(stages))
        self.maker = {column: stage.name for stage in self.stages for column in stage.outputs}
        self.source_stages = tuple(stage for stage in self.stages if stage.per != "clip")
        self.clip_stages = tuple(stage for stage in self.stages if stage.per == "clip")

    def __getitem__(self, name: str) -> FunctionStage:
        return next(stage for stage in self.stages if stage.name == name)

    @cached_property
    def scores(self) -> tuple[str, ...]:
        return tuple(name for stage in self.stages for name in stage.scores)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        return tuple(name for stage in self.stages for name in stage.tags)

    def keys(self, row: Row) -> dict[str, str]:
        """Stage → key of its commit for this source."""
        made: dict[str, Any] = dict.fromkeys(BASE, "")
        made |= {"episode_path": row["episode_hash"], "caption": row["caption_hash"]}
        keys = {}
        for stage in self.stages:
            keys[stage.name] = stable_hash([stage.params_hash(), [made[name] for name in stage.inputs]], 16)
            made |= dict.fromkeys(stage.outputs, keys[stage.name])
        return keys


def build_graph(config: CurateConfig, stages: Sequence[FunctionStage] = ()) -> Graph:
    """The built-in stages, those that `config.stages` names, and those given as objects. Raises UsageError."""
    return Graph([*default_stages(config), *map(load_stage, config.stages), *stages])


def _in_order(stages: tuple[FunctionStage, ...]) -> tuple[FunctionStage, ...]:
    """As given, except that a stage comes after those whose outputs it reads, and stages per clip come last."""
    _check_names(stages)
    made, ordered = set(BASE), []
    waiting = sorted(stages, key=lambda stage: stage.per == "clip")
    while waiting:
        ready = next((stage for stage in waiting if made.issuperset(stage.inputs)), None)
        if ready is None:
            lacking = {name for stage in waiting for name in stage.inputs} - made
            unknown = sorted(lacking - {name for stage in waiting for name in stage.outputs})
            if unknown:
                reader = next(stage for stage in waiting if unknown[0] in stage.inputs)
                message = f"The stage {reader.name!r} reads {unknown[0]!r}, which no stage makes."
                raise UsageError(message, did_you_mean(unknown[0], sorted(made)))
            raise UsageError(f"The stages {', '.join(stage.name for stage in waiting)} wait for each other.")
        if ready.per != "clip" and any(stage.per == "clip" for stage in ordered):
            raise UsageError(f"The stage {ready.name!r} reads what a stage per clip makes; declare it per='clip' too.")
        waiting.remove(ready)
        ordered.append(ready)
        made |= set(ready.outputs)
    return tuple(ordered)


def _check_names(stages: tuple[FunctionStage, ...]) -> None:
    makers: dict[str, str] = dict.fromkeys(BASE, "the source itself")
    seen: set[str] = set()
    for stage in stages:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", stage.name):
            raise UsageError(f"{stage.name!r} cannot be a stage's name.", "Use small letters, digits and underscores.")
        if stage.name in seen:
            raise UsageError(f"There are two stages {stage.name!r}.", "Give one of them another name.")
        seen.add(stage.name)
        for column in stage.outputs:
            if column in makers:
                raise UsageError(f"The stage {stage.name!r} makes {column!r}, which {makers[column]!r} makes already.")
            makers[column] = stage.name


# --- stages by name ------------------------------------------------------------------------------------------------


def load_stage(spec: str) -> FunctionStage:
    """`package.module:name`, or `file.py:name`, with parameters behind a question mark: `mine.py:blur?radius=3&edge=mean`.

    Raises UsageError if there is no such module, name or parameter.
    """
    place, _, query = spec.partition("?")
    where, _, name = place.rpartition(":")
    if not where:
        raise UsageError(f"{spec!r} names no stage.", "Write package.module:name or file.py:name.")
    module = _module(where)
    found = getattr(module, name, None)
    if not isinstance(found, FunctionStage):
        known = [key for key, value in vars(module).items() if isinstance(value, FunctionStage)]
        hint = did_you_mean(name, known) if known else "It has none: decorate a function with worldfoundry.curation.stage."
        raise UsageError(f"{where!r} has no stage {name!r}.", hint)
    return found.using(**{key: yaml.safe_load(value) for key, value in parse_qsl(query, keep_blank_values=True)})


def _module(where: str) -> ModuleType:
    if where.endswith(".py"):
        return _module_of_file(Path(where).expanduser().resolve())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not (where == error.name or where.startswith(f"{error.name}.")):
            raise
        hint = "A file is named by its path: ./stages.py:name."
        raise UsageError(f"There is no module {where!r} to take a stage from.", hint) from error


def _module_of_file(path: Path) -> ModuleType:
    """A file as a module of a name of its own, imported once per process."""
    name = f"_worldfoundry_stages_{path.stem}_{stable_hash(str(path), 8)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UsageError(f"The file of stages {str(path)!r} does not exist.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], loaded = module, False
    try:
        spec.loader.exec_module(module)
        loaded = True
    finally:
        if not loaded:  # the next attempt reads the file again
            del sys.modules[name]
    return module


def spec_of(stage: FunctionStage) -> str | None:
    """What `load_stage` finds this very stage by; None if it can be found in no module (a notebook, a nested function)."""
    where, name = stage.function.__module__, stage.function.__qualname__
    module: Any = sys.modules.get(where)
    if where == "__main__" or not isinstance(found := getattr(module, name, None), FunctionStage):
        return None
    place = str(getattr(module, "__file__", "")) if where.startswith("_worldfoundry_stages_") else where
    changed = {key: value for key, value in stage.parameters.items() if found.parameters.get(key) != value}
    query = "&".join(f"{key}={_quoted(value)}" for key, value in changed.items())
    spec = f"{place}:{name}" + (f"?{query}" if query else "")
    return spec if _same(load_stage(spec).parameters, stage.parameters) else None


def _quoted(value: Any) -> str:
    from json import dumps
    from urllib.parse import quote

    return quote(dumps(value))


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return stable_hash(dict(a)) == stable_hash(dict(b))
