"""Bars and borders: the box of the picture inside letterbox, pillarbox or a frame that never changes.

Axis legend: T frames, H height, W width, C = 3 (RGB).

A line (row or column) can belong to a border if it is the same in all frames; it does if, inwards of it, a straight edge
runs along at least half of the picture. The edge is what tells a black bar from a dark sky, and a printed border from a wall.
"""

from collections.abc import Sequence

import numpy as np

from worldfoundry.curation.shots import to_luma

SAME = 6.0  # luma levels: how much coding lets a still picture vary
FLAT = 6.0  # luma levels: deviation along a line that counts as uniform
EDGE = 10.0  # luma levels: step across the border's inner edge
EDGE_SHARE = 0.5  # of the picture's length along which the step must show, in some frame
LEAST_SIDE = 0.3  # of the picture: a smaller box would be a mistake
MOVES = 2.0  # luma levels: mean change inside the picture from which a border with a pattern can be told from it

BORDER_COLUMNS = ("crop_left", "crop_top", "crop_width", "crop_height", "border_share")


def border_scores(frames_HWC: Sequence[np.ndarray]) -> dict[str, float | int | None]:
    """The box without borders, in pixels of the frames given (uint8, all of one span), and the share of the picture outside it.

    Sides are even numbers, as encoding needs them. A span without borders gives the whole picture and 0. With one frame
    only uniform borders can be told.
    """
    if len(frames_HWC) == 0:
        return dict.fromkeys(BORDER_COLUMNS)
    luma_THW = to_luma(np.stack(list(frames_HWC)))
    H, W = luma_THW.shape[1:]
    top, bottom = border_widths(luma_THW)
    inside = luma_THW[:, top : H - bottom]
    left, right = border_widths(inside.swapaxes(1, 2))
    rows, columns = _even(top, H - bottom), _even(left, W - right)
    if min((rows[1] - rows[0]) / H, (columns[1] - columns[0]) / W) < LEAST_SIDE:
        rows, columns = (0, H), (0, W)
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    return {
        "crop_left": columns[0],
        "crop_top": rows[0],
        "crop_width": width,
        "crop_height": height,
        "border_share": round(1 - height * width / (H * W), 5),
    }


def border_widths(luma_THW: np.ndarray) -> tuple[int, int]:
    """How many rows at the top and at the bottom are border."""
    T, H, _ = luma_THW.shape
    change_HW = luma_THW.max(0) - luma_THW.min(0)
    still_H = np.quantile(change_HW, 0.98, axis=1) <= SAME
    flat_H = (luma_THW.std(axis=2) <= FLAT).all(0)
    colour_H = np.abs(luma_THW.mean(2) - luma_THW.mean(2)[:, :1]).max(0) <= SAME  # as the outermost row
    moves = T > 1 and change_HW[H // 4 : H - H // 4].mean() > MOVES
    step_H = (np.abs(np.diff(luma_THW, axis=1)).max(0) > EDGE).mean(1)  # step_H[i]: between rows i and i + 1
    ends = []
    for flip in (False, True):
        still, flat, colour, step = (x[::-1] if flip else x for x in (still_H, flat_H, colour_H, step_H))
        if flip:
            colour = (np.abs(luma_THW.mean(2) - luma_THW.mean(2)[:, -1:]).max(0) <= SAME)[::-1]
        uniform = _leading(still & flat & colour)
        width = _at_edge(step, uniform, slack=2)
        if not width and moves:
            width = _at_edge(step, _leading(still), slack=2)
        ends.append(width)
    return ends[0], ends[1]


def _leading(mask: np.ndarray) -> int:
    """How many of the first entries are true."""
    return len(mask) if mask.all() else int(np.argmin(mask))


def _at_edge(step: np.ndarray, width: int, slack: int) -> int:
    """The border's width at the strongest step near its end (coding softens an edge over a line or two), 0 if there is none."""
    if width == 0 or width >= len(step):
        return 0
    low, high = max(width - 1 - slack, 0), min(width + slack, len(step))
    at = low + int(np.argmax(step[low:high]))
    return max(at + 1, width) if step[at] >= EDGE_SHARE else 0


def _even(start: int, end: int) -> tuple[int, int]:
    """The largest even-sized span from an even start inside [start, end); the whole picture stays as it is."""
    if start == 0:
        return 0, end if end % 2 == 0 else end - 1
    start += start % 2
    return start, end - (end - start) % 2
