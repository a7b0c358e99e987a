"""The options of `worldfoundry evaluate`. Light to import."""

from pathlib import Path

from pydantic import Field

from worldfoundry.core.config import Config, Seed


class EvaluateGenerationConfig(Config):
    """Score generated clips against the true ones: results.json and a report to look at."""

    generated: Path
    """Folder of generated videos, each including its prefix frames."""

    reference: Path
    """Folder of the true videos; clips are matched by file name without the suffix."""

    prefix_frames: int = Field(ge=1)
    """How many first frames were given to the model; they are not scored."""

    out: Path
    """Folder for results.json and report.html."""

    horizons: int = Field(default=3, ge=1, le=100)
    """Into how many equal spans the future is divided."""

    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of the clips."""

    seed: Seed = 0
    """Seed of the bootstrap."""

    show: int = Field(default=6, ge=0, le=100)
    """How many clips the report shows."""
