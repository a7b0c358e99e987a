"""Several encoded videos as one file, packets copied, frame k of the result at exactly k / fps."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from worldfoundry.core.errors import MediaError
from worldfoundry.core.video_io import open_video

REORDER = 2  # frames by which x264 decodes ahead of showing (B-pyramid); a short piece alone needs fewer


def join_videos(pieces: list[tuple[Path, int]], fps: float, target: Path) -> None:
    """Write the videos of `pieces` (file, number of frames) one after another into `target` (mp4, faststart).

    All pieces must come from the same encoder settings (`encoder_header` equal): a file has one decoder header. Each begins
    with a keyframe and refers to nothing before it, so copied packets decode to the same pixels as the pieces.
    Raises MediaError for a piece that is damaged or holds another number of frames.
    """
    rate = Fraction(fps).limit_denominator(90000)
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        stream: Any = None
        first_frame = 0
        for path, num_frames in pieces:
            with open_video(path) as (container, source):
                if stream is None:
                    stream = output.add_stream_from_template(source)
                    stream.time_base = source.time_base
                tick = int(1 / (rate * source.time_base))  # time base units per frame, a whole number by the muxer's choice
                copied = _copy_packets(container, source, output, stream, first_frame, tick, path)
            if copied != num_frames:
                raise MediaError("DECODE_ERROR", f"{str(path)!r} holds {copied} frames, not {num_frames}.")
            first_frame += num_frames


def _copy_packets(container: Any, source: Any, output: Any, stream: Any, first_frame: int, tick: int, path: Path) -> int:
    """Packets in decoding order, shown `first_frame` frames later, decoded at even distances. Returns how many there were."""
    copied = 0
    try:
        for packet in container.demux(source):
            if packet.dts is None:  # the demuxer's end marker
                continue
            packet.pts += first_frame * tick
            packet.dts = (first_frame + copied - REORDER) * tick
            packet.stream = stream
            output.mux(packet)
            copied += 1
    except FFmpegError as error:
        raise MediaError("DECODE_ERROR", f"{str(path)!r} cannot be copied: {error.strerror}.") from error
    return copied


def encoder_header(path: Path) -> tuple[bytes, Fraction]:
    """What must be equal for two files to be joined: the decoder header (SPS and PPS) and the time base."""
    with open_video(path) as (_, stream):
        return bytes(stream.codec_context.extradata or b""), stream.time_base
