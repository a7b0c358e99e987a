"""Video in and out: frames by presentation time, any pixel format, whole files that browsers play."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from worldfoundry.core.errors import MediaError
from worldfoundry.core.video_io import (
    iter_frames,
    probe_video,
    read_image,
    read_media,
    read_metadata,
    read_video,
    stream_media,
    write_video,
)


def numbered(count, height=64, width=64, step=7):
    """Frames whose grey level is their number, so that a decoded frame says which one it is."""
    levels = 16 + step * np.arange(count)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def numbers(frames, step=7):
    return np.round((frames.mean(axis=(1, 2, 3)) - 16) / step).astype(int).tolist()


def encode(path, frames, *, codec="libx264", pixel_format="yuv420p", pts=None, rate=10, options=None, **open_options):
    """A file made with PyAV alone, for formats that write_video does not write."""
    with av.open(str(path), "w", **open_options) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path):
    """30 numbered frames at 10 fps, keyframes every 12."""
    return write_video(tmp_path / "clip.mp4", numbered(30), 10)


def test_frames_come_back_in_order_with_their_times(clip):
    read = read_video(clip)
    assert numbers(read.frames) == list(range(30))
    np.testing.assert_allclose(read.times_s, np.arange(30) / 10, atol=1e-9)
    assert (read.fps, read.frames.dtype, read.frames.shape) == (10, np.uint8, (30, 64, 64, 3))


@pytest.mark.parametrize(("start", "end"), [(0, 0.5), (0.3, 0.9), (1.15, 1.3), (1.2, 1.2001), (2.85, None), (0, 100)])
def test_any_span_equals_the_same_span_of_a_whole_read(clip, start, end):
    whole = read_video(clip)
    inside = (whole.times_s >= start - 1e-6) & (whole.times_s < (1e9 if end is None else end - 1e-6))
    part = read_video(clip, start_s=start, end_s=end)
    np.testing.assert_array_equal(part.frames, whole.frames[inside])
    np.testing.assert_allclose(part.times_s, whole.times_s[inside])


def test_irregular_frame_times_are_kept(tmp_path):
    pts = [0, 1, 5, 6, 20, 21, 22, 40]
    path = encode(tmp_path / "vfr.mkv", numbered(8), pts=pts)
    np.testing.assert_allclose(read_video(path).times_s, np.array(pts) / 10, atol=1e-3)
    assert numbers(read_video(path, start_s=0.55, end_s=2.15).frames) == [3, 4, 5]


def test_a_stream_without_timestamps_is_spaced_by_its_rate(tmp_path):
    path = encode(tmp_path / "raw.h264", numbered(10), rate=25, format="h264")
    np.testing.assert_allclose(read_video(path).times_s, np.arange(10) / 25)
    assert numbers(read_video(path, start_s=0.2).frames) == [5, 6, 7, 8, 9]


def test_written_files_are_what_the_format_says(clip):
    info = probe_video(clip)
    assert (info.codec, info.pixel_format, info.num_frames, info.rotation) == ("h264", "yuv420p", 30, 0)
    assert info.duration_s == pytest.approx(3.0)
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart: a browser can begin before the end has arrived
    with av.open(str(clip)) as container:
        keys = [i for i, p in enumerate(p for p in container.demux(video=0) if p.size) if p.is_keyframe]
    assert keys == [0, 12, 24]


def test_closed_gops_decode_alone(clip):
    """Nothing before a keyframe is needed: the last 6 frames come out equal when only they are decoded."""
    assert numbers(read_video(clip, start_s=2.4).frames) == [24, 25, 26, 27, 28, 29]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (63, 65), (64, 31), (120, 90)])
def test_odd_sizes_are_padded_by_their_own_edge(tmp_path, height, width):
    frames = numbered(3, height, width)
    read = read_video(write_video(tmp_path / "odd.mp4", frames, 24)).frames
    assert read.shape[1:3] == (height + height % 2, width + width % 2)
    assert numbers(read) == [0, 1, 2]


def test_colours_survive(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    frames = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours])
    error = np.abs(read_video(write_video(tmp_path / "c.mp4", frames, 10, crf=4)).frames.astype(int) - frames)
    assert error.max() <= 4


def test_frames_may_come_one_by_one(tmp_path, clip):
    assert write_video(tmp_path / "again.mp4", iter(numbered(30)), 10).read_bytes() == clip.read_bytes()


def test_metadata_and_name(tmp_path):
    path = write_video(tmp_path / "run.v2", numbered(2), 29.97, metadata={"seed": "7", "worldfoundry": '{"prompt": "é"}'})
    assert path.name == "run.v2.mp4"
    assert read_metadata(path)["seed"] == "7"
    assert read_metadata(path)["worldfoundry"] == '{"prompt": "é"}'
    assert probe_video(path).fps == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 24),
        (np.zeros((2, 8, 8, 3), np.float32), 24),
        (np.zeros((2, 8, 8), np.uint8), 24),
        (numbered(2), 0),
        (numbered(2), float("nan")),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, frames, fps):
    with pytest.raises(ValueError, match="write_video"):
        write_video(tmp_path / "bad.mp4", frames, fps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv444p"),
        ("ffv1", "gray"),
        ("ffv1", "gray16le"),
        ("ffv1", "bgra"),
        ("mjpeg", "yuvj420p"),
    ],
)
def test_any_pixel_format_becomes_8_bit_rgb(tmp_path, codec, pixel_format):
    path = encode(tmp_path / "x.mkv", numbered(4), codec=codec, pixel_format=pixel_format)
    assert probe_video(path).pixel_format == pixel_format
    read = read_video(path).frames
    assert read.dtype == np.uint8
    np.testing.assert_allclose(read.mean(axis=(1, 2, 3)), 16 + 7 * np.arange(4), atol=3)


def test_scaling_while_decoding(clip):
    small = read_video(clip, size=(20, 36))
    assert small.frames.shape == (30, 20, 36, 3)
    assert numbers(small.frames) == list(range(30))


MATRIX = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise turns that the player shall make


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_in_the_container_is_applied(tmp_path, degrees):
    """A phone held upright stores a lying picture and a matrix (ISO 14496-12, tkhd)."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 255  # the top left quarter is white
    path = write_video(tmp_path / "r.mp4", np.stack([picture] * 3), 10, crf=4)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version, flags, times, ids, duration, reserved, layer, volume: 40 bytes in version 0
    a, b, c, d = MATRIX[degrees]
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    expected = np.rot90(picture, -degrees // 90)
    read = read_video(path).frames[0]
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 8
    info = probe_video(path)
    assert (info.height, info.width) == expected.shape[:2]
    assert read_video(path, size=(48, 32)).frames.shape[1:3] == (48, 32)


def test_video_in_memory(clip):
    times = [time for time, _ in iter_frames(io.BytesIO(clip.read_bytes()))]
    assert len(times) == 30


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("gone.mp4", None, "MISSING"),
        ("empty.mp4", b"", "EMPTY_FILE"),
        ("text.mp4", b"these are not the frames you are looking for " * 20, "NOT_MEDIA"),
        ("noise.mkv", bytes(range(256)) * 40, "NOT_MEDIA"),
    ],
)
def test_what_is_no_video_has_a_reason_code(tmp_path, name, content, code):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for read in (probe_video, read_video, read_metadata):
        with pytest.raises(MediaError) as error:
            read(path)
        assert error.value.code == code
        assert name in error.value.message
        assert "Errno" not in error.value.message


