"""Where the blocks of one picture went in the next, and the one camera movement that explains most of them.

Axis legend: T pairs of pictures, H height, W width, R x C blocks of h x w pixels, 2 = (x right, y down).

Blocks: pyramid Lucas-Kanade (1981) in the inverse form of Baker and Matthews (2004): gradients and matrix of the first
picture are computed once, the second is sampled where the block is thought to be. It starts from the one shift of the whole
picture that phase correlation (Kuglin and Hines 1975) sees at the coarsest level, so that fast pans are within reach.
Camera: a similarity fitted by least squares with Geman-McClure weights, so that things which move on their own count little.
"""

from dataclasses import dataclass

import numpy as np

ROWS, COLUMNS = 6, 8
COARSEST = 18  # pixels: least height at which pictures are halved no further
STEPS = 3  # at each level
LARGEST_STEP = 1.5  # pixels
REACH = 4.0  # pixels from where a block starts at a level; further is taken for an error
TEXTURE = 4.0  # squared luma levels per pixel: the weaker direction of a block must change more than so
NOISE_PX = 0.05  # scale below which deviations from the camera's movement are rounding


@dataclass(frozen=True, kw_only=True)
class CameraPath:
    """The similarity between consecutive pictures, of T pairs, as flow: what the picture does, not the camera.

    `shift_T2` is the movement of the picture's centre in pixels, `scale_T` growth (0.01 = 1 % larger), `turn_T` radians
    clockwise, `inliers_T` the share of textured blocks that follow, `textured_T` the share of blocks that had texture.
    """

    shift_T2: np.ndarray
    scale_T: np.ndarray
    turn_T: np.ndarray
    inliers_T: np.ndarray
    textured_T: np.ndarray


