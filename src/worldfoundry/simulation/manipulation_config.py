"""The options of `worldfoundry simulate manipulation`. Light to import: it draws in neither numpy nor MuJoCo."""

from typing import ClassVar

from pydantic import Field, field_validator

from worldfoundry.core.errors import did_you_mean
from worldfoundry.simulation.config import SimulateConfig

PANDA_TASKS = ("pick-place", "push", "stack")
CAMERAS = ("exo", "exo2", "wrist")
METAWORLD = "metaworld:"


class ManipulationConfig(SimulateConfig):
    """Render episodes of a robot arm that does what it is told, with actions, senses and success, as a LeRobot v3 dataset."""

    kind: ClassVar[str] = "manipulation"

    task: tuple[str, ...] = ("pick-place",)
    """Tasks, in turn: pick-place, push, stack (a Panda arm), or `metaworld:NAME` … or `metaworld:all` (a Sawyer arm)."""

    episodes: int = Field(default=20, ge=1, le=1_000_000)
    """How many episodes."""

    frames: int = Field(default=150, ge=20, le=10_000)
    """At most so many frames per episode (the Panda: 10 per second, Metaworld: 80 / --hold); it ends when the task is done."""

    size: int = Field(default=128, ge=16, le=1024, multiple_of=2)
    """Height and width of each camera in pixels."""

    cameras: tuple[str, ...] = CAMERAS
    """Which cameras: exo, exo2 (both look at the table), wrist. Each costs its own rendering."""

    shadows: bool = True
    """Draw shadows: better to look at, two to three times as slow."""

    mistakes: float = Field(default=0.0, ge=0, le=1)
    """Share of episodes in which the script aims beside the thing, so that failures exist as well (the Panda only)."""

    hold: int = Field(default=4, ge=1, le=16)
    """Metaworld: simulator steps (1/80 s) per frame and action; its scripts were written for 1, and fail more often above."""

    @field_validator("task")
    @classmethod
    def _known_tasks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values:
            raise ValueError(f"at least one task is needed, of {', '.join(PANDA_TASKS)}, {METAWORLD}NAME")
        foreign = [value for value in values if value.startswith(METAWORLD)]
        for value in values:
            if value not in foreign and value not in PANDA_TASKS:
                raise ValueError(f"there is no task {value!r}. {did_you_mean(value, (*PANDA_TASKS, METAWORLD + 'all'))}")
        if foreign and len(foreign) < len(values):
            raise ValueError("the Panda's tasks and Metaworld's have different actions: make two datasets")
        return tuple(dict.fromkeys(values))

    @field_validator("cameras")
    @classmethod
    def _known_cameras(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [value for value in values if value not in CAMERAS]
        if unknown:
            raise ValueError(f"there is no camera {unknown[0]!r}. {did_you_mean(unknown[0], CAMERAS)}")
        if not values:
            raise ValueError(f"at least one camera is needed, of {', '.join(CAMERAS)}")
        return tuple(dict.fromkeys(values))

    @property
    def is_metaworld(self) -> bool:
        return self.task[0].startswith(METAWORLD)
