"""The options of `worldfoundry evaluate tokenizer`. Light to import."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional

from worldfoundry.core.config import Config, Seed

Baseline = Literal["bicubic", "jpeg", "h264"]
Size = Annotated[int, Field(ge=16)]


class EvaluateTokenizerConfig(Config):
    """Reconstruct clips with tokenizers and with what else could store them in as little: one table, and a page to look at.

    Columns as in the paper: compression, frames, PSNR, SSIM, distances, milliseconds per frame, parameters, code usage.
    """

    clips: Positional[Path]
    """A folder of videos and images, or a clip dataset."""
    tokenizer: tuple[str, ...] = ()
    """Names of shipped tokenizers, or checkpoint folders."""
    peer: tuple[str, ...] = ()
    """Autoencoders of the installed `diffusers`: folders, or Hugging Face ids (FOLDER_OR_ID:SUBFOLDER for a part of it)."""
    out: Path
    """Folder for results.json and report.html."""
    baselines: tuple[Baseline, ...] = ("bicubic", "jpeg", "h264")
    """What stands beside each tokenizer: bicubic down and up at as many stored values, codecs at as many bits."""
    num_frames: int = Field(default=33, ge=1)
    """Frames of each clip, from its beginning; shorter clips are left out."""
    max_clips: int = Field(default=32, ge=1)
    """Most clips, taken evenly from all."""
    short_side: Size | None = None
    """Scale clips so that the shorter side has so many pixels; None keeps their size."""
    crop: tuple[Size, Size] | None = None
    """Height and width of the centre that is scored; None takes what all clips have."""
    metrics: tuple[str, ...] | None = None
    """Names of metrics. Default: psnr, ssim, and the packaged distances whose weights are in the cache."""
    fetch: bool = False
    """Fetch the weights that the metrics need."""
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of the clips' sources."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    show: int = Field(default=4, ge=0, le=100)
    """How many clips the report shows."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16 for all tokenizers; None keeps the stored one."""
