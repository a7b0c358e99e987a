"""The options of `worldfoundry simulate KIND`. Light to import: it draws in neither numpy nor MuJoCo."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from worldfoundry.core.config import Config, Seed
from worldfoundry.core.errors import did_you_mean

SCENARIOS = (
    "free_fall",
    "tilted_plank",
    "u_slope",
    "stable_stack",
    "unstable_stack",
    "dominoes",
    "seesaw",
    "gyroscope",
)
PLACES = ("room", "outdoors")


class SimulateConfig(Config):
    """What every kind of world is asked. `kind` names the file of the room that renders it."""

    kind: ClassVar[str]
    views: ClassVar[int] = 1  # cameras that look at every moment

    out: Path
    """Folder for the episodes. A folder that the same options began is continued; any other that is not empty is refused."""

    episodes: int = Field(default=100, ge=1, le=1_000_000)
    """How many episodes."""

    frames: int = Field(default=150, ge=2, le=100_000)
    """Frames of each episode."""

    size: int = Field(default=64, ge=16, le=1024, multiple_of=2)
    """Height and width in pixels."""

    seed: Seed = 0
    """Seed of the data set; episode i is drawn from (seed, i). Keep training and held-out seeds apart."""

    crf: int = Field(default=18, ge=0, le=51)
    """H.264 quality: smaller is better and larger on disk; 18 looks clean, 28 is visibly lossy."""

    workers: int = Field(default=1, ge=1, le=256)
    """Processes, or Ray actors. Changes the speed, never the pictures."""

    executor: Literal["process", "ray"] = "process"
    """What the workers are. `ray`: actors of the Ray that runs here or that RAY_ADDRESS names, else of one of its own."""


class PusherConfig(SimulateConfig):
    """Render episodes of a pusher that moves a block on a table, with its actions and exact states."""

    kind: ClassVar[str] = "pusher"

    frames: int = Field(default=150, ge=2, le=100_000)
    """Frames of each episode, at 12 frames per second."""

    format: Literal["episodes", "lerobot"] = "episodes"
    """`episodes`: one video and one table per episode. `lerobot`: the folder is a LeRobot v3.0 dataset."""


class SceneConfig(SimulateConfig):
    """What the textured worlds have in common."""

    episodes: int = Field(default=16, ge=1, le=1_000_000)
    """How many episodes."""

    size: int = Field(default=128, ge=16, le=1024, multiple_of=2)
    """Height in pixels."""

    width: int | None = Field(default=None, ge=16, le=2048, multiple_of=2)
    """Width in pixels; without it, the height."""

    crf: int = Field(default=20, ge=0, le=51)
    """H.264 quality: smaller is better and larger on disk; 20 looks clean, 28 is visibly lossy."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.size, self.width or self.size


def known(names: tuple[str, ...], values: tuple[str, ...], what: str) -> tuple[str, ...]:
    """`values`, if they are one or more of `names`, each once."""
    if not values:
        raise ValueError(f"at least one {what} is needed, of {', '.join(names)}")
    for value in values:
        if value not in names:
            raise ValueError(f"there is no {what} {value!r}. {did_you_mean(value, names)}")
    return tuple(dict.fromkeys(values))


class PhysicsConfig(SceneConfig):
    """Render things that fall, roll, topple and spin, seen by four cameras, with masks, depth, states and outcome."""

    kind: ClassVar[str] = "physics"
    views: ClassVar[int] = 4

    frames: int = Field(default=60, ge=2, le=10_000)
    """Frames of each episode, at 20 frames per second."""

    scenarios: tuple[str, ...] = SCENARIOS
    """Which scenarios, in turn: free_fall, tilted_plank, u_slope, stable_stack, unstable_stack, dominoes, seesaw, gyroscope."""

    masks: bool = True
    """Write the id of the object at every pixel."""

    depth: bool = True
    """Write metric depth."""

    @field_validator("scenarios")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return known(SCENARIOS, values, "scenario")


class CameraConfig(SceneConfig):
    """Render flights of a camera through rooms and gardens, with exact poses, intrinsics and depth."""

    kind: ClassVar[str] = "camera"

    frames: int = Field(default=60, ge=2, le=10_000)
    """Frames of each episode, at 20 frames per second."""

    places: tuple[str, ...] = PLACES
    """Which places, in turn: room, outdoors."""

    masks: bool = True
    """Write the id of the object at every pixel."""

    depth: bool = True
    """Write metric depth."""

    @field_validator("places")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return known(PLACES, values, "place")


class DrivingConfig(SceneConfig):
    """Render drives through a town, seen by the six cameras of a car, with calibration, trajectory and the other cars."""

    kind: ClassVar[str] = "driving"
    views: ClassVar[int] = 6

    frames: int = Field(default=40, ge=2, le=10_000)
    """Frames of each episode and camera, at 10 frames per second."""

    masks: bool = True
    """Write the id of the road user at every pixel."""

    depth: bool = True
    """Write metric depth."""
