"""The low-resolution pass: rates, varying rates, groups of pictures, and where a file breaks."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from worldfoundry.core.errors import MediaError
from worldfoundry.curation.lowres import decode_lowres, frame_rate


@pytest.mark.parametrize("fps", [12.0, 24.0, 30000 / 1001, 59.94, 7.5])
@pytest.mark.parametrize("time_base", [Fraction(1, 1000), Fraction(1, 90000)])
@pytest.mark.parametrize("header", [0.0, 1.0, 25.0])
def test_constant_rates_are_measured_whatever_the_header_says(fps: float, time_base: Fraction, header: float) -> None:
    pts = np.round(np.arange(300) / fps / float(time_base)).astype(np.int64)
    measured, variable = frame_rate(pts, time_base, header)
    assert not variable
    assert measured == pytest.approx(fps, rel=2e-4)


def test_the_header_gives_the_exact_rate_where_it_agrees() -> None:
    pts = np.round(np.arange(300) / (30000 / 1001) * 1000).astype(np.int64)
    assert frame_rate(pts, Fraction(1, 1000), 30000 / 1001) == (30000 / 1001, False)
    # A header of 30 is off by a third of a frame after ten seconds, so it does not count.
    assert frame_rate(pts, Fraction(1, 1000), 30.0)[0] == pytest.approx(30000 / 1001, rel=2e-4)


def test_gaps_and_jitter_are_a_varying_rate() -> None:
    even = np.arange(60) * 1000
    assert frame_rate(np.delete(even, [30, 31]), Fraction(1, 30000), 30.0) == (30.0, True)
    jittered = even + np.random.default_rng(0).integers(-400, 400, 60)
    assert frame_rate(np.sort(jittered), Fraction(1, 30000), 30.0)[1]


def test_frames_times_and_pictures(zoo: Any) -> None:
    frames, rgb = decode_lowres(zoo.video("a.mp4", num_frames=30))
    assert len(frames) == 30
    assert rgb.shape == (30, 18, 32, 3)
    assert (frames.fps, frames.variable_rate, frames.problem) == (12.0, False, "")
    assert frames.longest_closed_gop == 12
    assert frames.seconds(frames.end_pts(29)) == pytest.approx(2.5)
    np.testing.assert_allclose(rgb.mean(axis=(1, 2, 3)), zoo.frames(30).mean(axis=(1, 2, 3)), atol=4)


def test_open_groups_are_told_from_closed_ones(zoo: Any) -> None:
    options = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:open-gop=1:bframes=3:b-adapt=0"}
    open_, _ = decode_lowres(zoo.encoded("open.mp4", zoo.frames(48), options=options))
    closed, _ = decode_lowres(
        zoo.encoded(
            "closed.mp4", zoo.frames(48), options={"x264-params": options["x264-params"].replace("open-gop=1", "open-gop=0")}
        )
    )
    assert open_.longest_closed_gop == 0
    assert closed.longest_closed_gop == 8


def test_a_file_that_was_cut_off_keeps_its_beginning(zoo: Any) -> None:
    frames, _ = decode_lowres(zoo.cut_off("t.mp4", 0.6, moov_first=True))
    assert 20 < len(frames) < 120
    assert frames.problem == "TRUNCATED"


@pytest.mark.parametrize("num_bytes", [3000, 12000])
def test_wrong_bytes_mark_frames_up_to_the_next_keyframe(zoo: Any, num_bytes: int) -> None:
    frames, rgb = decode_lowres(zoo.damaged("d.mp4", num_bytes=num_bytes))
    assert frames.problem == "DECODE_ERROR"
    bad, good = np.flatnonzero(frames.damaged_T), np.flatnonzero(~frames.damaged_T)
    assert 0 < len(bad) < 24
    assert len(good) >= 96
    assert frames.pts_T[bad[-1] + 1] * frames.time_base * 12 % 12 == 0, "what follows the damage is a keyframe"
    shown = (frames.pts_T * float(frames.time_base) * 12).round().astype(int)
    np.testing.assert_allclose(rgb[good].mean(axis=(1, 2, 3)), zoo.frames(120)[shown[good]].mean(axis=(1, 2, 3)), atol=6)


def test_files_without_frames_say_why(zoo: Any) -> None:
    for path, code in [
        (zoo.text("t.mp4"), "NOT_MEDIA"),
        (zoo.audio_only("a.mp4"), "NO_VIDEO_STREAM"),
        (zoo.text("e.mp4", ""), "EMPTY_FILE"),
    ]:
        with pytest.raises(MediaError) as caught:
            decode_lowres(path)
        assert caught.value.code == code
