"""Line charts as inline SVG: no library, no script, colours from the page's style so that they follow light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 42
COLOURS = 8  # --series-0 … --series-7 in the page's style


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: a label and points (x, y). Points that are not finite (or not positive on a log axis) are left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class _Axis:
    low: float
    high: float
    log: bool
    start: float
    stop: float

    def at(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1.0) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    title: str = "",
    width: int = 680,
) -> str:
    """An `<svg>` with axes, grid, lines and direct end markers; the legend is the caller's (`legend`)."""
    lines = [_drawable(one, log_x, log_y) for one in series]
    points = [point for line in lines for point in line]
    if not points:
        return '<p class="note">Nothing to draw: no finite value.</p>'
    x_axis = _axis([x for x, _ in points], log_x, LEFT, width - RIGHT, pad=0.0)
    y_axis = _axis([y for _, y in points], log_y, HEIGHT - BOTTOM, TOP, pad=0.06)
    parts = [
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(title or y_label)}">',
        *_grid(x_axis, y_axis),
        f'<text class="label" x="{(LEFT + width - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text class="label" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
        *(_line(i, one, line, x_axis, y_axis) for i, (one, line) in enumerate(zip(series, lines, strict=True))),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(series: Sequence[Series]) -> str:
    """The labels with their colours, as a wrapping list."""
    items = (
        f'<li><span class="swatch{" dashed" if one.dashed else ""}" style="--c:var(--series-{i % COLOURS})"></span>'
        f"{escape(one.label)}</li>"
        for i, one in enumerate(series)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= min((1, 2, 5, 10), key=lambda factor: abs((high - low) / (step * factor) - about))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], with 2 and 5 between them where there are fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**p for p in powers if low <= 10.0**p <= high]
    if len(tens) >= 3:
        return tens
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _drawable(series: Series, log_x: bool, log_y: bool) -> list[tuple[float, float]]:
    pairs = zip(series.x, series.y, strict=True)
    good = ((float(x), float(y)) for x, y in pairs if math.isfinite(x) and math.isfinite(y))
    return [(x, y) for x, y in good if (x > 0 or not log_x) and (y > 0 or not log_y)]


def _axis(values: list[float], log: bool, start: float, stop: float, *, pad: float) -> _Axis:
    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1)
    if log:
        ratio = (high / low) ** pad
        return _Axis(low=low / ratio, high=high * ratio, log=True, start=start, stop=stop)
    margin = (high - low) * pad
    return _Axis(low=low - margin, high=high + margin, log=False, start=start, stop=stop)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    parts = []
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{x_axis.stop}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in x_axis.ticks():
        x = x_axis.at(value)
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{x_axis.stop}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    return parts


def _line(index: int, series: Series, points: list[tuple[float, float]], x_axis: _Axis, y_axis: _Axis) -> str:
    if not points:
        return ""
    where = [(x_axis.at(x), y_axis.at(y)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
    dash = ' stroke-dasharray="6 4"' if series.dashed else ""
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in (where if len(where) <= 24 else where[-1:]))
    return (
        f'<g class="series" style="--c:var(--series-{index % COLOURS})"><title>{escape(series.label)}</title>'
        f'<polyline points="{path}"{dash}/>{dots}</g>'
    )


def number(value: float) -> str:
    """Short text of a tick: 1500, 0.25, 2e-05."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"
