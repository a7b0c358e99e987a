"""The options of `worldfoundry simulate KIND`. Light to import: it draws in neither numpy nor MuJoCo."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from worldfoundry.core.config import Config


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

    seed: int = Field(default=0, ge=0)
    """Seed of the data set; episode i is drawn from (seed, i). Keep training and held-out seeds apart."""

    crf: int = Field(default=18, ge=0, le=51)
    """H.264 quality: smaller is better and larger on disk; 18 looks clean, 28 is visibly lossy."""

    workers: int = Field(default=1, ge=1, le=256)
    """Processes. Changes the speed, never the pictures."""


class PusherConfig(SimulateConfig):
    """Render episodes of a pusher that moves a block on a table, with its actions and exact states."""

    kind: ClassVar[str] = "pusher"

    frames: int = Field(default=150, ge=2, le=100_000)
    """Frames of each episode, at 12 frames per second."""
