"""What can be chosen about curation. Imports nothing but the config base, so that `--help` stays quick."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from worldfoundry.core.config import EXECUTION, Config
from worldfoundry.curation.scores.config import ScoreConfig


class ShotConfig(Config):
    """Thresholds of the shot detector; luma runs from 0 to 255, times are seconds."""

    cut_threshold: float = Field(default=16.0, gt=0)
    """Least change of picture (luma levels, after block motion) that can be a cut."""
    cut_ratio: float = Field(default=1.8, ge=1)
    """How many times stronger than the frames around it a cut must be."""
    jump_threshold: float = Field(default=7.0, gt=0)
    """Least change of picture of a jump cut, a weaker change that stands out more from the frames around it."""
    jump_ratio: float = Field(default=5.0, ge=1)
    """How many times stronger than the frames around it a jump cut must be."""
    flash_s: float = Field(default=0.25, gt=0)
    """A picture that comes back within this time was a flash, not a cut."""
    fade_s: float = Field(default=2.0, gt=0)
    """Longest ramp of a fade on either side of its blank frames."""
    blank_luma: float = Field(default=28.0, gt=0, lt=128)
    """A frame this near to black or white in its mean, and nearly uniform, is blank."""
    blank_contrast: float = Field(default=4.0, gt=0)
    """Standard deviation of luma below which a frame counts as nearly uniform."""
    dissolve_threshold: float = Field(default=15.0, gt=0)
    """Least change of picture between both ends of a dissolve."""
    dissolve_mixture_error: float = Field(default=0.45, gt=0)
    """Largest error of the middle frame against the average of the ends, relative to their difference."""
    dissolve_contrast_kept: float = Field(default=0.85, gt=0)
    """Largest variance of the middle frame relative to the ends' (mixing two pictures lowers it)."""
    dissolve_ramp_error: float = Field(default=0.33, gt=0)
    """Largest error of the frames of a dissolve against a mixture of its ends, and of the mixture against even steps."""
    dissolve_half_s: tuple[float, ...] = (0.17, 0.34, 0.5, 0.75, 1.1)
    """Half lengths at which dissolves are looked for."""
    dissolve_min_s: float = Field(default=0.15, gt=0)
    """Shorter ramps are not taken for dissolves."""
    dissolve_max_s: float = Field(default=3.0, gt=0)
    """Longer ramps are not taken for dissolves."""
    wipe_threshold: float = Field(default=14.0, gt=0)
    """Least change of picture between both ends of a wipe."""
    wipe_unexplained: float = Field(default=0.28, gt=0)
    """Largest difference of a wipe's middle frame from what either shot shows there, relative to their difference."""
    wipe_decided: float = Field(default=0.63, gt=0, lt=1)
    """How clearly the blocks of a wipe's middle frame must belong to one shot or the other (0 halfway, 1 fully)."""
    wipe_unevenness: float = Field(default=0.35, gt=0)
    """Largest deviation of a wipe's front from even steps, relative to its way."""
    wipe_half_s: tuple[float, ...] = (0.17, 0.34, 0.6, 1.0)
    """Half lengths at which wipes are looked for."""
    network: Literal["off", "doubtful", "everywhere"] = "doubtful"
    """Where TransNet V2 looks (fetches 33 MB once): nowhere, where the fast detector is in doubt, or everywhere (use a GPU)."""
    doubt: float = Field(default=0.8, ge=0, le=1)
    """From this doubt on the network decides about cuts, fades and dissolves; 1 is even odds."""
    network_threshold: float = Field(default=0.4, gt=0, lt=1)
    """The network's answer from which on a doubtful transition is taken for one."""
    network_share: float = Field(default=0.12, ge=0, le=1)
    """Largest share of the frames that the network may look at where it looks at doubtful ones (at least one window of 64)."""


class EncodeConfig(Config):
    """What of a clip's picture is written."""

    crop: Literal["black", "any", "off"] = "black"
    """Cut away letterbox and pillarbox (black), or also bars of other colours and printed borders (any); off keeps them."""


