"""How much moves, and what the camera does: static, pan, tilt, zoom, roll or shake.

Axis legend: T frames, H height, W width, C = 3 (RGB).

All amounts share one unit, the picture's diagonal per second: 1 means that a point of the picture crosses its diagonal within
a second. A zoom or roll is counted by how fast it moves a point at a typical distance from the centre (`ARM` diagonals), so
that it can be compared with a pan. Shake is what of the camera's path is left when half a second is averaged away.
"""

import numpy as np

from worldfoundry.curation.scores.flow import CameraPath, block_flow, camera_path
from worldfoundry.curation.shots import to_luma

ARM = 0.29  # mean distance of a picture's points from its centre in diagonals (16:9; 0.28 for 4:3)
SMOOTH_S = 0.5
# Diagonals per second. Measured on rendered scenes and footage: compression noise stays below 0.004, slow pans begin at 0.02.
STILL = 0.006
# A movement names the span if it moves the picture this many times further than the shake does.
SHAKE_RATIO = 1.0
BLOCK = 256  # pairs that are looked at together

# One row per pair of frames: time of the second one and seconds between them; then diagonals per second.
STEP_COLUMNS = ("time_s", "spacing_s", "pan", "tilt", "zoom", "roll", "amount", "objects")

MOTION_COLUMNS = (
    "motion_amount",
    "motion_objects",
    "near_static",
    "camera_motion",
    "camera_pan",
    "camera_tilt",
    "camera_zoom",
    "camera_roll",
    "camera_shake",
)


def motion_scores(rgb_THWC: np.ndarray, fps: float) -> dict[str, float | str | None]:
    """Motion of one span of frames at an even rate (a few per second do; 8 see hand shake up to 4 Hz): see `motion_of`."""
    return motion_of(motion_steps(rgb_THWC, np.arange(len(rgb_THWC)) / fps))


def motion_steps(rgb_THWC: np.ndarray, times_s_T: np.ndarray, stretch: float = 1.0) -> np.ndarray:
    """What happens from each frame to the next: (T - 1, 8) in diagonals per second, as `STEP_COLUMNS` says.

    `stretch` is how much wider a pixel is than it is high, for pictures that were squeezed. Pairs without texture have NaN.
    """
    if len(rgb_THWC) < 2:
        return np.zeros((0, len(STEP_COLUMNS)))
    flow, textured, path = _path_of(rgb_THWC, stretch)
    H, W = rgb_THWC.shape[1], rgb_THWC.shape[2] * stretch
    spacing_s = np.diff(times_s_T)
    per_s = 1 / (float(np.hypot(H, W)) * spacing_s)
    moved, own = _mean_lengths(flow, textured, path, H, W)
    steps = np.stack(
        [
            times_s_T[1:],
            spacing_s,
            -path.shift_T2[:, 0] * per_s,
            -path.shift_T2[:, 1] * per_s,
            path.scale_T * ARM / spacing_s,
            path.turn_T * ARM / spacing_s,
            moved * per_s,
            own * per_s,
        ],
        1,
    )
    steps[~textured.any(axis=(1, 2)), 2:] = np.nan
    return steps


