"""What `simulate` has to know about a kind of world; each kind's file offers one as `KIND`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any


def nothing(_config: Any) -> None:
    """For kinds that need no assets, or whose episodes are whole as they are written."""


def as_asked(config: Any) -> int:
    """Frames of all cameras, for kinds whose episodes are exactly as long as asked."""
    return config.episodes * config.frames * config.views


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Functions of the kind's config.

    prepare: called once, in the parent process, before anything is written: fetches assets, raises for what is missing.
    facts: what dataset.json says about every episode (fps, names of values, layout), known before the first frame.
    open_episodes: a context in which `write(index)` renders and writes one episode and returns the renderer's name. It is
        opened once per process, so textures and compiled models are made there.
    is_whole: whether episode `index` is already complete on disk.
    finish: called once, in the parent process, when all episodes are there.
    count_frames: how many frames the finished folder holds, over all episodes and cameras.
    """

    facts: Callable[[Any], dict[str, Any]]
    open_episodes: Callable[[Any], AbstractContextManager[Callable[[int], str]]]
    is_whole: Callable[[Any, int], bool]
    prepare: Callable[[Any], None] = nothing
    finish: Callable[[Any], None] = nothing
    count_frames: Callable[[Any], int] = as_asked
