"""Decoded 8-bit 4:2:0 frames written again without a way through RGB, which costs time and rounds twice.

Axis legend: H height, W width. Frames are PyAV's as `core.video_io.iter_decoded` yields them, of one of `FORMATS`.
"""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, VideoReformatter

from worldfoundry.core.files import atomic_path
from worldfoundry.core.video_io import add_h264_stream

FORMATS = frozenset({"yuv420p", "yuvj420p"})
"""8-bit 4:2:0; decoders give the second name to frames of full range."""
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

RAMP = 16  # levels per chroma sample of the ramp that shows where chroma lies
# Half luma pixels right and down from the upper left of the four pixels that share a chroma sample -> number in H.264.
LOCATIONS = {(0, 1): 0, (1, 1): 1, (0, 0): 2, (1, 0): 3, (0, 2): 4, (1, 2): 5}
FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def write_yuv(
    path: Path, frames: Iterable[av.VideoFrame], fps: float, *, crf: int = 18, gop: int = 12, crop: Box | None = None
) -> Path:
    """Encode frames (8-bit 4:2:0, even sides) as `core.video_io.write_video` does, with the samples and the colour tags they have.

    `crop` is the box to keep (even numbers). Range, matrix, primaries, transfer and the place of chroma are those of the
    first frame; times and kinds of frames are not kept. The file is whole or absent. Raises ValueError for no frames,
    another format, or odd sides.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("write_yuv needs at least one frame")
    left, top, width, height = crop or (0, 0, first.width, first.height)
    if first.format.name not in FORMATS or any(side % 2 for side in (first.width, first.height, left, top, width, height)):
        raise ValueError(
            f"write_yuv wants 8-bit 4:2:0 with even sides, got {first.format.name} {first.width}x{first.height}, {crop}"
        )
    rate, chromaloc = Fraction(fps).limit_denominator(90000), chroma_location(first)
    with atomic_path(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = add_h264_stream(container, height, width, fps, crf, gop, chromaloc=chromaloc)
            stream.pix_fmt = first.format.name
            context = stream.codec_context
            context.color_range, context.colorspace = first.color_range, first.colorspace
            context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
            same_size = VideoReformatter()
            for index, frame in enumerate(chain([first], frames)):
                frame = same_size.reformat(frame, width=first.width, height=first.height, format=first.format.name)
                picture = frame if crop is None else crop_yuv(frame, crop)
                picture.pts, picture.time_base = index, 1 / rate
                picture.pict_type = PictureType.NONE  # x264 decides, not the source's encoder
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    return path


def _samples(plane: Any) -> np.ndarray:
    """A plane's bytes, row by row with their padding; written through."""
    return np.frombuffer(plane, np.uint8)


def chroma_location(frame: av.VideoFrame) -> int:
    """Where in its four pixels a chroma sample of a 4:2:0 frame lies, as H.264 numbers it (0 left, 1 centre, 2 top left).

    A frame tells that to the scaler only, so the scaler is asked: what it makes of a ramp across chroma at full size. The
    frame's own samples are put back.
    """
    frame.make_writable()
    planes = [_samples(plane).reshape(-1, plane.line_size) for plane in frame.planes[1:]]
    middle = frame.width // 4, frame.height // 4
    kept = [plane.copy() for plane in planes]
    for axis, plane in enumerate(planes):
        ramp = np.clip(128 + RAMP * (np.arange(plane.shape[1 - axis]) - middle[axis]), 0, 255).astype(np.uint8)
        plane[:] = ramp[:, None] if axis else ramp
    full = VideoReformatter().reformat(frame, format=frame.format.name.replace("420", "444"), interpolation="BICUBIC")
    for plane, samples in zip(planes, kept, strict=True):
        plane[:] = samples
    found = []
    for plane in full.planes[1:]:
        at = _samples(plane)[2 * middle[1] * plane.line_size + 2 * middle[0]]
        found.append(round((128 - int(at)) / (RAMP / 4)))
    return LOCATIONS.get((found[0], found[1]), 0)


def luma(frame: av.VideoFrame) -> np.ndarray:
    """Luma (uint8 HW), 0 black to 255 white whatever the range of the frame."""
    plane = frame.planes[0]
    stored_HW = _samples(plane).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    return stored_HW if frame.color_range == ColorRange.JPEG else FULL_RANGE[stored_HW]


def crop_yuv(frame: av.VideoFrame, box: Box) -> av.VideoFrame:
    """The box (all even) of a frame with even sides."""
    left, top, width, height = box
    parts = []
    for plane, step in zip(frame.planes, (1, 2, 2), strict=True):
        stored_HW = _samples(plane).reshape(-1, plane.line_size)
        parts.append(stored_HW[top // step : (top + height) // step, left // step : (left + width) // step].ravel())
    cut = av.VideoFrame.from_ndarray(np.concatenate(parts).reshape(-1, width), format=frame.format.name)
    cut.color_range, cut.colorspace = frame.color_range, frame.colorspace
    cut.color_primaries, cut.color_trc = frame.color_primaries, frame.color_trc
    return cut