class CurateConfig(Config):
    """Turn raw videos into a clip dataset: shots, clips, shards, tables and a report. The same command again resumes."""

    input: str
    """A folder, a file, a glob in quotes, a .txt list of files, or the same as an fsspec URL (s3://, gs://, https://)."""
    out: Path
    """Folder of the clip dataset."""
    min_s: float = Field(default=2.0, gt=0)
    """Shortest clip in seconds."""
    max_s: float = Field(default=60.0, gt=0)
    """Longest clip in seconds; longer takes are cut into equal parts."""
    trim_frames: int = Field(default=1, ge=0)
    """Frames left out on each side of a cut (two more beside fades and dissolves)."""
    min_motion: float = Field(default=0.0, ge=0)
    """Reject clips whose luma changes by less than this many levels (of 255) per second; 0 keeps all."""
    crf: int = Field(default=18, ge=0, le=51)
    """Quality of re-encoded clips: lower is better and larger."""
    gop: int = Field(default=12, ge=1, le=250)
    """Frames from one keyframe to the next in re-encoded clips."""
    copy_gop: int = Field(default=24, ge=0)
    """A whole H.264 file that is one clip is copied unchanged if its keyframes are at most so far apart; 0 never copies."""
    shard_mb: float = Field(default=256.0, gt=0)
    """Size at which a shard is closed, in megabytes."""
    where: tuple[str, ...] = ()
    """Further conditions on kept clips, on any score, tag or size: 'blur<=0.3' 'height>=480' 'camera!=shake'."""
    stages: tuple[str, ...] = ()
    """Stages of your own: package.module:name or file.py:name, parameters behind a question mark (file.py:blur?radius=3)."""
    shots: ShotConfig = ShotConfig()
    """Shot detection."""
    encode: EncodeConfig = EncodeConfig()
    """Which borders are cut away (as measured: needs scores.measure)."""
    scores: ScoreConfig = ScoreConfig()
    """What is measured of every clip, near-duplicates, embeddings and captions."""
    executor: Annotated[Literal["process", "pool", "ray"], EXECUTION] = "process"
    """Where stages run: in this process, in several processes, or on Ray. The dataset comes out the same."""
    workers: Annotated[int, Field(ge=0), EXECUTION] = 0
    """How many sources are worked on at once by pool and ray; 0 is as many as there are cores (one fewer on Ray)."""
    ray_address: Annotated[str | None, EXECUTION] = None
    """The Ray cluster to use, such as auto or ray://host:10001; by default Ray is started on this machine."""
    isolate: Annotated[bool, EXECUTION] = True
    """Decode in a child process, so that a crash or a hang of a decoder costs one file."""
    memory_mb: Annotated[float, Field(gt=0), EXECUTION] = 8192.0
    """Memory that such a process may take, in megabytes."""
    timeout_s: Annotated[float, Field(gt=0), EXECUTION] = 600.0
    """Seconds that a stage may take on one source or clip, before the allowance for its length."""
    timeout_factor: Annotated[float, Field(ge=0), EXECUTION] = 30.0
    """Seconds allowed on top per second of video."""
    fetch_gb: Annotated[float, Field(ge=0), EXECUTION] = 50.0
    """Disk space for copies of files at URLs, each kept until the run is done with it; beyond it files are fetched for each step."""
    overwrite: Annotated[bool, EXECUTION] = False
    """Discard what an earlier curation left in the folder, and start anew."""

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.max_s < 2 * self.min_s:
            raise ValueError(
                f"max_s must be at least twice min_s, so that long takes can be cut; got {self.min_s:g}, {self.max_s:g}"
            )
        return self

    def parameters(self) -> dict[str, Any]:
        """What decides the content of the dataset beside the files."""
        return {name: value for name, value in self.identity().items() if name not in {"input", "out"}}
