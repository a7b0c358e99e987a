"""Bars and borders: the box of the picture inside letterbox, pillarbox or a frame that never changes.

Axis legend: T frames, H height, W width, C = 3 (RGB).

A line (row or column) can belong to a border if it is the same in all frames; it does if, inwards of it, a straight edge
runs along at least half of the picture. The edge is what tells a black bar from a dark sky, and a printed border from a wall.

The decoding pass does not know yet where clips will be, so it keeps what each frame looked at says by itself (plain bars),
and what many frames of the file say together (printed borders too). `clip_borders` makes of it what holds for one clip,
`crop_box` what encoding may cut away, and `BarCheck` looks at every frame while that is done.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from worldfoundry.curation.shots import to_luma

SAME = 6.0  # luma levels: how much coding lets a still picture vary
FLAT = 6.0  # luma levels: deviation along a line that counts as uniform
EDGE = 10.0  # luma levels: step across the border's inner edge
EDGE_SHARE = 0.5  # of the picture's length along which the step must show, in some frame
LEAST_SIDE = 0.3  # of the picture: a smaller box would be a mistake
MOVES = 2.0  # luma levels: mean change inside the picture from which a border with a pattern can be told from it
PLAIN = 4.0  # luma levels: a frame that deviates by less (a fade, a dark scene) says nothing about its borders
BLACK = 24.0  # luma levels: bars of letterbox and pillarbox are at most so bright
BRIGHT = 64.0  # luma levels: something is shown in a black bar
SHOWN_SHARE = 0.01  # of a bar that may be bright, or change, before it counts as part of the picture
SOFT_LINES = 2  # at a bar's inner edge, where coding mixes it with the picture

BORDER_COLUMNS = ("crop_left", "crop_top", "crop_width", "crop_height", "border_share", "border_luma")
Sides = tuple[int, int, int, int]
"""Widths in pixels of the borders at the left, the top, the right and the bottom."""
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


def border_scores(frames_HWC: Sequence[np.ndarray]) -> dict[str, float | int | None]:
    """The box without borders, in pixels of the frames given (uint8, all of one span), and the share of the picture outside it.

    Sides are even numbers, as encoding needs them. A span without borders gives the whole picture and 0. With one frame
    only uniform borders can be told. `border_luma` is the mean luma of the brightest border, None without one.
    """
    if len(frames_HWC) == 0:
        return dict.fromkeys(BORDER_COLUMNS)
    sides, luma = border_sides(to_luma(np.stack(list(frames_HWC))))
    return _scores(sides, luma, *frames_HWC[0].shape[:2])


def border_sides(luma_THW: np.ndarray) -> tuple[Sides, float]:
    """The borders of a span, and the mean luma of the brightest (NaN without one)."""
    H, W = luma_THW.shape[1:]
    top, bottom = border_widths(luma_THW)
    left, right = border_widths(luma_THW[:, top : H - bottom].swapaxes(1, 2))
    bars = [luma_THW[:, :top], luma_THW[:, H - bottom :], luma_THW[:, :, :left], luma_THW[:, :, W - right :]]
    return (left, top, right, bottom), max((float(bar.mean()) for bar in bars if bar.size), default=np.nan)


def frame_sides(luma_HW: np.ndarray) -> list[float]:
    """Left, top, right, bottom and luma of the plain borders of one frame; NaN throughout if it is too plain to tell."""
    if luma_HW.std() < PLAIN:
        return [np.nan] * 5
    sides, luma = border_sides(luma_HW[None])
    return [*sides, luma]


def clip_borders(
    times_s_S: np.ndarray, sides_S5: np.ndarray, whole: Mapping[str, Any], start_s: float, end_s: float
) -> dict[str, Any]:
    """The columns of one clip: the plain borders of the frames looked at inside it, else those of the whole file.

    `whole` holds `height`, `width`, `sides` and `luma` of many frames of the file together.
    """
    inside = (times_s_S >= start_s - 1e-3) & (times_s_S < end_s) & ~np.isnan(sides_S5[:, 0])
    if inside.any():
        middle = np.quantile(sides_S5[inside, :4], 0.5, axis=0, method="lower")
        if middle.any():
            left, top, right, bottom = (int(side) for side in middle)
            luma = float(np.nanmax(sides_S5[inside, 4]))
            return _scores((left, top, right, bottom), luma, whole["height"], whole["width"])
    return _scores(tuple(whole["sides"]), whole["luma"], whole["height"], whole["width"])


def crop_box(columns: Mapping[str, Any], height: int, width: int, mode: Literal["black", "any", "off"]) -> Box | None:
    """What of a picture encoding keeps; None for all of it.

    `black` cuts away letterbox and pillarbox only: black bars, and those on opposite sides, neither of them more than twice
    as wide as the other. A night sky over a straight horizon is none.
    """
    if mode == "off" or columns["border_luma"] is None:  # a picture of odd size without borders leaves a line out, too
        return None
    left, top, w, h = (int(columns[name]) for name in BORDER_COLUMNS[:4])
    if mode == "any":
        return left, top, w, h
    if columns["border_luma"] > BLACK:
        return None
    if not _pair(left, width - left - w):
        left, w = 0, width - width % 2
    if not _pair(top, height - top - h):
        top, h = 0, height - height % 2
    return (left, top, w, h) if (w, h) != (width - width % 2, height - height % 2) else None


class BarCheck:
    """Whether what is cut away of a frame (RGB, or its luma) shows nothing: black bars stay dark, others as in the first frame."""

    def __init__(self, box: Box, mode: Literal["black", "any", "off"]) -> None:
        self.box, self.mode, self.first = box, mode, None

    def __call__(self, frame: np.ndarray) -> bool:
        left, top, width, height = self.box
        right, bottom, soft = left + width, top + height, SOFT_LINES
        parts = [frame[: top - soft if top else 0], frame[bottom + soft :]]
        parts += [frame[top:bottom, : left - soft if left else 0], frame[top:bottom, right + soft :]]
        bars = [to_luma(part) if part.ndim == 3 else part.astype(np.float32) for part in parts if part.size]
        if self.mode == "black":
            return all((bar > BRIGHT).mean() <= SHOWN_SHARE for bar in bars)
        self.first = self.first or bars
        pairs = zip(bars, self.first, strict=True)
        return all((np.abs(bar - first) > 3 * SAME).mean() <= SHOWN_SHARE for bar, first in pairs)


def _pair(one: int, other: int) -> bool:
    return max(one, other) <= 2 * min(one, other) and one > 0


def _scores(sides: Sides, luma: float, H: int, W: int) -> dict[str, float | int | None]:
    left, top, right, bottom = sides
    rows, columns = _even(top, H - bottom), _even(left, W - right)
    if min((rows[1] - rows[0]) / H, (columns[1] - columns[0]) / W) < LEAST_SIDE:
        rows, columns, luma = (0, H), (0, W), np.nan
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    return {
        "crop_left": columns[0],
        "crop_top": rows[0],
        "crop_width": width,
        "crop_height": height,
        "border_share": round(1 - height * width / (H * W), 5),
        "border_luma": None if np.isnan(luma) else round(luma, 2),
    }


def border_widths(luma_THW: np.ndarray) -> tuple[int, int]:
    """How many rows at the top and at the bottom are border."""
    T, H, _ = luma_THW.shape
    change_HW = luma_THW.max(0) - luma_THW.min(0)
    still_H = np.quantile(change_HW, 0.98, axis=1) <= SAME if T > 1 else np.full(H, True)
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
