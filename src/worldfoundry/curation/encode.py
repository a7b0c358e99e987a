"""From a plan to an mp4: the packets unchanged where the whole file is one good clip, else x264; then decoded again to check.

Frames of upright 8-bit 4:2:0 sources go to x264 as they were decoded, with their colour tags; others by way of RGB.

Black bars are cut away if every frame of the clip agrees that they are black; else the clip keeps its whole picture.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from worldfoundry.core.errors import MediaError
from worldfoundry.core.files import atomic_path
from worldfoundry.core.video_io import RgbConverter, VideoInfo, iter_decoded, iter_frames, open_video, write_video
from worldfoundry.core.video_yuv import FORMATS, luma, write_yuv
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.plan import ClipPlan
from worldfoundry.curation.scores.borders import BarCheck, Box

STRIP_FRAMES, STRIP_HEIGHT = 6, 72
SAME_TIME_S = 1e-4

Frame = TypeVar("Frame")
Read = TypeVar("Read", covariant=True)


class Reader(Protocol[Read]):
    """`core.video_io.iter_decoded`, or `iter_frames`."""

    def __call__(self, path: Path, *, start_s: float = 0.0, end_s: float | None = None) -> Iterator[tuple[float, Read]]: ...


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How clips are written: x264's quality, frames between keyframes, the longest such distance of files copied as they are,
    and which borders are cut away."""

    crf: int
    gop: int
    copy_gop: int
    crop: Literal["black", "any", "off"] = "off"


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """What was written and decoded again. `times_s_T` are the source times of its frames, `strip_webp` six thumbnails, `crop`
    the box of the source's picture that it shows (None: all of it)."""

    path: Path
    encoding: str
    num_frames: int
    fps: float
    width: int
    height: int
    times_s_T: np.ndarray
    strip_webp: bytes
    crop: Box | None = None


class _Shown(Exception):
    """A border shows something."""


def encode_clip(
    source: Path,
    info: VideoInfo,
    frames: FrameTable,
    plan: ClipPlan,
    out: Path,
    coding: Coding,
    *,
    crop: Box | None = None,
) -> EncodedClip:
    """Write the clip to `out` (.mp4). A varying frame rate becomes a constant one: the frame shown at each tick.

    `crop` is the box to keep, with even sides; where its outside shows something in some frame, the whole picture is kept.
    Raises MediaError: the source does not decode again as it did, or ENCODE_FAILED if the file written does not hold
    the frames planned; ResourceError when the disk is full.
    """
    times_s_T = clip_times(frames, plan)
    write = _write_yuv if keeps_samples(info) else _write_rgb
    if crop is not None:
        try:
            write(source, frames, plan, out, coding, crop)
        except _Shown:
            crop = None
    copied = crop is None and can_copy(source, info, frames, plan, coding)
    if copied:
        copy_packets(source, out)
    elif crop is None:
        write(source, frames, plan, out, coding, None)
    shape, strip = check_clip(out, len(times_s_T))
    return EncodedClip(
        path=out,
        encoding="copy" if copied else "x264",
        num_frames=len(times_s_T),
        fps=frames.fps,
        width=shape[1],
        height=shape[0],
        times_s_T=times_s_T,
        strip_webp=strip,
        crop=crop,
    )


def encode_image(picture_HWC: np.ndarray, out: Path, coding: Coding, *, crop: Box | None = None) -> EncodedClip:
    """An image as a clip of one frame; its rate is recorded as 0. `crop` is the box of it to keep."""
    if crop is not None:
        left, top, width, height = crop
        picture_HWC = np.ascontiguousarray(picture_HWC[top : top + height, left : left + width])
    write_video(out, picture_HWC[None], 1.0, crf=coding.crf, gop=1)
    shape, strip = check_clip(out, 1)
    return EncodedClip(
        path=out,
        encoding="image",
        num_frames=1,
        fps=0.0,
        width=shape[1],
        height=shape[0],
        times_s_T=np.zeros(1),
        strip_webp=strip,
        crop=crop,
    )


def clip_times(frames: FrameTable, plan: ClipPlan) -> np.ndarray:
    """Source times in seconds of the clip's frames: the frames' own, or an even grid where the rate varies."""
    if not frames.variable_rate:
        return np.array([frames.seconds(int(pts)) for pts in frames.pts_T[plan.first : plan.last]])
    count = max(1, round((plan.end_s - plan.start_s) * frames.fps))
    return frames.seconds(plan.start_pts) + np.arange(count) / frames.fps


def can_copy(source: Path, info: VideoInfo, frames: FrameTable, plan: ClipPlan, coding: Coding) -> bool:
    """Whether the file as it is fulfils the promises of a clip: all of it, H.264 yuv420p mp4, upright, short closed groups."""
    return (
        (plan.first, plan.last) == (0, len(frames))
        and (info.codec, info.pixel_format, info.rotation) == ("h264", "yuv420p", 0)
        and source.suffix.lower() in {".mp4", ".m4v", ".mov"}
        and 0 < frames.longest_closed_gop <= coding.copy_gop
        and not (frames.variable_rate or frames.problem)
        and int(frames.pts_T[0]) == frames.zero_pts
    )