def motion_of(steps_TN: np.ndarray, *, still: float = STILL, shake_ratio: float = SHAKE_RATIO) -> dict[str, float | str | None]:
    """Motion of the span that some rows of `motion_steps` cover.

    motion_amount   mean length of the flow of textured blocks, diagonals per second, 0 and up
    motion_objects  the same of what the camera's movement does not explain
    near_static     share of time in which less than `still` diagonals per second move, 0 to 1
    camera_motion   static, pan, tilt, zoom, roll or shake: the movement that moves the picture furthest
    camera_pan      signed mean, diagonals per second; the camera turns right (> 0) or left
    camera_tilt     the camera turns down (> 0) or up
    camera_zoom     the picture grows (> 0: zoom in, or going forward)
    camera_roll     the picture turns clockwise (> 0)
    camera_shake    mean length of the movement that comes and goes within half a second

    With one frame, or none with texture, nothing is known and all are None.
    """
    steps_TN = steps_TN[~np.isnan(steps_TN).any(axis=1)]
    if len(steps_TN) == 0:
        return dict.fromkeys(MOTION_COLUMNS)
    spacing_s, camera_T4, moved, own = steps_TN[:, 1], steps_TN[:, 2:6], steps_TN[:, 6], steps_TN[:, 7]
    smooth_T4 = _smoothed(camera_T4, max(1, round(SMOOTH_S / float(np.median(spacing_s)))))
    shake = float(np.hypot(*(camera_T4 - smooth_T4)[:, :2].T).mean())
    return {
        "motion_amount": round(float(moved.mean()), 5),
        "motion_objects": round(float(own.mean()), 5),
        "near_static": round(float((moved < still).mean()), 4),
        "camera_motion": motion_type(smooth_T4, shake, still, shake_ratio),
        **{name: round(float(camera_T4[:, i].mean()), 5) for i, name in enumerate(MOTION_COLUMNS[4:8])},
        "camera_shake": round(shake, 5),
    }


def motion_type(smooth_T4: np.ndarray, shake: float, still: float = STILL, shake_ratio: float = SHAKE_RATIO) -> str:
    """The movement that moves the picture furthest, of pan, tilt, zoom, roll (smoothed, so back and forth counts) and shake."""
    amounts = dict(zip(("pan", "tilt", "zoom", "roll"), np.abs(smooth_T4).mean(0).tolist(), strict=True))
    name, most = max(amounts.items(), key=lambda item: item[1])
    if max(most, shake) < still:
        return "static"
    return "shake" if shake > shake_ratio * most else name


def _path_of(rgb_THWC: np.ndarray, stretch: float) -> tuple[np.ndarray, np.ndarray, CameraPath]:
    """Flow, texture and camera of all pairs, block by block so that memory stays small."""
    flows, masks = [], []
    for start in range(0, len(rgb_THWC) - 1, BLOCK):
        flow, textured = block_flow(to_luma(rgb_THWC[start : start + BLOCK + 1]))
        flows.append(flow)
        masks.append(textured)
    flow, textured = np.concatenate(flows) * np.array([stretch, 1], np.float32), np.concatenate(masks)
    return flow, textured, camera_path(flow, textured, rgb_THWC.shape[1], rgb_THWC.shape[2], stretch)


def _mean_lengths(
    flow: np.ndarray, textured: np.ndarray, path: CameraPath, height: float, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean length of the flow of textured blocks per pair, and of what the camera does not explain, in pixels."""
    rows, columns = flow.shape[1:3]
    y = ((np.arange(rows) + 0.5) * (height / rows) - height / 2)[None, :, None]
    x = ((np.arange(columns) + 0.5) * (width / columns) - width / 2)[None, None]
    tx, ty, s, r = (p[:, None, None] for p in (path.shift_T2[:, 0], path.shift_T2[:, 1], path.scale_T, path.turn_T))
    own = np.hypot(flow[..., 0] - (tx + s * x - r * y), flow[..., 1] - (ty + s * y + r * x))
    count = np.maximum(textured.sum(axis=(1, 2)), 1)
    whole = np.hypot(flow[..., 0], flow[..., 1])
    return (whole * textured).sum(axis=(1, 2)) / count, (own * textured).sum(axis=(1, 2)) / count


def _smoothed(steps_TN: np.ndarray, window: int) -> np.ndarray:
    """Running mean over `window` steps; at the ends over what there is."""
    kernel = np.ones(min(window | 1, 2 * len(steps_TN) - 1))
    count = np.convolve(np.ones(len(steps_TN)), kernel, mode="same")[: len(steps_TN)]
    sums = [np.convolve(column, kernel, mode="full")[len(kernel) // 2 :][: len(column)] for column in steps_TN.T]
    return np.stack(sums, 1) / np.maximum(count, 1)[:, None]
