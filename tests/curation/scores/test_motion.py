"""Scenes whose camera movement is known exactly: a smooth random picture looked at through a moving window."""

import numpy as np
import pytest
from PIL import Image

from worldfoundry.curation.scores.flow import block_flow, camera_path, phase_shift
from worldfoundry.curation.scores.motion import ARM, motion_of, motion_scores, motion_steps
from worldfoundry.curation.shots import to_luma

H, W, FPS = 72, 128, 8.0
DIAGONAL = float(np.hypot(H, W))


def world(seed: int = 0, cell: int = 8) -> Image.Image:
    """A picture four times as large as the window."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4 * H // cell, 4 * W // cell, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((4 * W, 4 * H), Image.Resampling.BICUBIC)


def look(x: float = 0.0, y: float = 0.0, zoom: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """The window with its centre moved by (x, y) pixels, `zoom` times nearer, the picture turned clockwise by `turn` radians."""
    c, s = np.cos(turn) / zoom, np.sin(turn) / zoom
    centre = 2 * W + x, 2 * H + y
    matrix = (c, s, centre[0] - c * W / 2 - s * H / 2, -s, c, centre[1] + s * W / 2 - c * H / 2)
    return np.asarray(world().transform((W, H), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def film(num_frames: int = 17, **speeds: float) -> np.ndarray:
    """Every speed per frame; `zoom` as growth per frame."""
    zoom = speeds.pop("zoom", 0.0)
    return np.stack([look(**{k: v * t for k, v in speeds.items()}, zoom=(1 + zoom) ** t) for t in range(num_frames)])


@pytest.mark.parametrize(
    ("speeds", "kind", "column", "expected"),
    [
        ({"x": 3.0}, "pan", "camera_pan", 3.0 * FPS / DIAGONAL),
        ({"x": -7.0}, "pan", "camera_pan", -7.0 * FPS / DIAGONAL),
        ({"y": 2.0}, "tilt", "camera_tilt", 2.0 * FPS / DIAGONAL),
        ({"zoom": 0.02}, "zoom", "camera_zoom", 0.02 * FPS * ARM),
        ({"zoom": -0.02}, "zoom", "camera_zoom", -0.02 * FPS * ARM),
        ({"turn": 0.03}, "roll", "camera_roll", 0.03 * FPS * ARM),
    ],
)
def test_a_known_camera_is_measured(speeds: dict[str, float], kind: str, column: str, expected: float) -> None:
    scores = motion_scores(film(**speeds), FPS)
    assert scores["camera_motion"] == kind
    assert scores[column] == pytest.approx(expected, rel=0.06)
    others = {"camera_pan", "camera_tilt", "camera_zoom", "camera_roll"} - {column}
    assert all(abs(float(scores[name] or 0)) < 0.1 * abs(expected) for name in others)
    assert scores["near_static"] == 0
    assert float(scores["camera_shake"] or 0) < 0.1 * abs(expected)


def test_the_amount_does_not_depend_on_size_or_rate() -> None:
    whole = motion_scores(film(x=2.0), FPS)
    every_other = motion_scores(film(x=2.0)[::2], FPS / 2)
    small = np.stack([np.asarray(Image.fromarray(f).resize((W // 2, H // 2), Image.Resampling.BOX)) for f in film(x=2.0)])
    for other in (every_other, motion_scores(small, FPS)):
        assert other["motion_amount"] == pytest.approx(whole["motion_amount"], rel=0.05)
        assert other["camera_motion"] == "pan"
    assert whole["motion_amount"] == pytest.approx(2.0 * FPS / DIAGONAL, rel=0.05)


def test_noise_on_a_still_picture_is_static() -> None:
    noise = np.random.default_rng(1).normal(0, 3, (17, H, W, 3))
    frames = np.clip(np.stack([look()] * 17) + noise, 0, 255).astype(np.uint8)
    scores = motion_scores(frames, FPS)
    assert (scores["camera_motion"], scores["near_static"]) == ("static", 1.0)


def test_a_hand_shakes() -> None:
    wobble = np.random.default_rng(2).normal(0, 1.5, (33, 2))
    shaken = np.stack([look(x=x, y=y) for x, y in wobble])
    assert motion_scores(shaken, FPS)["camera_motion"] == "shake"
    while_panning = np.stack([look(x=x + 6 * t - 90, y=y) for t, (x, y) in enumerate(wobble)])
    scores = motion_scores(while_panning, FPS)
    assert scores["camera_motion"] == "pan"
    assert scores["camera_shake"] == pytest.approx(motion_scores(shaken, FPS)["camera_shake"], rel=0.25)


def test_something_that_moves_before_a_still_camera_is_not_the_camera() -> None:
    frames = film(x=0.0).copy()
    patch = np.asarray(world(seed=5, cell=6))[:30, :40]
    for t, frame in enumerate(frames):
        frame[20:50, 4 * t : 4 * t + 40] = patch
    scores = motion_scores(frames, FPS)
    assert scores["camera_motion"] == "static"
    assert float(scores["motion_objects"] or 0) > 0.02
    assert scores["motion_objects"] == pytest.approx(scores["motion_amount"], rel=0.05)


def test_what_shows_nothing_has_no_motion_score() -> None:
    assert set(motion_scores(np.full((9, H, W, 3), 90, np.uint8), FPS).values()) == {None}
    assert set(motion_scores(film(1), FPS).values()) == {None}


def test_phase_correlation_finds_large_shifts() -> None:
    luma = to_luma(np.stack([look(x=-10), look(x=25, y=-6)]))
    assert phase_shift(luma).tolist() == [[-35.0, 6.0]]


def test_the_fit_is_exact_on_exact_flow_and_ignores_outliers() -> None:
    y, x = np.meshgrid((np.arange(6) + 0.5) * 12 - 36, (np.arange(8) + 0.5) * 16 - 64, indexing="ij")
    flow = np.stack([1 + 0.02 * x - 0.01 * y, -2 + 0.02 * y + 0.01 * x], -1)[None]
    flow[0, :2, :4] = 9.0
    path = camera_path(flow, np.ones((1, 6, 8), bool), H, W)
    assert np.allclose(path.shift_T2, [[1, -2]], atol=0.02)
    assert np.allclose([path.scale_T[0], path.turn_T[0]], [0.02, 0.01], atol=5e-4)
    assert path.inliers_T[0] == pytest.approx(40 / 48)


def test_flow_of_blocks_is_subpixel() -> None:
    flow, textured = block_flow(to_luma(np.stack([look(), look(x=0.4, y=-0.3)])))
    assert textured.mean() > 0.9
    assert np.allclose(flow[0][textured[0]].mean(0), [-0.4, 0.3], atol=0.05)


def test_a_squeezed_picture_of_a_rolling_camera_still_rolls() -> None:
    frames = film(turn=0.03)
    squeezed = np.stack([np.asarray(Image.fromarray(f).resize((W // 2, H), Image.Resampling.BOX)) for f in frames])
    scores = motion_of(motion_steps(squeezed, np.arange(len(frames)) / FPS, stretch=2.0))
    assert scores["camera_motion"] == "roll"
    assert scores["camera_roll"] == pytest.approx(0.03 * FPS * ARM, rel=0.1)
