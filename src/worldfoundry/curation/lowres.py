"""The one decoding pass that feeds every analyser: each frame's time, whether it is damaged, and pictures of the sizes asked for.

Axis legend: T frames, H height, W width, C = 3 (RGB). The stored pictures (18 x 32) take 1.7 kB per frame: 190 MB for an hour
at 30 fps; those that TransNet V2 looks at (27 x 48) take 3.9 kB. Frames are scaled once, to the larger size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from worldfoundry.core.errors import MediaError
from worldfoundry.core.video_io import IMAGE_SUFFIXES, note_decoded, open_video, read_image
from worldfoundry.curation.shots_pictures import shrink

SCALED = 27, 48
CHUNK = 64  # pictures that are made smaller together
# With bidirectional prediction, frames shown before the damaged one may already refer to it (measured: up to 3 frames).
DAMAGE_REACH = 4


@dataclass(frozen=True, kw_only=True)
class FrameTable:
    """The times of all frames of a video. `pts_T` count `time_base` seconds and rise strictly; `zero_pts` is the start.

    `damaged_T` marks frames that the decoder could not restore; `problem` is the reason code of what went wrong on the
    way ("" if nothing did). `longest_closed_gop` is the longest distance between keyframes in frames, 0 if a group is open.
    """

    pts_T: np.ndarray
    damaged_T: np.ndarray
    time_base: Fraction
    zero_pts: int
    fps: float
    variable_rate: bool
    longest_closed_gop: int
    problem: str

    def __len__(self) -> int:
        return len(self.pts_T)

    def end_pts(self, frame: int) -> int:
        """Where a frame ceases to be shown: at the next one's pts; the last frame lasts one frame duration."""
        if frame + 1 < len(self.pts_T):
            return int(self.pts_T[frame + 1])
        return int(self.pts_T[frame]) + max(1, round(1 / (self.fps * float(self.time_base))))

    def seconds(self, pts: int) -> float:
        """Seconds from the start of the stream, as `core.video_io` counts them."""
        return float((pts - self.zero_pts) * self.time_base)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is called with pictures (uint8 HWC) of one size (height, width; None: as stored) and their times in seconds.

    `every_s`: at most one picture in so many seconds; 0 shows every frame.
    """

    size: tuple[int, int] | None
    add: Callable[[np.ndarray, float], None]
    every_s: float = 0.0


class _Pass:
    """What the decoding loop has seen so far."""

    def __init__(self, looks: Sequence[Look], tick_s: float, zero_pts: int, rate: float) -> None:
        self.looks, self.tick_s, self.zero_pts, self.rate = looks, tick_s, zero_pts, rate
        self.scalers = {look.size: VideoReformatter() for look in looks}
        self.due_s = [float("-inf")] * len(looks)
        self.pts: list[int] = []
        self.damaged: list[bool] = []
        self.keyframes: list[int] = []
        self.problem = ""
        self.healing = False  # between damage and the next keyframe
        self.counted = False  # a stream without timestamps: frames are counted at its rate, as core.video_io does
        self.cut_off = False
        self.open_gop = False
        self.key_pts: int | None = None

    def see_packet(self, packet: Any) -> None:
        """A packet shown before the keyframe that it follows makes the group open: it needs the group before."""
        if packet.size:
            self.cut_off = packet.is_corrupt  # of the last packet: the file ends within it
        if packet.is_keyframe:
            self.key_pts = packet.pts
        elif packet.pts is not None and self.key_pts is not None and packet.pts < self.key_pts:
            self.open_gop = True

    def add(self, frame: Any) -> bool:
        """Take one decoded frame; False when its time runs backwards, which ends the usable part of a file."""
        self.counted = self.counted or frame.pts is None
        pts = len(self.pts) if self.counted or frame.pts is None else frame.pts
        if self.pts and pts <= self.pts[-1]:
            if pts == self.pts[-1] or self.healing:  # decoders may put out frames late after an error
                return True
            self.problem = "PTS_NONMONOTONIC"
            return False
        if frame.is_corrupt:
            self.damage()
        elif frame.key_frame:
            self.healing = False
            self.keyframes.append(len(self.pts))
        self.pts.append(pts)
        self.damaged.append(self.healing)
        self._show(frame, pts / self.rate if self.counted else (pts - self.zero_pts) * self.tick_s)
        return True

    def _show(self, frame: Any, time_s: float) -> None:
        """Each size is scaled once, whoever looks at it, and only for those whose turn it is."""
        pictures: dict[tuple[int, int] | None, np.ndarray] = {}
        for i, look in enumerate(self.looks):
            if time_s < self.due_s[i] - 1e-6:
                continue
            # On a grid from 0 on, so that what is seen does not depend on where frames fall within it.
            self.due_s[i] = (time_s // look.every_s + 1) * look.every_s if look.every_s else time_s
            if look.size not in pictures:
                height, width = look.size or (frame.height, frame.width)
                scaled = self.scalers[look.size].reformat(
                    frame, width=width, height=height, format="rgb24", interpolation="AREA"
                )
                pictures[look.size] = scaled.to_ndarray()
            look.add(pictures[look.size], time_s)

    def damage(self) -> None:
        """Everything from a little before here to the next keyframe is lost."""
        self.problem, self.healing = "DECODE_ERROR", True
        for i in range(max(0, len(self.damaged) - DAMAGE_REACH), len(self.damaged)):
            self.damaged[i] = True

    def longest_closed_gop(self) -> int:
        if self.open_gop or self.keyframes[:1] != [0]:
            return 0
        return int(np.diff([*self.keyframes, len(self.pts)]).max())


class Pictures:
    """Keeps the pictures that it is shown."""

    def __init__(self) -> None:
        self.rgb: list[np.ndarray] = []

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        self.rgb.append(picture_HWC)


class SmallPictures(Pictures):
    """Makes the pictures (27 x 48) that it is shown smaller, and keeps them: uint8 (T, 18, 32, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[np.ndarray] = []

    def add(self, picture_HWC: np.ndarray, time_s: float) -> None:
        super().add(picture_HWC, time_s)
        if len(self.rgb) == CHUNK:
            self._work()

    def _work(self) -> None:
        self.done.append(shrink(np.stack(self.rgb)))
        self.rgb.clear()

    def result(self) -> np.ndarray:
        if self.rgb:
            self._work()
        return np.concatenate(self.done)


def decode_lowres(path: Path) -> tuple[FrameTable, np.ndarray]:
    """Decode every frame of a video once: its times, and uint8 pictures (T, 18, 32, 3) in stored orientation."""
    pictures = SmallPictures()
    table = watch_frames(path, [Look(size=SCALED, add=pictures.add)])
    return table, pictures.result()


def watch_frames(path: Path, looks: Sequence[Look]) -> FrameTable:
    """Decode every frame of a video once, show each to all who look, and return the table of times.

    A break in the middle is noted in `problem`, not raised. An image is one frame at time 0. Raises MediaError: as
    `core.video_io.open_video`; NO_FRAMES or what broke it if nothing decodes.
    """
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return _watch_image(Path(path), looks)
    with open_video(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or 24
        seen = _Pass(looks, float(stream.time_base), stream.start_time or 0, float(rate))
        _decode_all(container, stream, seen)
        if not seen.pts:
            code = "TRUNCATED" if seen.cut_off else seen.problem or "NO_FRAMES"
            raise MediaError(code, f"{str(path)!r} holds no decodable video frame.")
        time_base, zero = (1 / Fraction(rate), 0) if seen.counted else (Fraction(stream.time_base), stream.start_time or 0)
        header_fps = float(stream.average_rate or stream.guessed_rate or 0)
        header_end = zero + stream.duration if stream.duration and not seen.counted else None
    pts_T = np.array(seen.pts, dtype=np.int64)
    fps, variable = frame_rate(pts_T, time_base, header_fps)
    missing_s = float((header_end - pts_T[-1]) * time_base) - 1 / fps if header_end is not None else 0.0
    if seen.cut_off or (not seen.problem and missing_s > max(0.25, 5 / fps)):
        seen.problem = "TRUNCATED"
    return FrameTable(
        pts_T=pts_T,
        damaged_T=np.array(seen.damaged),
        time_base=time_base,
        zero_pts=zero,
        fps=fps,
        variable_rate=variable,
        longest_closed_gop=seen.longest_closed_gop(),
        problem=seen.problem,
    )


def _watch_image(path: Path, looks: Sequence[Look]) -> FrameTable:
    seen = _Pass(looks, 1.0, 0, 24.0)
    seen.add(av.VideoFrame.from_ndarray(read_image(path), format="rgb24"))
    return FrameTable(
        pts_T=np.zeros(1, dtype=np.int64),
        damaged_T=np.zeros(1, dtype=bool),
        time_base=Fraction(1),
        zero_pts=0,
        fps=24.0,
        variable_rate=False,
        longest_closed_gop=0,
        problem="",
    )


def _decode_all(container: Any, stream: Any, seen: _Pass) -> None:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (FFmpegError, OSError):
            seen.problem = seen.problem or "TRUNCATED"
            return
        if packet is None:
            return
        seen.see_packet(packet)
        try:
            for frame in packet.decode():
                note_decoded()
                if not seen.add(frame):
                    return
        except FFmpegError:
            seen.damage()


def frame_rate(pts_T: np.ndarray, time_base: Fraction, header_fps: float) -> tuple[float, bool]:
    """(frames per second, whether the rate varies).

    The rate varies if any spacing is off the median by more than a quarter of a frame; then the median decides. The
    header's rate is taken if an even grid of it stays within a quarter of a frame to the end, else the mean spacing.
    """
    if len(pts_T) < 2:
        return header_fps or 24.0, False
    tick_s, spacing_s = float(time_base), np.diff(pts_T) * float(time_base)
    median_s, total_s, steps = float(np.median(spacing_s)), float(spacing_s.sum()), len(pts_T) - 1
    if (np.abs(spacing_s - median_s) > 0.25 * median_s + tick_s).any():
        whole = round(1 / median_s)
        near_whole = whole > 0 and abs(1 / whole - median_s) <= 0.02 * median_s + tick_s
        return (float(whole) if near_whole else 1 / median_s), True
    if header_fps > 0 and abs(steps / header_fps - total_s) <= 0.25 / header_fps + tick_s:
        return header_fps, False
    return steps / total_s, False