def block_flow(luma_THW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow (T - 1, R, C, 2) of blocks from each picture to the next in pixels, and which blocks have texture (T - 1, R, C).

    `luma_THW` is float32, 0 to 255, at least 18 x 24; rows and columns beyond a multiple of 6 x 8 blocks are left out.
    """
    levels = [luma_THW]
    while levels[-1].shape[1] >= 2 * COARSEST and levels[-1].shape[2] >= 2 * COARSEST:
        levels.append(_half(levels[-1]))
    shift_T2 = phase_shift(levels[-1])
    flow = np.repeat(np.repeat(shift_T2[:, None, None], ROWS, 1), COLUMNS, 2).astype(np.float32)
    textured = np.zeros(flow.shape[:3], bool)
    for number, level in enumerate(reversed(levels)):
        if number:
            flow = 2 * flow
        flow, textured = _refine(level, flow)
    return flow, textured


def phase_shift(luma_THW: np.ndarray) -> np.ndarray:
    """Whole-pixel shift (T - 1, 2) of each picture to the next, by phase correlation; 0 where that explains no more."""
    T, H, W = luma_THW.shape
    window = np.hanning(H + 2)[1:-1, None] * np.hanning(W + 2)[None, 1:-1]
    spectrum = np.fft.rfft2((luma_THW - luma_THW.mean(axis=(1, 2), keepdims=True)) * window)
    cross = spectrum[1:] * spectrum[:-1].conj()
    peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-3), s=(H, W)).reshape(T - 1, -1).argmax(1)
    y, x = peak // W, peak % W
    shifts = np.stack([np.where(x > W // 2, x - W, x), np.where(y > H // 2, y - H, y)], 1)
    for t, (dx, dy) in enumerate(shifts):
        if _overlap_change(luma_THW[t], luma_THW[t + 1], int(dx), int(dy)) >= np.abs(luma_THW[t + 1] - luma_THW[t]).mean():
            shifts[t] = 0
    return shifts.astype(np.float32)


def camera_path(flow: np.ndarray, textured: np.ndarray, height: int, width: int, stretch: float = 1.0) -> CameraPath:
    """Fit u = tx + s x - r y, v = ty + s y + r x to the blocks of every pair (x, y from the centre, in pixels).

    `stretch`: x and u count pixels times this (u was multiplied already), where pixels are wider than high.
    """
    T = len(flow)
    h, w = height // ROWS, width // COLUMNS
    y, x = np.meshgrid((np.arange(ROWS) + 0.5) * h, (np.arange(COLUMNS) + 0.5) * w, indexing="ij")
    x, y = stretch * (x - width / 2).ravel(), (y - height / 2).ravel()
    one, zero = np.ones_like(x), np.zeros_like(x)
    design = np.concatenate([np.stack([one, zero, x, -y], 1), np.stack([zero, one, y, x], 1)])
    moved = np.concatenate([flow[..., 0].reshape(T, -1), flow[..., 1].reshape(T, -1)], 1).astype(np.float64)
    known = textured.reshape(T, -1).astype(np.float64)
    weight, size = known.copy(), np.zeros_like(known)
    fitted = np.zeros((T, 4))
    guard = np.diag([1e-6, 1e-6, 1e-3, 1e-3])  # too few blocks leave scale and turn at 0
    for _ in range(12):
        both = np.concatenate([weight, weight], 1)
        matrix = np.einsum("tn,ni,nj->tij", both, design, design) + guard
        fitted = np.linalg.solve(matrix, np.einsum("tn,ni,tn->ti", both, design, moved)[..., None])[..., 0]
        error = moved - fitted @ design.T
        size = np.hypot(*np.split(error, 2, axis=1))
        scale = np.maximum(1.5 * _masked_median(size, known > 0), NOISE_PX)[:, None]
        weight = known / (1 + (size / scale) ** 2) ** 2
    close = np.maximum(0.5, 0.1 * np.hypot(*np.split(fitted @ design.T, 2, axis=1)))
    count = np.maximum(known.sum(1), 1)
    return CameraPath(
        shift_T2=fitted[:, :2],
        scale_T=fitted[:, 2],
        turn_T=fitted[:, 3],
        inliers_T=((size <= close) * known).sum(1) / count,
        textured_T=known.mean(1),
    )


def _half(luma_THW: np.ndarray) -> np.ndarray:
    T, H, W = luma_THW.shape
    return luma_THW[:, : H // 2 * 2, : W // 2 * 2].reshape(T, H // 2, 2, W // 2, 2).mean(axis=(2, 4))


def _overlap_change(a_HW: np.ndarray, b_HW: np.ndarray, dx: int, dy: int) -> float:
    H, W = a_HW.shape
    a = a_HW[max(-dy, 0) : H - max(dy, 0), max(-dx, 0) : W - max(dx, 0)]
    b = b_HW[max(dy, 0) : H - max(-dy, 0), max(dx, 0) : W - max(-dx, 0)]
    return float(np.abs(a - b).mean()) if a.size else np.inf


def _refine(luma_THW: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A few steps of each block from `start`; (flow, texture)."""
    _, H, W = luma_THW.shape
    h, w = H // ROWS, W // COLUMNS
    first = luma_THW[:-1]
    dy_THW, dx_THW = np.gradient(first, axis=(1, 2))
    a, gx, gy = (_blocks(x, h, w) for x in (first, dx_THW, dy_THW))
    xx, yy, xy = ((p * q).sum(axis=(2, 4)) for p, q in ((gx, gx), (gy, gy), (gx, gy)))
    weaker = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    textured = weaker > TEXTURE * h * w
    determinant = np.maximum(xx * yy - xy * xy, 1e-3)
    flow = start.copy()
    for _ in range(STEPS):
        error = _sampled(luma_THW[1:], flow, h, w) - a
        ex, ey = (gx * error).sum(axis=(2, 4)), (gy * error).sum(axis=(2, 4))
        step = np.stack([yy * ex - xy * ey, xx * ey - xy * ex], -1) / determinant[..., None]
        flow = np.where(textured[..., None], flow - step.clip(-LARGEST_STEP, LARGEST_STEP), flow)
    return flow, textured & (np.abs(flow - start).max(-1) <= REACH)


def _blocks(x_THW: np.ndarray, h: int, w: int) -> np.ndarray:
    """(T, R, h, C, w)."""
    return x_THW[:, : ROWS * h, : COLUMNS * w].reshape(len(x_THW), ROWS, h, COLUMNS, w)


def _sampled(luma_THW: np.ndarray, flow: np.ndarray, h: int, w: int) -> np.ndarray:
    """The blocks of a picture moved by their flow (bilinear; the border goes on), (T, R, h, C, w)."""
    T, H, W = luma_THW.shape
    base_y = np.arange(ROWS * h, dtype=np.float32).reshape(ROWS, h)
    base_x = np.arange(COLUMNS * w, dtype=np.float32).reshape(COLUMNS, w)
    y = (base_y[None, :, :, None] + flow[:, :, None, :, 1])[..., None]
    x = base_x[None, None, None] + flow[:, :, None, :, 0][..., None]
    y, x = (np.broadcast_to(p, (T, ROWS, h, COLUMNS, w)) for p in (y.clip(0, H - 1), x.clip(0, W - 1)))
    y0, x0 = np.minimum(y.astype(np.int32), H - 2), np.minimum(x.astype(np.int32), W - 2)
    fy, fx = y - y0, x - x0
    at = np.arange(T, dtype=np.int32)[:, None, None, None, None] * (H * W) + y0 * W + x0
    flat = luma_THW.reshape(-1)
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + W] * (1 - fx) + flat[at + W + 1] * fx
    return upper * (1 - fy) + lower * fy


def _masked_median(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Median along the last axis over the mask; 0 where it is empty."""
    ranked = np.sort(np.where(mask, values, np.inf), axis=1)
    middle = np.maximum(mask.sum(1) - 1, 0) // 2
    chosen = ranked[np.arange(len(values)), middle]
    return np.where(np.isfinite(chosen), chosen, 0.0)
