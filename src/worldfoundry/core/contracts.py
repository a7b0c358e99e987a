"""The contracts between rooms: protocols and the small frozen values that travel between them.

Axis legend: B batch, C channels, T frames, H height, W width, L text tokens, D width of an embedding.
Video in memory is uint8 `THWC` at the edge of the program and float32 in [-1, 1], `BCTHW`, inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


# --- tokenizers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """What a tokenizer does to shapes: `t`, `h`, `w` are compression factors, `levels` the FSQ levels (empty = continuous)."""

    t: int
    h: int
    w: int
    channels: int
    causal: bool
    levels: tuple[int, ...] = ()

    @property
    def discrete(self) -> bool:
        return bool(self.levels)

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of a clip of `num_frames` = 1 + t·k frames: 1 + k."""
        return 1 + (num_frames - 1) // self.t

    def round_up_frames(self, num_frames: int) -> int:
        """The smallest 1 + t·k that is at least `num_frames`."""
        return 1 + -(-(max(num_frames, 1) - 1) // self.t) * self.t


@runtime_checkable
class VideoTokenizer(Protocol):
    """Plain tensors in and out; an image is a video of one frame. `encode` returns the raw bottleneck, not normalised."""

    @property
    def spec(self) -> TokenizerSpec: ...
    def encode(self, x_BCTHW: Tensor) -> Tensor: ...
    def decode(self, z_BCTHW: Tensor) -> Tensor: ...
    def normalize(self, z_BCTHW: Tensor) -> Tensor: ...
    def denormalize(self, z_BCTHW: Tensor) -> Tensor: ...


class DiscreteVideoTokenizer(VideoTokenizer, Protocol):
    """A tokenizer with a codebook: `indices` are integers in [0, product of levels)."""

    def encode_indices(self, x_BCTHW: Tensor) -> Tensor: ...
    def decode_indices(self, indices_BTHW: Tensor) -> Tensor: ...


# --- world models --------------------------------------------------------------------------------------------------


class Denoiser(Protocol):
    """A network wrapped in a parametrisation: noisy latents and their sigma in, an estimate of the clean latents out."""

    def __call__(self, x_BCTHW: Tensor, sigma_B: Tensor, condition: Any) -> Tensor: ...


class World(Protocol):
    """Anything that makes video from a prompt, a prefix, actions or a camera path."""

    def generate(
        self,
        prompt: str | None = None,
        input: str | Path | np.ndarray | None = None,
        actions: np.ndarray | None = None,
        camera: Any = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        seed: int = 0,
        callback_on_step_end: Callable[[int, int, Tensor], None] | None = None,
    ) -> WorldVideo: ...


@dataclass(frozen=True, kw_only=True)
class WorldVideo:
    """A generated video with everything needed to make it again.

    `frames` are uint8 THWC; `config` is the resolved request; `verdicts` are what the guards said.
    """

    frames: np.ndarray
    fps: float
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    def save(self, path: str | Path, *, watermark: bool = True) -> Path:
        """Write `path` (H.264 mp4, seed and config in its metadata) and `path.json` beside it; returns the path.

        `watermark` puts an invisible mark into what is written (`core.watermark`), whose id is in the JSON.
        """
        from worldfoundry.core.video_io import save_world_video

        return save_world_video(self, Path(path), watermark=watermark)


# --- guards --------------------------------------------------------------------------------------------------------

VerdictStatus = Literal["safe", "unsafe", "skipped", "error"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one guard said. Anything but `safe` blocks. `evidence` holds the matched term, frame index, score, hash of weights, …

    `latency_s` is how long it took: no part of what was said, so it is not compared and not written beside outputs.
    """

    status: VerdictStatus
    guard: str
    category: str = ""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    latency_s: float = field(default=0.0, compare=False)

    @property
    def blocks(self) -> bool:
        return self.status != "safe"


@dataclass(frozen=True, kw_only=True)
class VideoItem:
    """What a video guard looks at: uint8 THWC frames (read-only), and their rate (0 for a single image)."""

    frames: np.ndarray
    fps: float


@runtime_checkable
class Guard(Protocol):
    """Looks at one item (`str` if it takes text, `VideoItem` if it takes video) and returns a verdict in its own name."""

    name: str
    takes: Literal["text", "video"]

    def check(self, item: Any) -> Verdict: ...


@runtime_checkable
class FrameTransform(Protocol):
    """A guard that changes frames instead of refusing them, such as one that pixelates faces.

    `apply` returns new uint8 frames of the same shape (those of the item stay as they are) and a verdict in its own name:
    `safe` says that the returned frames may leave, anything else blocks. One that raises blocks too.
    """

    name: str

    def apply(self, item: VideoItem) -> tuple[np.ndarray, Verdict]: ...


# --- evaluation ----------------------------------------------------------------------------------------------------

Tier = Literal["reference", "packaged", "none"]


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One row of results.json: a value with its sample size, interval and the hash of the protocol that made it."""

    name: str
    value: float
    n: int
    low: float
    high: float
    tier: Tier
    protocol: str
    note: str = ""


class Metric(Protocol):
    """Scores generated clips against references. `inputs` names what it reads; `tier` says whose weights it uses."""

    name: str
    inputs: tuple[str, ...]
    tier: Tier

    def __call__(self, **inputs: Any) -> MetricResult: ...


# --- curation ------------------------------------------------------------------------------------------------------


class Stage(Protocol):
    """A pure function of one row: declared columns in and out, resources, and a hash of its parameters."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...

    def params_hash(self) -> str: ...
    def __call__(self, row: Mapping[str, Any]) -> list[dict[str, Any]]: ...