def test_a_file_without_its_index(clip, tmp_path):
    data = clip.read_bytes()
    broken = tmp_path / "cut.mp4"
    broken.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(MediaError) as error:
        read_video(broken)
    assert error.value.code == "MOOV_MISSING"


def test_a_truncated_file_keeps_what_came_before_the_break(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
    data = write_video(tmp_path / "whole.mp4", noise, 10).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError) as error:
        read_video(tmp_path / "cut.mp4")
    assert error.value.code in {"TRUNCATED", "DECODE_ERROR"}
    frames = iter_frames(tmp_path / "cut.mp4", end_s=1.0)  # a span before the break is whole
    assert len(list(frames)) == 10


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "tone.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(MediaError) as error:
        probe_video(tmp_path / "tone.mp4")
    assert error.value.code == "NO_VIDEO_STREAM"


def test_a_span_without_frames(clip):
    with pytest.raises(MediaError) as error:
        read_video(clip, start_s=50)
    assert error.value.code == "NO_FRAMES"


def test_a_stream_gives_what_reading_at_once_gives(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, 12.5)
    Image.fromarray(frames[0]).save(tmp_path / "b.png")
    for name in ("a.mp4", "b.png"):
        clip, (fps, stream) = read_media(tmp_path / name), stream_media(tmp_path / name)
        np.testing.assert_array_equal(np.stack(list(stream)), clip.frames)
        assert fps == clip.fps
    with pytest.raises(MediaError):
        stream_media(tmp_path / "absent.mp4")


def test_images(tmp_path):
    picture = np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)
    media = read_media(tmp_path / "a.png")
    assert (media.frames.shape, media.fps) == ((1, 12, 20, 3), 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: show it after a quarter turn clockwise
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(picture, -1))


def test_transparent_pixels_are_black(tmp_path):
    see_through = np.full((4, 4, 4), 255, np.uint8)
    see_through[:2, :, 3] = 0
    Image.fromarray(see_through).save(tmp_path / "t.png")
    read = read_image(tmp_path / "t.png")
    assert (read[:2] == 0).all()
    assert (read[2:] == 255).all()


@pytest.mark.parametrize(("content", "code"), [(None, "MISSING"), (b"GIF89a?", "NOT_MEDIA"), (b"", "NOT_MEDIA")])
def test_images_that_are_none(tmp_path, content, code):
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(MediaError) as error:
        read_media(tmp_path / "x.png")
    assert error.value.code == code
