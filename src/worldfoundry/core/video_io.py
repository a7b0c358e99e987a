"""Video and image files in and out, with PyAV: frames located by presentation time, never by counting.

Axis legend: T frames, H height, W width, C = 3 (RGB). Frames are uint8 THWC as a viewer would see them: rotation
metadata is applied, any pixel format (10-bit, 4:4:4, gray, alpha) is converted to 8-bit RGB.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import EOFError as AVEOFError
from av.error import FFmpegError
from av.video.reformatter import ColorRange, VideoReformatter

from worldfoundry.core.contracts import WorldVideo
from worldfoundry.core.errors import MediaError
from worldfoundry.core.files import atomic_path, write_json
from worldfoundry.core.watermark import PERIOD, TILE, can_mark, mark

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif", ".3gp"}


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the container and the first stream say. `width`, `height` are as displayed; `num_frames` may be an estimate."""

    path: Path
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    fps: float
    duration_s: float
    num_frames: int
    has_audio: bool


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """Decoded frames (uint8 THWC) with the presentation time of each in seconds from the start of the stream."""

    frames: np.ndarray
    times_s: np.ndarray
    fps: float


class FrameCount:
    """How many frames were decoded."""

    frames = 0


_counting: ContextVar[tuple[FrameCount, ...]] = ContextVar("counting", default=())


@contextmanager
def count_decoded() -> Iterator[FrameCount]:
    """Counts the frames that this thread decodes with this module, or that `note_decoded` is told of, inside the block."""
    count = FrameCount()
    token = _counting.set((*_counting.get(), count))
    try:
        yield count
    finally:
        _counting.reset(token)


def note_decoded() -> None:
    """One more frame was decoded: for decoding loops of their own."""
    for count in _counting.get():
        count.frames += 1


@contextmanager
def open_video(path: Path | io.BytesIO) -> Iterator[tuple[Any, Any]]:
    """Open a file (or its bytes) and its first real video stream; every failure is a MediaError with a reason code."""
    if isinstance(path, io.BytesIO):
        path.seek(0)
        yield from _open_stream(path)
        return
    path = Path(path)
    _check_is_file(path)
    if path.stat().st_size == 0:
        raise MediaError("EMPTY_FILE", f"{str(path)!r} is empty (0 bytes).")
    yield from _open_stream(path)


def _open_stream(path: Path | io.BytesIO) -> Iterator[tuple[Any, Any]]:
    try:
        container = av.open(path if isinstance(path, io.BytesIO) else str(path))
    except (FFmpegError, OSError, ValueError) as error:
        code = "MOOV_MISSING" if isinstance(path, Path) and _lacks_moov(path) else "NOT_MEDIA"
        raise MediaError(code, f"{_name(path)} cannot be opened as video: {_short(error)}.") from error
    with container:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            raise MediaError("NO_VIDEO_STREAM", f"{_name(path)} has no video stream (audio or data only).")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def probe_video(path: Path) -> VideoInfo:
    """Read stream facts and the first frame. Raises MediaError (a `code` says why)."""
    with open_video(path) as (container, stream):
        first = next(_decode(container, stream, path), None)
        if first is None:
            raise MediaError("NO_FRAMES", f"{str(path)!r} holds no decodable video frame.")
        rotation = int(getattr(first, "rotation", 0)) % 360
        width, height = (first.height, first.width) if rotation % 180 else (first.width, first.height)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        duration = (
            float(stream.duration * stream.time_base) if stream.duration else float((container.duration or 0) / av.time_base)
        )
        count = stream.frames or max(1, round(duration * fps))
        return VideoInfo(
            path=Path(path),
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            width=width,
            height=height,
            rotation=rotation,
            fps=fps,
            duration_s=duration,
            num_frames=count,
            has_audio=bool(container.streams.audio),
        )


