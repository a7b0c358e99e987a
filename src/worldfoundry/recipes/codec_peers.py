"""What a user would store clips with instead of a tokenizer: smaller pictures, JPEG, H.264, at a given budget.

Each takes uint8 frames and a budget, spends at most that if it can, and says what it really spent.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import io
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from worldfoundry.core.video_io import iter_frames

WORST_CRF = 51.0
CRF_STEPS = 8  # halvings of the interval: 0.2 of a CRF step, about 3 % of the bits
CODED_FPS = 24.0


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What came back, how many bits (or values, for `bicubic`) it took, and whether the budget was too small to meet."""

    frames: np.ndarray
    spent: float
    over: bool


def bicubic(frames_THWC: np.ndarray, values: float) -> Coded:
    """Every frame scaled down (antialiased bicubic) until all frames together have at most `values` colour values, and up again."""
    count, height, width = frames_THWC.shape[:3]
    scale = min(1.0, math.sqrt(values / frames_THWC.size))
    small = max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    frames = [_resized(_resized(Image.fromarray(frame), small[1], small[0]), width, height) for frame in frames_THWC]
    spent = count * small[0] * small[1] * 3
    return Coded(frames=np.stack([np.asarray(frame) for frame in frames]), spent=spent, over=spent > values)


def jpeg(frames_THWC: np.ndarray, bits: float) -> Coded:
    """Every frame a JPEG (4:2:0, optimised tables) of one quality: the highest of 1 to 95 that all frames together can afford."""
    low, high = 1, 95
    best = _jpeg_at(frames_THWC, low)
    while low < high and _bits(best) <= bits:
        middle = (low + high + 1) // 2
        files = _jpeg_at(frames_THWC, middle)
        low, high, best = (middle, high, files) if _bits(files) <= bits else (low, middle - 1, best)
    frames = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in best])
    return Coded(frames=frames, spent=_bits(best), over=_bits(best) > bits)


def h264(frames_THWC: np.ndarray, bits: float) -> Coded:
    """One x264 stream (yuv420p, preset medium, one closed group): the lowest constant rate factor that fits, by bisection.

    Counted are the picture data and parameter sets; the container and the encoder's comment are not.
    """
    best, spent = h264_at(frames_THWC, WORST_CRF)
    if spent > bits:
        return Coded(frames=decode_h264(best, frames_THWC.shape), spent=spent, over=True)
    low, high = 0.0, WORST_CRF
    for _ in range(CRF_STEPS):
        middle = (low + high) / 2
        stream, took = h264_at(frames_THWC, middle)
        if took <= bits:
            high, best, spent = middle, stream, took
        else:
            low = middle
    return Coded(frames=decode_h264(best, frames_THWC.shape), spent=spent, over=False)


def h264_at(frames_THWC: np.ndarray, crf: float) -> tuple[bytes, float]:
    """An mp4 at this constant rate factor, and the bits of its picture data and parameter sets."""
    buffer, converter, sizes = io.BytesIO(), VideoReformatter(), 0
    pad = ((0, 0), (0, frames_THWC.shape[1] % 2), (0, frames_THWC.shape[2] % 2), (0, 0))
    padded = np.pad(frames_THWC, pad, mode="edge")
    with av.open(buffer, "w", format="mp4") as container:
        params = f"keyint={len(padded)}:scenecut=0:chromaloc=1:mbtree=0"
        options = {"crf": f"{crf:.3f}", "preset": "medium", "x264-params": params}
        stream: Any = container.add_stream("libx264", rate=Fraction(CODED_FPS), options=options)
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = *padded.shape[1:3], "yuv420p", 1
        for frame in padded:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            for packet in stream.encode(converter.reformat(picture, format="yuv420p", interpolation="AREA")):
                sizes += picture_bytes(bytes(packet))
                container.mux(packet)
        for packet in stream.encode(None):
            sizes += picture_bytes(bytes(packet))
            container.mux(packet)
        sizes += len(stream.codec_context.extradata or b"") - comment_bytes(stream.codec_context.extradata or b"")
    return buffer.getvalue(), 8.0 * sizes


def picture_bytes(stream: bytes) -> int:
    """Bytes of a stream (start codes included) without the encoder's comments."""
    return len(stream) - comment_bytes(stream)


def comment_bytes(stream: bytes) -> int:
    """Bytes of the units of type 6 (supplemental information: x264 writes its settings there) of an Annex B stream."""
    starts = [i for i in range(len(stream) - 3) if stream[i : i + 3] == b"\0\0\1"]
    ends = [*(s - (stream[s - 1] == 0) for s in starts[1:]), len(stream)]
    return sum(end - start for start, end in zip(starts, ends, strict=True) if stream[start + 3] & 31 == 6)


def decode_h264(mp4: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Frames of `h264_at`, cut to their size before padding."""
    frames = np.stack([frame for _, frame in iter_frames(io.BytesIO(mp4))])
    return frames[:, : shape[1], : shape[2]]


def _jpeg_at(frames_THWC: np.ndarray, quality: int) -> list[bytes]:
    files = []
    for frame in frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality, optimize=True)
        files.append(buffer.getvalue())
    return files


def _bits(files: list[bytes]) -> float:
    return 8.0 * sum(map(len, files))


def _resized(picture: Image.Image, width: int, height: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.BICUBIC)
