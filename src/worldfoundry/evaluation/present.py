"""An `Evaluation` as sections of a report: what a reader wants to see first, in the order in which it should be read.

Axis legend: N clips, T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from worldfoundry.evaluation.baselines import BACKGROUND, COPY_LAST, NEAREST
from worldfoundry.evaluation.catalogue import AnyMetric
from worldfoundry.evaluation.charts import Series
from worldfoundry.evaluation.compare import ALL, Evaluation, Row
from worldfoundry.evaluation.distributions import DistributionMetric
from worldfoundry.evaluation.flow import CONSTANT_VELOCITY
from worldfoundry.evaluation.report import Clip, Clips, LineChart, Section, Table, Text, clip

CONTROLS = (COPY_LAST, CONSTANT_VELOCITY, BACKGROUND, NEAREST)
WIDE = 7  # metrics that a table has room for


def sections(evaluation: Evaluation, *, strong: Sequence[str] = (), left_out: Sequence[str] = ()) -> list[Section]:
    """Summary, differences to the baseline, what was left out, and one curve per metric. `strong` candidates are emphasised."""
    said = [Text(title="Not measured", paragraphs=[f"{line}." for line in left_out])] if left_out else []
    tables: list[Section] = []
    for names, suffix in _table_parts(evaluation):
        for make in (summary_table, difference_table):
            table = make(evaluation, strong=strong, metrics=names)
            tables.append(replace(table, title=table.title + suffix))
    return [*tables[::2], *tables[1::2], *said, *curve_charts(evaluation)]


def _table_parts(evaluation: Evaluation) -> list[tuple[list[str], str]]:
    """(metrics, suffix of the title): all in one table, or, where that is too wide, those of feature networks in a second one."""
    names = [metric.name for metric in evaluation.metrics]
    networks = [metric.name for metric in evaluation.metrics if metric.tier != "none"]
    pixels = [name for name in names if name not in networks]
    wide = len(names) > WIDE and pixels and networks
    return [(pixels, ""), (networks, ", by feature networks")] if wide else [(names, "")]


def summary_table(
    evaluation: Evaluation, horizon: str = ALL, *, strong: Sequence[str] = (), metrics: Sequence[str] | None = None
) -> Table:
    """Every candidate by every metric (or those named) that has this horizon, with 95 % intervals."""
    chosen = _metrics_at(evaluation, horizon, metrics)
    return Table(
        title="Scores over the whole future" if horizon == ALL else f"Scores at {horizon}",
        header=["", *(heading(metric) for metric in chosen)],
        rows=[
            [name, *(with_interval(evaluation.row(metric.name, name, horizon)) for metric in chosen)]
            for name in evaluation.candidates
        ],
        strong=[i for i, name in enumerate(evaluation.candidates) if name in strong],
        note=_note(evaluation, horizon, chosen),
    )


def difference_table(
    evaluation: Evaluation, horizon: str = ALL, *, strong: Sequence[str] = (), metrics: Sequence[str] | None = None
) -> Table:
    """Candidate minus baseline on the same clips: an interval that excludes 0 is a difference that these clips can show."""
    others = [name for name in evaluation.candidates if name != evaluation.baseline]
    chosen = _metrics_at(evaluation, horizon, metrics)

    def cells(name: str) -> list[tuple[str, str]]:
        return [_difference(evaluation.row(metric.name, name, horizon)) for metric in chosen]

    return Table(
        title=f"Difference to {evaluation.baseline}, paired by clip",
        header=["", *(heading(metric) for metric in chosen)],
        rows=[[name, *cells(name)] for name in others],
        strong=[i for i, name in enumerate(others) if name in strong],
        note="Square brackets: 95 % interval of the paired difference. If it includes 0, these clips do not settle it.",
    )


def horizon_table(evaluation: Evaluation, metric: str, *, strong: Sequence[str] = ()) -> Table:
    """One metric by horizon."""
    chosen = next(one for one in evaluation.metrics if one.name == metric)
    return Table(
        title=f"{chosen.label}, by horizon",
        header=["", *(f"frames {h}" if h != ALL else "all" for h in evaluation.horizons)],
        rows=[
            [name, *(with_interval(evaluation.row(metric, name, horizon)) for horizon in evaluation.horizons)]
            for name in evaluation.candidates
        ],
        strong=[i for i, name in enumerate(evaluation.candidates) if name in strong],
        note=f"{heading(chosen)}. Frames are counted from the first one that was not given.",
    )


def curve_charts(evaluation: Evaluation, metrics: Sequence[str] | None = None) -> list[LineChart]:
    """Each metric at each future frame, pooled over clips; controls are dashed."""
    chosen = [m for m in evaluation.metrics if m.name in evaluation.curves and (metrics is None or m.name in metrics)]
    return [
        LineChart(
            title=f"{metric.label}, frame by frame",
            series=[
                Series(label=name, x=range(1, len(values) + 1), y=values, dashed=name in CONTROLS)
                for name, values in evaluation.curves[metric.name].items()
            ],
            half=True,
            x_label="frame of the future",
            y_label=f"{metric.unit or metric.label.split(',')[0]} ({metric.better} is better)",
        )
        for metric in chosen
    ]


def clip_rows(
    reference: np.ndarray,
    candidates: Mapping[str, np.ndarray],
    *,
    prefix_frames: int,
    fps: float,
    names: Sequence[str] | None = None,
    show: int = 6,
    title: str = "Clips side by side",
) -> Clips:
    """The first `show` clips of uint8 (N, T, H, W, 3): truth, then candidates, played in step."""
    names = names or [f"clip {i}" for i in range(len(reference))]

    def row(i: int) -> list[Clip]:
        return [clip(label, clips[i], fps) for label, clips in {"truth": reference, **candidates}.items()]

    return Clips(
        title=title,
        rows=[(names[i], row(i)) for i in range(min(show, len(reference)))],
        given_s=prefix_frames / fps,
        note=f"The first {prefix_frames} frames were given to the model; stills show the last frame.",
    )


def _metrics_at(evaluation: Evaluation, horizon: str, names: Sequence[str] | None) -> list[AnyMetric]:
    """Metrics that compare sets of clips speak of the whole future only."""
    chosen = [m for m in evaluation.metrics if names is None or m.name in names]
    return [m for m in chosen if horizon == ALL or not isinstance(m, DistributionMetric)]


def heading(metric: AnyMetric) -> str:
    """Label with unit and direction."""
    arrow = "↑" if metric.better == "higher" else "↓"
    return f"{metric.label}{f' ({metric.unit})' if metric.unit else ''}\N{NO-BREAK SPACE}{arrow}"


def with_interval(row: Row) -> tuple[str, str]:
    """(`16.60`, `[16.10, 17.02]`); a dash where there is nothing to score."""
    return _bracketed(row, row.result.value, row.result.low, row.result.high)


def _difference(row: Row) -> tuple[str, str]:
    return _bracketed(row, row.difference, row.difference_low, row.difference_high, sign="+")


def _bracketed(row: Row, value: float, low: float, high: float, sign: str = "") -> tuple[str, str]:
    if not np.isfinite(value):
        return "–", ""
    form = f"{sign}{_form(row.result.name)}"
    return f"{value:{form}}", f"[{low:{form}}, {high:{form}}]" if np.isfinite(low) else ""


def _form(name: str) -> str:
    """How many digits a metric's numbers are shown with: distances of sets have no natural size."""
    if name == "ssim" or name.startswith("LPIPS"):
        return ".3f"
    return ".3g" if name.startswith(("FD", "KD", "FID", "FVD")) else ".2f"


def _note(evaluation: Evaluation, horizon: str, metrics: Sequence[AnyMetric]) -> str:
    """The setting in words, then what the rows have to say: once for all, and by metric."""
    setting, common = evaluation.setting, str(evaluation.setting["note"])
    said: dict[str, None] = {f"{common}.": None} if common else {}
    for metric in metrics:
        floor = evaluation.row(metric.name, evaluation.baseline, horizon).floor
        if np.isfinite(floor):
            sets = isinstance(metric, DistributionMetric)
            what = "halves of the true clips against each other score up to" if sets else "the true clips themselves score"
            said[f"{metric.label}: {what} {floor:.3g}."] = None
        for name in evaluation.candidates:
            own = evaluation.row(metric.name, name, horizon).result.note.removeprefix(common).lstrip("; ")
            said |= {f"{metric.label}: {own}.": None} if own else {}
    return " ".join(
        [
            f"{setting['clips']} clips, frames {setting['prefix_frames'] + 1} to {setting['frames']} of {setting['frames']}.",
            f"Square brackets: {setting['interval']}. ↑ higher is better, ↓ lower is better.",
            *said,
        ]
    )
