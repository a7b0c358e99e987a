"""4:2:0 frames written as they were decoded: without loss what comes back is equal bit for bit, whatever their colour tags say."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from worldfoundry.core.video_io import iter_decoded, iter_frames, read_video, write_video
from worldfoundry.core.video_yuv import chroma_location, crop_yuv, luma, write_yuv

HEIGHT, WIDTH = 48, 64
TAGS = {
    "color_range": (1, 2),
    "colorspace": (1, 5),
    "color_primaries": (1, 6),
    "color_trc": (1, 6),
}  # BT.709, BT.601 in full range


def pictures(num_frames: int = 5) -> np.ndarray:
    """uint8 samples as stored, (T, H * 3 / 2, W): Y above U and V."""
    coarse = np.random.default_rng(0).integers(16, 236, (num_frames, HEIGHT * 3 // 8, WIDTH // 4), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def stored(path: Path, samples: np.ndarray, *, tags: int | None = None, chromaloc: int = 0, gop: int = 1) -> Path:
    """A lossless H.264 file with colour tags (an index into TAGS, or none)."""
    params = f"qp=0:keyint={gop}:chromaloc={chromaloc}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"x264-params": params})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for name, values in TAGS.items() if tags is not None else ():
            setattr(stream.codec_context, name, values[tags or 0])
        for t, sample in enumerate(samples):
            frame = av.VideoFrame.from_ndarray(sample, format="yuv420p")
            frame.pts, frame.time_base = 2 * t, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[av.VideoFrame]:
    return [frame for _, frame in iter_decoded(path)]


def tags_of(frame: av.VideoFrame) -> list[int]:
    return [int(getattr(frame, name)) for name in TAGS]


@pytest.mark.parametrize("tags", [None, 0, 1])
@pytest.mark.parametrize("chromaloc", [0, 1, 2])
def test_without_loss_everything_comes_back(tmp_path: Path, tags: int | None, chromaloc: int) -> None:
    source = stored(tmp_path / "a.mp4", pictures(), tags=tags, chromaloc=chromaloc)
    written = write_yuv(tmp_path / "b.mp4", iter(decoded(source)), 10, crf=0)
    assert [frame.to_ndarray().tolist() for frame in decoded(written)] == pictures().tolist()
    assert tags_of(decoded(written)[0]) == tags_of(decoded(source)[0])
    assert (read_video(written).frames == read_video(source).frames).all(), "as a viewer sees it, chroma in its place"
    np.testing.assert_allclose([time_s for time_s, _ in iter_frames(written)], np.arange(5) / 10)


def test_by_way_of_rgb_samples_are_not_those_of_the_source(tmp_path: Path) -> None:
    """Why there are two ways to write."""
    source = stored(tmp_path / "a.mp4", pictures())
    written = write_video(tmp_path / "b.mp4", read_video(source).frames, 10, crf=0)
    assert any((one.to_ndarray() != other).any() for one, other in zip(decoded(written), pictures(), strict=True))


def test_a_box_is_the_samples_in_it(tmp_path: Path) -> None:
    left, top, width, height = 6, 10, 40, 22
    source = stored(tmp_path / "a.mp4", pictures(), tags=1, chromaloc=1)
    written = decoded(write_yuv(tmp_path / "b.mp4", iter(decoded(source)), 10, crf=0, crop=(left, top, width, height)))
    Y = pictures()[:, top : top + height, left : left + width]
    U_V = pictures()[:, HEIGHT:].reshape(-1, 2, HEIGHT // 2, WIDTH // 2)
    U_V = U_V[:, :, top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
    expected = np.concatenate([Y.reshape(5, -1), U_V.reshape(5, -1)], axis=1).reshape(5, -1, width)
    assert [frame.to_ndarray().tolist() for frame in written] == expected.tolist()
    assert tags_of(written[0]) == tags_of(decoded(source)[0])
    assert chroma_location(written[0]) == 1
    assert crop_yuv(decoded(source)[0], (left, top, width, height)).to_ndarray().tolist() == expected[0].tolist()


@pytest.mark.parametrize("chromaloc", range(6))
def test_where_chroma_lies_is_found_and_nothing_else_touched(tmp_path: Path, chromaloc: int) -> None:
    frame = decoded(stored(tmp_path / "a.mp4", pictures(), chromaloc=chromaloc))[0]
    assert chroma_location(frame) == chromaloc
    assert frame.to_ndarray().tolist() == pictures()[0].tolist()


def test_keyframes_are_where_we_want_them_not_where_they_were(tmp_path: Path) -> None:
    source = stored(tmp_path / "a.mp4", pictures(10), gop=1)
    assert all(frame.key_frame for frame in decoded(source))
    written = decoded(write_yuv(tmp_path / "b.mp4", iter(decoded(source)), 10, gop=4))
    assert [t for t, frame in enumerate(written) if frame.key_frame] == [0, 4, 8]


def test_luma_reaches_from_black_to_white_in_either_range() -> None:
    sample = np.full((HEIGHT * 3 // 2, WIDTH), 16, np.uint8)
    sample[0, :2] = 0, 235
    frame = av.VideoFrame.from_ndarray(sample, format="yuv420p")
    assert luma(frame)[0, :3].tolist() == [0, 255, 0]
    frame.color_range = 2
    assert luma(frame)[0, :3].tolist() == [0, 235, 16]
    assert luma(frame).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("shape", "pixel_format", "crop"),
    [((48, 64), "yuv444p", None), ((48, 64), "yuv420p", (1, 0, 32, 32)), ((48, 64), "yuv420p", (0, 0, 31, 32))],
)
def test_what_cannot_be_kept_exactly_is_refused(
    tmp_path: Path, shape: tuple[int, int], pixel_format: str, crop: object
) -> None:
    frame = av.VideoFrame(shape[1], shape[0], pixel_format)
    with pytest.raises(ValueError, match="even sides"):
        write_yuv(tmp_path / "a.mp4", iter([frame]), 10, crop=crop)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one frame"):
        write_yuv(tmp_path / "a.mp4", iter([]), 10)
    assert not (tmp_path / "a.mp4").exists()
