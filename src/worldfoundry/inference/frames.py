"""From a user's image or video of any size to the frames that a world conditions on.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import UsageError
from worldfoundry.core.video_io import IMAGE_SUFFIXES, probe_video, read_media
from worldfoundry.data.resize import fit


def read_prefix(source: str | Path | np.ndarray, num_frames: int, height: int, width: int) -> np.ndarray:
    """The last `num_frames` frames of an image, a video or an array, resized and centre-cropped: uint8 THWC.

    Raises MediaError for an unreadable file, UsageError for an array that is not uint8 frames.
    """
    return fit(read_frames(source)[-num_frames:], height, width)


def read_frames(source: str | Path | np.ndarray) -> np.ndarray:
    """An image, a video or an array at its own size: uint8 THWC. Raises MediaError or UsageError."""
    return _as_frames(source) if isinstance(source, np.ndarray) else read_media(Path(source)).frames


def rate_among(source: str | Path | np.ndarray | None, rates: Sequence[float]) -> float | None:
    """The frame rate of a video file if it is one of `rates` (to 1 %); None for anything else."""
    if not rates or source is None or isinstance(source, np.ndarray) or Path(source).suffix.lower() in IMAGE_SUFFIXES:
        return None
    fps = probe_video(Path(source)).fps
    return next((rate for rate in rates if abs(rate - fps) <= 0.01 * rate), None)


def conditioning_length(num_frames: int, temporal_compression: int) -> int:
    """Of n prefix frames the last 1 + tc·⌊(n − 1)/tc⌋ condition."""
    return 1 + (num_frames - 1) // temporal_compression * temporal_compression


def prefix_latents(num_frames: int, temporal_compression: int) -> int:
    """Latent frames that n prefix frames condition."""
    return 1 + (num_frames - 1) // temporal_compression if num_frames else 0


def end_latents(count: int, num_frames: int, temporal_compression: int) -> int:
    """Latent frames at the end of a clip of `num_frames`, rounded up, that `count` last frames condition."""
    beyond = -(num_frames - 1) % temporal_compression
    return -(-(count + beyond) // temporal_compression) if count else 0


def _as_frames(array: np.ndarray) -> np.ndarray:
    frames = array[None] if array.ndim == 3 else array
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise UsageError(
            f"Input frames must be uint8 (T, H, W, 3) or one (H, W, 3) image, not {array.dtype} {array.shape!r}.",
            "Pass pixels in 0 … 255, RGB, channels last.",
        )
    return frames