def iter_frames(
    path: Path | io.BytesIO, *, start_s: float = 0.0, end_s: float | None = None, size: tuple[int, int] | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield `(time_s, frame HWC)` as `iter_decoded` does, in RGB. `size` = (height, width) scales while decoding (bilinear)."""
    to_rgb = RgbConverter(size)
    for time_s, frame in iter_decoded(path, start_s=start_s, end_s=end_s):
        yield time_s, to_rgb(frame)


def iter_decoded(
    path: Path | io.BytesIO, *, start_s: float = 0.0, end_s: float | None = None
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield `(time_s, frame as decoded)` for frames with start_s <= time < end_s, decoding forward from the keyframe before.

    Time counts from the stream's first timestamp (frames of a stream without timestamps are spaced by its frame rate).
    Raises MediaError code TRUNCATED or DECODE_ERROR when decoding breaks off, and TRUNCATED when a file that is read to
    its end lacks more than half a second and a tenth of what its header promises; frames already yielded stay good.
    """
    with open_video(path) as (container, stream):
        zero = stream.start_time or 0
        if start_s > 0 and (stream.duration or container.duration):
            _seek(container, stream, zero + int(start_s / stream.time_base), path)
        rate, time = float(stream.average_rate or stream.guessed_rate or 24), 0.0
        for i, frame in enumerate(_decode(container, stream, path)):
            time = i / rate if frame.pts is None else float((frame.pts - zero) * frame.time_base)
            if time < start_s - 1e-6:
                continue
            if end_s is not None and time >= end_s - 1e-6:
                return
            yield time, frame
        promised = float(stream.duration * stream.time_base) if stream.duration and end_s is None else 0.0
        if promised - time - 1 / rate > max(0.5, promised / 10):
            raise MediaError("TRUNCATED", f"{_name(path)} ends after {time:.1f} s of {promised:.1f} s.")


def read_video(
    path: Path | io.BytesIO,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
    max_frames: int | None = None,
) -> VideoClip:
    """Decode a span of a file at once. Raises MediaError if it holds no frame there."""
    frames, times = [], []
    for time, frame in iter_frames(path, start_s=start_s, end_s=end_s, size=size):
        frames.append(frame)
        times.append(time)
        if max_frames is not None and len(frames) >= max_frames:
            break
    if not frames:
        raise MediaError(
            "NO_FRAMES",
            f"{str(path)!r} holds no video frame between {start_s:g} s and {end_s if end_s is not None else 'the end'}.",
        )
    return VideoClip(frames=np.stack(frames), times_s=np.array(times), fps=_frame_rate(path))


def _frame_rate(path: Path | io.BytesIO) -> float:
    with open_video(path) as (_, stream):
        return float(stream.average_rate or stream.guessed_rate or 0) or 24.0


def read_media(path: Path, *, max_frames: int | None = None) -> VideoClip:
    """An image (one frame, fps 0) or a video as frames. Raises MediaError."""
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return read_video(path, max_frames=max_frames)
    return VideoClip(frames=read_image(path)[None], times_s=np.zeros(1), fps=0.0)


def stream_media(path: Path) -> tuple[float, Iterator[np.ndarray]]:
    """What `read_media` reads, as frames per second and frames HWC that are decoded as they are asked for.

    Raises MediaError, and so does the iterator.
    """
    path = Path(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return 0.0, iter([read_image(path)])
    return _frame_rate(path), (frame for _, frame in iter_frames(path))


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 HWC, EXIF orientation applied, alpha flattened on black. Raises MediaError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    _check_is_file(Path(path))
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright.convert("RGBA"))
            return np.array(upright.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        raise MediaError("NOT_MEDIA", f"{str(path)!r} cannot be read as an image: {_short(error)}.") from error


def write_video(
    path: Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    *,
    crf: int = 18,
    gop: int = 12,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Encode uint8 THWC frames (or HWC frames one by one) as H.264 yuv420p mp4: closed GOPs of `gop` frames, faststart.

    The file is whole or absent. Odd heights or widths are padded by one edge pixel, which 4:2:0 needs. `metadata` goes
    into the container. A name without `.mp4` gets it added. Raises ValueError for no frames, another dtype or shape, or a
    frame rate that is not positive.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"write_video wants a positive frame rate, got {fps!r}")
    path, stream = Path(path), None
    path = path if path.suffix == ".mp4" else path.with_name(path.name + ".mp4")
    converter = VideoReformatter()
    with atomic_path(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}) as container:
            container.metadata.update(dict(metadata or {}))
            for array in frames:
                if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
                    raise ValueError(f"write_video wants uint8 frames (H, W, 3), got {array.dtype} {array.shape}")
                array = np.pad(array, ((0, array.shape[0] % 2), (0, array.shape[1] % 2), (0, 0)), mode="edge")
                stream = stream or add_h264_stream(container, array.shape[0], array.shape[1], fps, crf, gop)
                # AREA puts the mean chroma of 2x2 pixels at their centre, and chromaloc=1 says so; the defaults cost small
                # objects their colour (2.5 dB at 64x64) and shift it by half a pixel.
                picture = av.VideoFrame.from_ndarray(array, format="rgb24")
                container.mux(stream.encode(converter.reformat(picture, format="yuv420p", interpolation="AREA")))
            if stream is None:
                raise ValueError("write_video needs at least one frame")
            container.mux(stream.encode(None))
    return path


def add_h264_stream(container: Any, height: int, width: int, fps: float, crf: int, gop: int, *, chromaloc: int = 1) -> Any:
    """The stream that `write_video` encodes into; `chromaloc` says where chroma lies (0 left, 1 centre, 2 top left)."""
    # mbtree=0: with AVX-512 its output varies from run to run (seen at 48x64, 96x96 and 480x864), and in groups this short
    # it gains nothing (the same size at the same error, measured).
    options = {
        "crf": str(crf),
        "preset": "veryfast",
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:chromaloc={chromaloc}:mbtree=0",
    }
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(90000), options=options)
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    if height * width <= 512 * 512:
        stream.thread_count = 1  # small pictures gain nothing from threads, and then equal frames always give equal bytes
    return stream


