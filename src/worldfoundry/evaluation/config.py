"""The options of `worldfoundry evaluate`. Light to import."""

from pathlib import Path

from pydantic import Field

from worldfoundry.core.config import Config, Seed


class ReferenceWeights(Config):
    """Published weights files of metrics that may bear their own names only with them."""

    vgg16: Path | None = None
    """torchvision's vgg16-397923af.pth: gives LPIPS."""

    inception: Path | None = None
    """NVIDIA's inception-2015-12-05.pt: gives FID. It is a program that runs on your machine: use a file that you trust."""

    i3d: Path | None = None
    """StyleGAN-V's i3d_torchscript.pt: gives FVD. It is a program that runs on your machine: use a file that you trust."""


class EvaluateGenerationConfig(Config):
    """Score generated clips against the true ones: results.json and a report to look at."""

    generated: Path
    """Folder of generated videos, each including its prefix frames."""

    reference: Path
    """Folder of the true videos; clips are matched by file name without the suffix."""

    prefix_frames: int | None = Field(default=None, ge=1)
    """How many first frames were given to the model; they are not scored. Default: 1, and every row says so."""

    out: Path = Path("evaluation")
    """Folder for results.json and report.html."""

    also: dict[str, Path] = Field(default_factory=dict)
    """More folders of generated clips, by name, e.g. --also shuffled runs/shuffled zero runs/zero."""

    training: Path | None = None
    """Folder of training clips: adds the future of the one with the nearest prefix as a baseline."""

    baseline: str = "copy last frame"
    """The candidate that the others are paired with."""

    unpaired: bool = False
    """Compare the folders as sets, for clips that have no partner of the same name: set distances only."""

    metrics: tuple[str, ...] | None = None
    """Names of the metrics, e.g. psnr ssim LPIPS-like[hed-vgg16]. Default: all that need no download or are in the cache."""

    fetch: bool = False
    """Fetch the weights that the metrics need."""

    weights: ReferenceWeights = ReferenceWeights()
    """Files that you bring for LPIPS, FID and FVD."""

    horizons: int = Field(default=3, ge=1, le=100)
    """Into how many equal spans the future is divided."""

    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of the clips."""

    seed: Seed = 0
    """Seed of the bootstrap."""

    show: int = Field(default=6, ge=0, le=100)
    """How many clips the report shows."""
