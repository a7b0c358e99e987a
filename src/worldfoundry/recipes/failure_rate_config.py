"""The options of `worldfoundry evaluate failure-rate`. Light to import."""

from pathlib import Path

from pydantic import Field

from worldfoundry.core.config import Config, Seed


class FailureRateConfig(Config):
    """How often a world's futures fail, as people judge it: the videos, a page to judge them on, and the rates.

    Without --judgements the videos are made, of one and of nine given frames, and OUT/judge.html shows them in random order, true
    ones among them, without a word of where each is from. With --judgements what was judged there is counted.
    """

    world: str
    """Name of a shipped world, or a world folder. NAME+DECODER: its tokens drawn by a diffusion decoder."""
    others: tuple[str, ...] = ()
    """Worlds of the same size that continue the same frames, named as `world` is."""
    data: dict[str, Path]
    """Clip datasets by domain, made of scenes that no training saw: --data pusher HELD/pusher physics HELD/physics."""
    out: Path
    """Folder for videos.csv (what each video is), judge.html and results.json."""
    judgements: tuple[Path, ...] = ()
    """What judge.html exported (columns video, verdict); where several judge a video, the last counts."""
    clips: int = Field(default=100, ge=1)
    """Windows that are continued, spread evenly over the domains."""
    prefix_frames: tuple[int, ...] = Field(default=(1, 9), min_length=1)
    """Numbers of given frames; each window is continued from each."""
    seed: Seed = 0
    """Seed of the noise and of the page's order."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16; None keeps the stored one."""
