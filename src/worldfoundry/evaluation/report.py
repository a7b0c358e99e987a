"""One self-contained HTML page: text, tables, charts, images, and clips side by side that play in step.

Nothing is loaded from anywhere; videos and pictures are embedded. All text is escaped. Used by `evaluate` and by the recipes.
"""

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from worldfoundry import __version__
from worldfoundry.core.files import atomic_path
from worldfoundry.core.video_io import write_video
from worldfoundry.evaluation.charts import Series, legend, line_chart

Cell = str | float | int | None | tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs of plain text."""

    title: str
    paragraphs: Sequence[str]
    kind: str = field(default="text", init=False)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first column is a label, the others are right-aligned; a pair is a value with a smaller line below (its interval).

    `strong` are the indices of emphasised rows.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    strong: Sequence[int] = ()
    kind: str = field(default="table", init=False)


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Several series over one pair of axes, with a legend. `half`: two of these stand side by side where there is room."""

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    half: bool = False
    note: str = ""
    kind: str = field(default="chart", init=False)

    @property
    def svg(self) -> Markup:
        return Markup(  # line_chart escapes every label itself
            line_chart(
                self.series,
                x_label=self.x_label,
                y_label=self.y_label,
                log_x=self.log_x,
                log_y=self.log_y,
                title=self.title,
                width=440 if self.half else 900,
            )
        )

    @property
    def legend(self) -> Markup:
        return Markup(legend(self.series))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One embedded video: mp4 bytes, and PNG bytes shown before it plays and in print. Made by `clip`."""

    label: str
    mp4: bytes
    poster: bytes

    @property
    def video_uri(self) -> str:
        return _data_uri("video/mp4", self.mp4)

    @property
    def poster_uri(self) -> str:
        return _data_uri("image/png", self.poster)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Rows of videos of equal length, played in step by one button and one scrubber.

    `rows` are (row label, clips). `given_s` marks how many first seconds were given to the model (0 = none).
    """

    title: str
    rows: Sequence[tuple[str, Sequence[Clip]]]
    given_s: float = 0.0
    note: str = ""
    kind: str = field(default="clips", init=False)


@dataclass(frozen=True, kw_only=True)
class Images:
    """Pictures with captions: (caption, PNG bytes)."""

    title: str
    images: Sequence[tuple[str, bytes]]
    note: str = ""
    kind: str = field(default="images", init=False)

    @property
    def uris(self) -> list[tuple[str, str]]:
        return [(caption, _data_uri("image/png", data)) for caption, data in self.images]


Section = Text | Table | LineChart | Clips | Images


def write_report(path: Path, title: str, sections: list[Section], *, subtitle: str = "") -> Path:
    """Write the page, whole or not at all; returns the path. Raises ResourceError when the disk is full."""
    return render(path, "report.html.jinja", title=title, subtitle=subtitle, sections=sections, version=__version__)


def render(path: Path, template: str, **values: object) -> Path:
    """Write a page from a template of this room, whole or not at all; returns the path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["cell"] = cell
    html = environment.get_template(template).render(**values)
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return Path(path)


def clip(label: str, frames: np.ndarray, fps: float, *, poster_frame: int = -1, crf: int = 16) -> Clip:
    """Encode uint8 (T, H, W, 3) for embedding; the poster is frame `poster_frame`."""
    with tempfile.TemporaryDirectory() as folder:
        mp4 = write_video(Path(folder) / "clip.mp4", frames, fps, crf=crf).read_bytes()
    return Clip(label=label, mp4=mp4, poster=png(frames[poster_frame]))


def png(picture: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def cell(value: Cell) -> Markup:
    """A table cell: floats with two decimals (three digits below one), a dash for what does not exist, pairs on two lines."""
    if isinstance(value, tuple):
        return Markup("{}<br><small>{}</small>").format(*value) if value[1] else escape(value[0])
    return escape(_plain(value))


def _plain(value: str | float | int | None) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
    return str(value)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
