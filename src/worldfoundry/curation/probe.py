"""What a file says about itself, before it is decoded."""

from pathlib import Path

from worldfoundry.core.errors import MediaError
from worldfoundry.core.video_io import VideoInfo, open_video, probe_video, read_image
from worldfoundry.curation.discover import is_image


def probe_source(path: Path, uri: str) -> VideoInfo:
    """Facts on a video or an image. A video whose first frame is damaged is described by its header alone.

    Raises MediaError if it is no media, holds no video stream, or is an image that cannot be read.
    """
    if is_image(uri):
        return _probe_image(path)
    try:
        return probe_video(path)
    except MediaError as error:
        if error.code not in {"DECODE_ERROR", "TRUNCATED", "NO_FRAMES"}:
            raise
        return _probe_header(path)


def _probe_image(path: Path) -> VideoInfo:
    picture_HWC = read_image(path)
    return VideoInfo(
        path=path,
        codec=path.suffix[1:].lower(),
        pixel_format="rgb24",
        width=picture_HWC.shape[1],
        height=picture_HWC.shape[0],
        rotation=0,
        fps=0.0,
        duration_s=0.0,
        num_frames=1,
        has_audio=False,
    )


def _probe_header(path: Path) -> VideoInfo:
    """Rotation is unknown without a frame and given as 0; decoding a later frame applies it all the same."""
    with open_video(path) as (container, stream):
        return VideoInfo(
            path=path,
            codec=stream.codec_context.name,
            pixel_format=stream.codec_context.pix_fmt or "",
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            rotation=0,
            fps=float(stream.average_rate or 0),
            duration_s=float(stream.duration * stream.time_base) if stream.duration else 0.0,
            num_frames=stream.frames,
            has_audio=bool(container.streams.audio),
        )
