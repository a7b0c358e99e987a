"""Frames of an episode from its video, by presentation time.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

from worldfoundry.core.errors import DataError, MediaError
from worldfoundry.core.video_io import iter_frames, open_video
from worldfoundry.data.lerobot.index import VideoSpan

# A frame may be this far from its time, as a share of the distance between frames: small enough that a video of another
# rate cannot pass, large enough for the rounding that repeated joining leaves in published timestamps.
TOLERANCE = 0.25


def check_span(span: VideoSpan, length: int, fps: float, who: str) -> None:
    """Raise DataError when the file is absent, or the stretch is shorter than an episode of `length` frames."""
    if not span.path.is_file():
        raise DataError(f"The video of {who} is missing: {str(span.path)!r}.", "Copy it, or leave this camera out.")
    if span.end_s is not None and span.end_s - span.start_s < (length - 0.5) / fps:
        raise DataError(
            f"The video of {who} lasts {span.end_s - span.start_s:.3f} s; {length} frames need {length / fps:.3f} s.",
            "Leave the episode out, or record it again.",
        )


def read_span(span: VideoSpan, first: int, count: int, fps: float, who: str) -> np.ndarray:
    """Frames `first` … `first + count − 1` of the episode whose stretch is `span`, uint8 [T, H, W, 3].

    Raises DataError naming `who` when the file is damaged or has no frame at one of the times.
    """
    times_s = span.start_s + (first + np.arange(count)) / fps
    slack_s = TOLERANCE / fps
    found: dict[int, np.ndarray] = {}
    try:
        for time_s, frame in iter_frames(span.path, start_s=max(0.0, times_s[0] - slack_s), end_s=times_s[-1] + slack_s + 1e-6):
            i = round((time_s - times_s[0]) * fps)
            if 0 <= i < count and abs(time_s - times_s[i]) <= slack_s + 1e-6:
                found[i] = frame
    except MediaError as error:
        raise DataError(f"The video of {who} cannot be read: {error.message}", error.hint or "Copy it again.") from error
    if len(found) < count:
        i = next(i for i in range(count) if i not in found)
        raise no_frame(span, first + i, times_s[i], fps, who)
    if len({frame.shape for frame in found.values()}) > 1:
        raise DataError(f"The video of {who} changes its size on the way: {str(span.path)!r}.")
    return np.stack([found[i] for i in range(count)])


def no_frame(span: VideoSpan, frame: int, time_s: float, fps: float, who: str) -> DataError:
    """The error for a video without a frame where the episode has one."""
    return DataError(
        f"The video of {who} has no frame at {time_s:.3f} s (frame {frame} of the episode at {fps:g} fps): "
        f"{str(span.path)!r} is shorter or of another frame rate.",
        "Leave the episode out, or record it again.",
    )


def frame_times(path: Path) -> np.ndarray:
    """The presentation times in a video, sorted, in seconds from its first frame, without decoding. Raises MediaError."""
    with open_video(path) as (container, stream):
        try:
            times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        except FFmpegError as error:
            raise MediaError("DECODE_ERROR", f"{str(path)!r} cannot be read to its end: {error.strerror}.") from error
        return (np.array(times, np.float64) - (stream.start_time or 0)) * float(stream.time_base)


def decode_images(column: pa.ChunkedArray, who: str) -> np.ndarray:
    """The images of a camera that lies inside the data files ({"bytes", "path"} per row), uint8 [T, H, W, 3]."""
    images = []
    for entry in column.to_pylist():
        content = entry.get("bytes") if isinstance(entry, dict) else entry
        if not isinstance(content, bytes):
            raise DataError(f"An image of {who} is not inside its data file.", "Leave this camera out.")
        try:
            with Image.open(io.BytesIO(content)) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"An image of {who} cannot be decoded.", "Leave this camera out.") from error
    if len({image.shape for image in images}) > 1:
        raise DataError(f"The images of {who} differ in size.")
    return np.stack(images)
