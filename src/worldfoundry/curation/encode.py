"""From a plan to an mp4: the packets unchanged where the whole file is one good clip, else x264; then decoded again to check.

Black bars are cut away if every frame of the clip agrees that they are black; else the clip keeps its whole picture.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from worldfoundry.core.errors import MediaError
from worldfoundry.core.files import atomic_path
from worldfoundry.core.video_io import VideoInfo, iter_frames, open_video, write_video
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.plan import ClipPlan
from worldfoundry.curation.scores.borders import BarCheck, Box

STRIP_FRAMES, STRIP_HEIGHT = 6, 72
SAME_TIME_S = 1e-4


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
    if crop is not None:
        try:
            pictures = _cropped(clip_pictures(source, frames, plan), crop, BarCheck(crop, coding.crop))
            write_video(out, pictures, frames.fps, crf=coding.crf, gop=coding.gop)
        except _Shown:
            crop = None
    copied = crop is None and can_copy(source, info, frames, plan, coding)
    if copied:
        copy_packets(source, out)
    elif crop is None:
        write_video(out, clip_pictures(source, frames, plan), frames.fps, crf=coding.crf, gop=coding.gop)
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
        pictures = []
        count = 0
        for _, picture in iter_frames(path, size=thumbnail):
            if count in wanted:
                pictures.append(picture)
            count += 1
    except (MediaError, FFmpegError) as error:
        raise MediaError("ENCODE_FAILED", f"The clip written does not decode: {error}") from error
    if count != num_frames:
        raise MediaError("ENCODE_FAILED", f"The clip written has {count} frames instead of {num_frames}.")
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(buffer, "WEBP", quality=60, method=4)
    return (height, width), buffer.getvalue()


def _cropped(pictures: Iterator[np.ndarray], box: Box, shows_nothing: BarCheck) -> Iterator[np.ndarray]:
    left, top, width, height = box
    for picture_HWC in pictures:
        if not shows_nothing(picture_HWC):
            raise _Shown
        yield np.ascontiguousarray(picture_HWC[top : top + height, left : left + width])


def clip_pictures(source: Path, frames: FrameTable, plan: ClipPlan) -> Iterator[np.ndarray]:
    """At each of `clip_times` the frame on show (uint8 HWC). Where the rate varies, it counts from a quarter of a frame earlier on.

    Raises MediaError ENCODE_FAILED if the span does not decode as it did.
    """
    times_s_T = clip_times(frames, plan)
    early_s = 0.25 / frames.fps if frames.variable_rate else SAME_TIME_S
    shown: Any = None
    tick = decoded = 0
    for time_s, picture in _frames_from(source, float(times_s_T[0]), frames.seconds(plan.end_pts)):
        while shown is not None and tick < len(times_s_T) and times_s_T[tick] < time_s - early_s:
            yield shown
            tick += 1
        shown, decoded = picture, decoded + 1
    if decoded != plan.last - plan.first:
        message = f"Decoding the span again gave {decoded} frames instead of {plan.last - plan.first}."
        raise MediaError("ENCODE_FAILED", message)
    for _ in range(tick, len(times_s_T)):
        yield shown


def _frames_from(source: Path, start_s: float, end_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of [start_s, end_s), as far as time runs forwards. Where a container's seek lands too late, decode from the
    beginning instead."""
    frames = iter_frames(source, start_s=start_s, end_s=end_s)
    first = next(frames, None)
    if first is not None and first[0] <= start_s + SAME_TIME_S:
        frames = chain([first], frames)
    else:
        frames = (item for item in iter_frames(source, end_s=end_s) if item[0] >= start_s - SAME_TIME_S)
    latest_s = -1.0
    for time_s, picture in frames:
        if time_s < latest_s:
            return
        if time_s > latest_s:
            yield time_s, picture
        latest_s = time_s