def read_metadata(path: Path) -> dict[str, str]:
    """The container's metadata tags."""
    with open_video(path) as (container, _):
        return dict(container.metadata)


def save_world_video(video: WorldVideo, path: Path, *, watermark: bool = True) -> Path:
    """Write a generated video with its seed and config in the metadata, and a JSON sidecar. Used by `WorldVideo.save`."""
    record: dict[str, Any] = {
        "seed": video.seed,
        "fps": video.fps,
        "num_frames": len(video.frames),
        "config": dict(video.config),
        "verdicts": [{k: v for k, v in vars(verdict).items() if k != "latency_s"} for verdict in video.verdicts],
    }
    config = json.dumps(record["config"], default=str)
    frames, record["watermark"] = _marked(video.frames, f"{video.seed} {config}") if watermark else (video.frames, NO_MARK)
    path = write_video(path, frames, video.fps, metadata={"seed": str(video.seed), "worldfoundry": config})
    write_json(path.with_suffix(".json"), record)
    return path


NO_MARK = {"id": None, "why": "not asked for"}


def _marked(frames: np.ndarray, made_by: str) -> tuple[np.ndarray, dict[str, str | None]]:
    """Frames with the mark whose id is a hash of what made them, and what the sidecar says of it."""
    if not can_mark(frames):
        return frames, {"id": None, "why": f"a mark needs {PERIOD} frames of {TILE}x{TILE} pixels or more"}
    id = int.from_bytes(hashlib.sha256(made_by.encode()).digest()[:4], "big")
    return mark(frames, id), {"id": f"{id:08x}"}


def _seek(container: Any, stream: Any, offset: int, path: Path | io.BytesIO) -> None:
    try:
        container.seek(offset, stream=stream, backward=True)
    except (FFmpegError, OSError) as error:
        raise MediaError("DECODE_ERROR", f"{_name(path)} cannot be searched: {_short(error)}.") from error


def _decode(container: Any, stream: Any, path: Path | io.BytesIO) -> Iterator[Any]:
    try:
        for frame in container.decode(stream):
            note_decoded()
            yield frame
    except (FFmpegError, OSError) as error:
        code = "TRUNCATED" if isinstance(error, AVEOFError) or "end of file" in str(error).lower() else "DECODE_ERROR"
        raise MediaError(code, f"{_name(path)} stops decoding: {_short(error)}.") from error


class RgbConverter:
    """Decoded frames to upright RGB arrays. It keeps its scalers: making one costs a millisecond, more than a small frame."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.size, self.upsampler, self.scaler = size, VideoReformatter(), VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        turns = int(getattr(frame, "rotation", 0)) // 90 % 4
        height, width = (None, None) if self.size is None else (self.size if turns % 2 == 0 else self.size[::-1])
        same_size = (height or frame.height, width or frame.width) == (frame.height, frame.width)
        if same_size and frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG:
            # Straight to RGB, swscale repeats each chroma sample over 2x2 pixels; by way of 4:4:4 it interpolates (+3 dB
            # at 64x64).
            frame = self.upsampler.reformat(frame, format="yuv444p", interpolation="BICUBIC")
        frame = self.scaler.reformat(frame, width=width, height=height, format="rgb24", interpolation="BILINEAR")
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(), turns))


def _is_cover(stream: Any) -> bool:
    """Cover art in an audio file is a video stream with one picture."""
    return bool(int(getattr(stream, "disposition", 0)) & 0x400)


def _lacks_moov(path: Path) -> bool:
    if path.suffix.lower() not in {".mp4", ".mov", ".m4v", ".3gp"}:
        return False
    with open(path, "rb") as file:
        head = file.read(16)
    return head[4:8] == b"ftyp"


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        what = f"{str(path)!r} is a folder, not a file." if path.is_dir() else f"The file {str(path)!r} does not exist."
        raise MediaError("MISSING", what)


def _name(path: Path | io.BytesIO) -> str:
    return "the video in memory" if isinstance(path, io.BytesIO) else repr(str(path))


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error).split(":")[0].split("\n")[0]
    return text.strip()[:120]