def keeps_samples(info: VideoInfo) -> bool:
    """Whether x264 can take a source's frames as they are: upright, 8-bit 4:2:0, no padding needed."""
    return info.pixel_format in FORMATS and (info.rotation, info.width % 2, info.height % 2) == (0, 0, 0)


def _write_yuv(source: Path, frames: FrameTable, plan: ClipPlan, out: Path, coding: Coding, crop: Box | None) -> None:
    shown = clip_frames(source, frames, plan, iter_decoded)
    if crop is not None:
        shown = _if_bars_are_empty(shown, BarCheck(crop, coding.crop), luma)
    write_yuv(out, shown, frames.fps, crf=coding.crf, gop=coding.gop, crop=crop)


def _write_rgb(source: Path, frames: FrameTable, plan: ClipPlan, out: Path, coding: Coding, crop: Box | None) -> None:
    shown = clip_pictures(source, frames, plan)
    if crop is not None:
        left, top, width, height = crop
        checked = _if_bars_are_empty(shown, BarCheck(crop, coding.crop), lambda picture_HWC: picture_HWC)
        shown = (np.ascontiguousarray(picture[top : top + height, left : left + width]) for picture in checked)
    write_video(out, shown, frames.fps, crf=coding.crf, gop=coding.gop)


def _if_bars_are_empty(shown: Iterator[Frame], bars: BarCheck, seen: Callable[[Frame], np.ndarray]) -> Iterator[Frame]:
    for frame in shown:
        if not bars(seen(frame)):
            raise _Shown
        yield frame


def copy_packets(source: Path, out: Path) -> None:
    """The video stream alone in a new mp4, index first."""
    with atomic_path(out) as temporary, av.open(str(source)) as reader:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as writer:
            stream = writer.add_stream_from_template(reader.streams.video[0])
            for packet in reader.demux(reader.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    writer.mux(packet)


def check_clip(path: Path, num_frames: int) -> tuple[tuple[int, int], bytes]:
    """Decode what was written: its (height, width) and a WebP strip of thumbnails. Raises MediaError ENCODE_FAILED."""
    wanted = set(np.linspace(0, num_frames - 1, min(STRIP_FRAMES, num_frames)).round().astype(int).tolist())
    try:
        with open_video(path) as (_, stream):
            height, width = stream.height, stream.width
        thumbnail = STRIP_HEIGHT, max(8, round(STRIP_HEIGHT * width / height))
        pictures, to_rgb = [], RgbConverter(thumbnail)
        count = 0
        for _, frame in iter_decoded(path):
            if count in wanted:
                pictures.append(to_rgb(frame))
            count += 1
    except (MediaError, FFmpegError) as error:
        raise MediaError("ENCODE_FAILED", f"The clip written does not decode: {error}") from error
    if count != num_frames:
        raise MediaError("ENCODE_FAILED", f"The clip written has {count} frames instead of {num_frames}.")
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(buffer, "WEBP", quality=60, method=4)
    return (height, width), buffer.getvalue()


def clip_pictures(source: Path, frames: FrameTable, plan: ClipPlan) -> Iterator[np.ndarray]:
    """At each of `clip_times` the frame on show in RGB (uint8 HWC). Raises MediaError as `clip_frames`."""
    return clip_frames(source, frames, plan, iter_frames)


def clip_frames(source: Path, frames: FrameTable, plan: ClipPlan, read: Reader[Frame]) -> Iterator[Frame]:
    """At each of `clip_times` the frame on show, as `read` gives it. Where the rate varies, it counts from a quarter of a frame
    earlier on.

    Raises MediaError ENCODE_FAILED if the span does not decode as it did.
    """
    times_s_T = clip_times(frames, plan)
    early_s = 0.25 / frames.fps if frames.variable_rate else SAME_TIME_S
    shown: Any = None
    tick = decoded = 0
    for time_s, picture in _frames_from(source, float(times_s_T[0]), frames.seconds(plan.end_pts), read):
        while shown is not None and tick < len(times_s_T) and times_s_T[tick] < time_s - early_s:
            yield shown
            tick += 1
        shown, decoded = picture, decoded + 1
    if decoded != plan.last - plan.first:
        message = f"Decoding the span again gave {decoded} frames instead of {plan.last - plan.first}."
        raise MediaError("ENCODE_FAILED", message)
    for _ in range(tick, len(times_s_T)):
        yield shown


def _frames_from(source: Path, start_s: float, end_s: float, read: Reader[Frame]) -> Iterator[tuple[float, Frame]]:
    """Frames of [start_s, end_s), as far as time runs forwards. Where a container's seek lands too late, decode from the
    beginning instead."""
    frames = read(source, start_s=start_s, end_s=end_s)
    first = next(frames, None)
    if first is not None and first[0] <= start_s + SAME_TIME_S:
        frames = chain([first], frames)
    else:
        frames = (item for item in read(source, end_s=end_s) if item[0] >= start_s - SAME_TIME_S)
    latest_s = -1.0
    for time_s, picture in frames:
        if time_s < latest_s:
            return
        if time_s > latest_s:
            yield time_s, picture
        latest_s = time_s
