"""What a stage is: a pure function of one row with declared inputs, outputs, parameters and version.

    @stage(inputs="pictures_THWC plans", scores="brightness")
    def brightness(row, *, gamma=1.0):
        return {"brightness": [...one number per plan...]}

The function sees the inputs that it declares and nothing else, and returns exactly the outputs that it declares: JSON
values, NumPy arrays, and lists or dictionaries of them. Its keyword-only arguments are its parameters. What a stage
computed is used again as long as its name, version, parameters and inputs stay the same, so count `version` up whenever
the same inputs and parameters would give something else.

`per` says what a row is:
  source  one file; runs on every file.
  frames  one file, watched in the one decoding pass that all stages of this kind share. The function returns a watcher:
          an object with `add(picture_HWC, time_s)`, called for each frame in order, or once in `every_s` seconds (uint8 RGB
          of the declared `picture` size, None for the frame's own, in stored orientation), and `result()`, which returns
          the outputs.
  clip    one planned clip that `select` keeps; the row has the source's columns, `plan`, and `staging`, an empty folder for
          files. It is the place for what is costly: encoding, captions.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from worldfoundry.core.config import stable_hash
from worldfoundry.core.contracts import Stage
from worldfoundry.core.errors import DataError, UsageError, did_you_mean
from worldfoundry.curation.rows import Row


class Watcher(Protocol):
    """What a stage per frames looks with."""

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None: ...
    def result(self) -> Row: ...


@dataclass(frozen=True, kw_only=True)
class FunctionStage:
    """A `Stage` made of a function.

    `scores` (numbers) and `tags` (words) are the outputs that become columns of the tables `clips` and `rejected`, and that
    `--where` can ask for: one value per plan in a stage per source or frames, one value in a stage per clip.
    `images`: runs on image files too; otherwise its outputs are None for them. `isolate`: opens foreign bytes, so it runs in
    a child process that may crash, hang or run out of memory.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[..., Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    per: Literal["source", "frames", "clip"] = "source"
    scores: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    picture: tuple[int, int] | None = (18, 32)
    every_s: float = 0.0
    images: bool = False
    isolate: bool = False
    cpus: float = 1.0
    gpus: float = 0.0

    def params_hash(self) -> str:
        seen = [self.picture, self.every_s] if self.per == "frames" else []
        return stable_hash([self.name, self.version, dict(self.parameters), *seen])

    def using(self, **parameters: Any) -> "FunctionStage":
        """A copy with some parameters changed. Raises UsageError for an unknown one."""
        for name in parameters:
            if name not in self.parameters:
                hint = did_you_mean(name, list(self.parameters)) if self.parameters else "It has none."
                raise UsageError(f"The stage {self.name!r} has no parameter {name!r}.", hint)
        return replace(self, parameters={**self.parameters, **parameters})

    def watcher(self, row: Mapping[str, Any]) -> Watcher:
        """For a stage per frames: what to show the frames to."""
        return self.function(self.view(row), **self.parameters)

    def view(self, row: Mapping[str, Any]) -> Row:
        """The columns that the stage declares, and `staging` for a stage per clip. Raises DataError if the row lacks one."""
        missing = [name for name in self.inputs if name not in row]
        if missing:
            raise DataError(f"The stage {self.name!r} needs the columns {missing!r}, which the row lacks.")
        extra = ("plan", "staging") if self.per == "clip" else ()
        return {name: row[name] for name in (*self.inputs, *extra)}

    def added(self, row: Mapping[str, Any]) -> Row:
        """The stage's outputs for a row. Raises DataError if they are not those declared."""
        if self.per == "frames":
            from worldfoundry.curation.lowres import Look, watch_frames

            watcher = self.watcher(row)
            watch_frames(row["path"], [Look(size=self.picture, add=watcher.add, every_s=self.every_s)])
            result = watcher.result()
        else:
            result = self.function(self.view(row), **self.parameters)
        return self.checked(result)

    def checked(self, result: Row) -> Row:
        """The outputs as they are. Raises DataError if they are not those declared."""
        if not isinstance(result, dict) or set(result) != set(self.outputs):
            got = sorted(result) if isinstance(result, dict) else type(result).__name__
            raise DataError(f"The stage {self.name!r} declares {sorted(self.outputs)} and added {got}.")
        return result

    def __call__(self, row: Mapping[str, Any]) -> list[Row]:
        return [{**row, **self.added(row)}]


def stage(
    *,
    inputs: str,
    outputs: str = "",
    scores: str = "",
    tags: str = "",
    name: str | None = None,
    version: int = 1,
    per: Literal["source", "frames", "clip"] = "source",
    picture: tuple[int, int] | None = (18, 32),
    every_s: float = 0.0,
    images: bool = False,
    isolate: bool = False,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> Callable[[Callable[..., Any]], FunctionStage]:
    """Make a function `(row, *, parameter=default, ...)` a stage; columns are named with spaces between them."""

    def wrap(function: Callable[..., Any]) -> FunctionStage:
        arguments = [a for a in inspect.signature(function).parameters.values() if a.kind is a.KEYWORD_ONLY]
        for argument in arguments:
            if argument.default is argument.empty:
                raise UsageError(f"The parameter {argument.name!r} of the stage {function.__name__!r} needs a default.")
        return FunctionStage(
            name=name or function.__name__,
            inputs=tuple(inputs.split()),
            outputs=tuple(dict.fromkeys(f"{outputs} {scores} {tags}".split())),
            function=function,
            parameters={argument.name: argument.default for argument in arguments},
            version=version,
            per=per,
            scores=tuple(scores.split()),
            tags=tuple(tags.split()),
            picture=picture,
            every_s=every_s,
            images=images,
            isolate=isolate,
            cpus=cpus,
            gpus=gpus,
        )

    return wrap


def check_stage(stage: Stage, row: Mapping[str, Any]) -> list[Row]:
    """Contract check for any stage: run it on `row` and return its rows. Raises DataError for a broken promise.

    It must add exactly its declared outputs, leave the given row as it was, and hash its parameters stably.
    """
    before = dict(row)
    results = stage(row)
    if row.keys() != before.keys() or any(row[name] is not before[name] for name in before):
        raise DataError(f"The stage {stage.name!r} changed the row that it was given.")
    for result in results:
        added = set(result) - set(before)
        if not set(stage.outputs) <= set(result) or not added <= set(stage.outputs):
            raise DataError(f"The stage {stage.name!r} declares {sorted(stage.outputs)} and added {sorted(added)}.")
    if stage.params_hash() != stage.params_hash() or not stage.params_hash():
        raise DataError(f"The stage {stage.name!r} has no stable parameter hash.")
    return results
