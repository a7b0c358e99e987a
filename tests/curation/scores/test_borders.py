"""Bars of every kind around a picture are found to the pixel, and dark or plain pictures keep their edges."""

import numpy as np
import pytest

from worldfoundry.curation.scores.borders import BarCheck, border_scores, clip_borders, crop_box, frame_sides
from worldfoundry.curation.shots import to_luma


def pictures(height: int, width: int, count: int = 4, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(30, 250, (count, height, width, 3), dtype=np.uint8))


def framed(top: int, bottom: int, left: int, right: int, border: np.ndarray) -> list[np.ndarray]:
    """Pictures of 120 x 160 inside a border."""
    frames = []
    for inside in pictures(120 - top - bottom, 160 - left - right):
        frame = border.copy()
        frame[top : 120 - bottom, left : 160 - right] = inside
        frames.append(frame)
    return frames


@pytest.mark.parametrize("widths", [(20, 20, 0, 0), (0, 0, 30, 30), (10, 14, 6, 8), (12, 0, 0, 0)])
@pytest.mark.parametrize("colour", [0, 255, 130])
def test_plain_bars_are_measured(widths: tuple[int, int, int, int], colour: int) -> None:
    top, bottom, left, right = widths
    scores = border_scores(framed(*widths, np.full((120, 160, 3), colour, np.uint8)))
    assert [scores[name] for name in ("crop_left", "crop_top", "crop_width", "crop_height")] == [
        left,
        top,
        160 - left - right,
        120 - top - bottom,
    ]
    assert scores["border_share"] == pytest.approx(1 - (160 - left - right) * (120 - top - bottom) / (120 * 160), abs=1e-5)


def test_a_printed_border_is_told_from_a_wall_by_what_moves_inside() -> None:
    pattern = np.random.default_rng(9).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    moving = framed(16, 16, 20, 20, pattern)
    assert border_scores(moving)["border_share"] > 0.4
    assert border_scores([moving[0]] * 4)["border_share"] == 0


def test_a_dark_sky_and_a_fade_to_black_are_no_bars() -> None:
    ramp = np.repeat(np.linspace(0, 200, 120)[:, None, None], 160, 1).repeat(3, 2).astype(np.uint8)
    assert border_scores([ramp] * 3)["border_share"] == 0
    black = [np.zeros((120, 160, 3), np.uint8)] * 3
    assert border_scores(black)["border_share"] == 0
    assert border_scores([*black, *pictures(120, 160)])["border_share"] == 0


def test_odd_bars_leave_an_even_box_inside() -> None:
    scores = border_scores(framed(11, 13, 0, 0, np.zeros((120, 160, 3), np.uint8)))
    assert (scores["crop_top"], scores["crop_height"]) == (12, 94)


def test_what_is_nearly_all_border_stays_whole() -> None:
    scores = border_scores(framed(50, 50, 60, 60, np.zeros((120, 160, 3), np.uint8)))
    assert (scores["border_share"], scores["crop_width"]) == (0, 160)
    assert set(border_scores([]).values()) == {None}


def box_of(widths: tuple[int, int, int, int], colour: int, mode: str) -> tuple[int, int, int, int] | None:
    return crop_box(border_scores(framed(*widths, np.full((120, 160, 3), colour, np.uint8))), 120, 160, mode)  # type: ignore[arg-type]


def test_only_black_bars_in_pairs_are_cut_away_unasked() -> None:
    assert box_of((20, 20, 0, 0), 0, "black") == (0, 20, 160, 80)
    assert box_of((0, 0, 30, 30), 0, "black") == (30, 0, 100, 120)
    assert box_of((12, 0, 30, 30), 0, "black") == (30, 0, 100, 120), "a bar at the top alone may be a sky"
    assert box_of((12, 0, 0, 0), 0, "black") is None
    assert box_of((20, 20, 0, 0), 130, "black") is None
    assert box_of((20, 20, 0, 0), 0, "off") is None
    assert box_of((12, 0, 0, 0), 130, "any") == (0, 12, 160, 108)


def test_a_clip_has_the_borders_of_the_frames_inside_it() -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    wide, whole = framed(20, 20, 0, 0, black)[0], pictures(120, 160)[0]
    samples = np.array([frame_sides(to_luma(frame[None])[0]) for frame in (wide, black, whole, whole)])
    assert np.isnan(samples[1]).all(), "a black frame says nothing"
    file = {"height": 120, "width": 160, "sides": [0, 0, 0, 0], "luma": np.nan}
    times_s = np.arange(4.0)
    assert clip_borders(times_s, samples, file, 0.0, 2.0)["crop_height"] == 80
    assert clip_borders(times_s, samples, file, 2.0, 4.0)["border_share"] == 0
    boxed_file = {**file, "sides": [0, 16, 0, 16], "luma": 3.0}
    dark = clip_borders(times_s, samples, boxed_file, 1.0, 2.0)
    assert (dark["crop_height"], dark["border_luma"]) == (88, 3.0)


@pytest.mark.parametrize("as_luma", [False, True])
def test_the_check_sees_what_a_bar_shows(as_luma: bool) -> None:
    box, frame = (0, 20, 160, 80), framed(20, 20, 0, 0, np.zeros((120, 160, 3), np.uint8))[0]
    frame = np.ascontiguousarray(frame[..., 0]) if as_luma else frame
    assert BarCheck(box, "black")(frame)
    frame[105:110, 20:100] = 220
    assert not BarCheck(box, "black")(frame)
    still = BarCheck(box, "any")
    assert still(frame)
    assert still(frame)
    frame[105:110, 20:100] = 90
    assert not still(frame)
