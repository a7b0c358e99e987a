"""The options of `worldfoundry evaluate world`. Light to import."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from worldfoundry.core.config import Config, Seed


class EvaluateWorldConfig(Config):
    """Let a world continue held-out clips, domain by domain, and score its futures beside what it has to beat.

    Controls: copy-last-frame, constant velocity, the median of the true clip (an oracle), the nearest training clip, and the
    tokenizer's ceiling (and the diffusion decoder's). Worlds with actions are also given other clips' actions and none.
    """

    world: str
    """Name of a shipped world, or a world folder. NAME+DECODER: its tokens drawn by a diffusion decoder."""
    others: tuple[str, ...] = ()
    """Worlds of the same size that continue the same frames, named as `world` is; told the actions only if `world` is."""
    adapter: str | None = None
    """An adapter to load first: a shipped name or a folder."""
    data: dict[str, Path]
    """Clip datasets by domain, made of scenes that no training saw: --data pusher HELD/pusher physics HELD/physics."""
    out: Path
    """Folder for results.json and report.html."""
    training: Path | None = None
    """The clip dataset that the world was trained on: adds the future of the training clip with the nearest prefix."""
    training_clips: int = Field(default=1500, ge=1)
    """Most training clips to search for it, spread over all."""
    max_clips: int = Field(default=48, ge=2)
    """Most windows per domain, spread evenly over its clips."""
    num_prefix_frames: int | None = Field(default=None, ge=1)
    """Given frames, of every world; None takes what `world` was trained for."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    """Sampling steps of diffusion worlds; None takes each world's own."""
    temperature: float | None = Field(default=None, ge=0)
    """Of autoregressive worlds, 0 for the likeliest token; None takes each world's own."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Of autoregressive worlds: the share of probability that is drawn from."""
    speculate: Literal["none", "medusa", "copy"] | None = None
    """Of autoregressive worlds: what guesses tokens, which changes the time alone. A batch goes fastest with `none`."""
    metrics: tuple[str, ...] | None = None
    """Names of metrics. Default: all that need no weights or whose weights are in the cache."""
    fetch: bool = False
    """Fetch the weights that the metrics need."""
    horizons: int = Field(default=3, ge=1, le=100)
    """Into how many equal spans the future is divided."""
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of the clips' sources."""
    seed: Seed = 0
    """Seed of the noise and of the bootstrap."""
    show: int = Field(default=4, ge=0, le=100)
    """How many clips per domain the report shows."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16; None keeps the stored one."""
