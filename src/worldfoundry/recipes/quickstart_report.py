"""The quickstart's report: what was made, how good it is, and in words what such a model can and cannot do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.devices import hardware
from worldfoundry.core.progress import clock, read_metrics
from worldfoundry.core.provenance import machine
from worldfoundry.evaluation.baselines import BACKGROUND, COPY_LAST
from worldfoundry.evaluation.charts import Series
from worldfoundry.evaluation.compare import ALL, Evaluation
from worldfoundry.evaluation.present import clip_rows, curve_charts, difference_table, horizon_table, summary_table
from worldfoundry.evaluation.report import LineChart, Section, Table, Text, write_report
from worldfoundry.recipes.futures import BASE, CEILING, MODEL, NEAREST, SHUFFLED, ZERO, Futures
from worldfoundry.recipes.quickstart import Road, action_response
from worldfoundry.recipes.released import shown_together
from worldfoundry.recipes.train_diffusion import DiffusionRun
from worldfoundry.recipes.train_tokenizer import TokenizerRun

SHOWN = 8
PUSHER = "centroid_error_pusher"


def write_quickstart_report(
    road: Road, tokenizer: TokenizerRun | None, run: DiffusionRun, futures: Futures, evaluation: Evaluation
) -> Path:
    """Write OUT/report.html; returns its path."""
    response = action_response(futures, run)
    sections: list[Section] = [
        Text(title="What this is", paragraphs=_what(road, tokenizer, run, futures)),
        Text(title="What it can and cannot do", paragraphs=verdict_in_words(evaluation, response, run)),
        _clips(run, futures),
        summary_table(evaluation, strong=[MODEL]),
        difference_table(evaluation, strong=[MODEL]),
        horizon_table(evaluation, "psnr_moving", strong=[MODEL]),
        horizon_table(evaluation, "psnr", strong=[MODEL]),
    ]
    if response is not None:
        sections.append(_response_table(response))
    sections += curve_charts(evaluation, ["psnr_moving", PUSHER])
    sections += training_charts(road.config.out)
    sections.append(_guards(futures))
    sections.append(_times(road))
    subtitle = f"{clock(sum(road.seconds.values()))} on {machine(hardware())}"
    return write_report(road.config.out / "report.html", "WorldFoundry quickstart", sections, subtitle=subtitle)


def verdict_in_words(evaluation: Evaluation, response: Evaluation | None, run: DiffusionRun) -> list[str]:
    """Plain sentences from the numbers: a difference counts only if its interval leaves out zero."""
    words = [
        _against(evaluation, name, metric, text)
        for metric, text in (("psnr_moving", "on moving pixels"), ("psnr", "on the full frame"))
        for name in (COPY_LAST, BACKGROUND, NEAREST, BASE)
        if name in evaluation.candidates
    ]
    lost = evaluation.value("psnr_moving", CEILING) - evaluation.value("psnr_moving", MODEL)
    words.append(
        f"The tokenizer alone would reach {lost:.1f} dB more on moving pixels: so much is lost by prediction, not coding."
    )
    if response is not None:
        words.append(_steering(response))
    words.append(
        f"A model of {run.facts['parameters'] / 1e6:.1f} M parameters after {run.facts['hours'] * 60:.1f} minutes of training on these "
        "clips knows the scenes that it was trained on and nothing else. It blurs what it is unsure of and does not keep hard edges. "
        "More minutes (`--minutes`) help most."
    )
    return words


def _against(evaluation: Evaluation, other: str, metric: str, text: str) -> str:
    """The model's paired difference to another candidate, as a sentence."""
    row = evaluation.row(metric, MODEL, ALL)
    if other == evaluation.baseline:
        difference, low, high = row.difference, row.difference_low, row.difference_high
        word = "beats" if low > 0 else "loses to" if high < 0 else "is not distinguishable from"
        return f"The model {word} {other} {text}: {difference:+.2f} dB [{low:+.2f}, {high:+.2f}], {row.result.n} clips."
    mine, theirs = row.result, evaluation.row(metric, other, ALL).result
    word = "above" if mine.value > theirs.value else "below"
    note = " (which has seen the true future)" if other == BACKGROUND else ""
    return f"It scores {mine.value:.2f} dB {text}, {word} the {other}'s {theirs.value:.2f} dB{note}."


def _steering(response: Evaluation) -> str:
    names = {metric.name for metric in response.metrics}
    metric, unit = (PUSHER, "px") if PUSHER in names else ("psnr_moving", "dB")
    row, zero = response.row(metric, MODEL, ALL), response.value(metric, ZERO, ALL)
    better = row.difference_high < 0 if metric == PUSHER else row.difference_low > 0
    word = "It follows its actions" if better else "No response to actions can be shown"
    shuffled = response.value(metric, SHUFFLED, ALL)
    return (
        f"{word}: with the true actions the {'pusher is off by' if unit == 'px' else 'moving pixels score'} "
        f"{row.result.value:.1f} {unit}, with another clip's {shuffled:.1f}, with none {zero:.1f} "
        f"(true minus shuffled {row.difference:+.1f} {unit} [{row.difference_low:+.1f}, {row.difference_high:+.1f}])."
    )


def _what(road: Road, tokenizer: TokenizerRun | None, run: DiffusionRun, futures: Futures) -> list[str]:
    config, defaults = road.config, run.world.config
    if tokenizer is None:
        what, coded = f"the shipped world model {config.base!r} on it", ""
    else:
        what = "a video tokenizer and a diffusion world model from nothing"
        coded = f"Tokenizer: held-out PSNR {tokenizer.metrics['held_out_psnr_db']} dB. "
    source = "the sample footage" if config.data is None else f"the videos in {config.data.name!r}"
    return [
        f"This page was made by one command, which curated {source}, trained {what} in {config.minutes:g} minutes, and let the "
        f"model continue {len(futures.windows)} clips of videos that this training did not see.",
        f"Each clip has {defaults.num_frames} frames of {defaults.height}x{defaults.width} at {defaults.fps:g} frames a second; "
        f"the first {futures.prefix_frames} are given"
        + (", the rest follows the commanded actions." if defaults.action_names else "."),
        f"{coded}World model: {run.facts['steps']} steps, "
        f"{run.facts['precision']}, text encoder {defaults.text_encoder}. The checkpoint is {run.folder.name!r} in "
        f"{run.folder.parent.name!r}; `worldfoundry generate --world …` loads it.",
    ]


def _clips(run: DiffusionRun, futures: Futures) -> Section:
    """Truth and the telling candidates, for windows spread over the held-out set (not picked by score).

    Only clips that the guards let pass are shown: a window with one that they do not is left out and counted.
    """
    labels = {CEILING: "tokenizer only", MODEL: "model", SHUFFLED: "other actions", ZERO: "zero actions"}
    stacks = {label: futures.candidates[name] for name, label in labels.items() if name in futures.candidates}
    spread = np.linspace(0, len(futures.windows) - 1, min(SHOWN, len(futures.windows))).round().astype(int)
    fps, stacks = run.world.config.fps, {"truth": futures.truth, **stacks}
    index, stacks = shown_together(run.world.guardrails, stacks, [int(i) for i in spread], fps)
    section = clip_rows(
        stacks.pop("truth"),
        stacks,
        prefix_frames=futures.prefix_frames,
        fps=fps,
        names=[futures.windows[i].name[:20] for i in index],
        show=SHOWN,
        title="Held-out clips",
    )
    hidden = len(spread) - len(index)
    return replace(section, note=section.note + (f" {hidden} more were stopped by a guard." if hidden else ""))


def _response_table(response: Evaluation) -> Table:
    table = difference_table(response, strong=[MODEL])
    return Table(title="Do the actions matter? " + table.title, header=table.header, rows=table.rows, note=table.note)


def training_charts(out: Path) -> list[Section]:
    """What the two runs in OUT logged: their losses and, where it was measured more than once, the held-out PSNR.

    A row of metrics.jsonl has the values that were measured at its step; a curve takes the rows that have its own.
    """
    charts: list[Section] = []
    for name, run in (("Tokenizer", "tokenizer-run"), ("World model", "world-run")):
        if not (out / run / "metrics.jsonl").is_file():  # a road without a tokenizer of its own
            continue
        rows = read_metrics(out / run / "metrics.jsonl")
        x, y = _curve(rows, "loss")
        loss = Series(label="loss (running mean)", x=x, y=_smooth(y))
        charts.append(LineChart(title=f"{name}: training loss", series=[loss], x_label="minutes", y_label="loss", log_y=True))
        x, y = _curve(rows, "held_out_psnr_db")
        if len(x) > 1:
            psnr = Series(label="PSNR", x=x, y=y)
            charts.append(LineChart(title=f"{name}: held-out PSNR", series=[psnr], x_label="minutes", y_label="dB"))
    return charts


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Minutes of training and values of `name`, from the rows that have it."""
    points = [(row["seconds"] / 60, row[name]) for row in rows if name in row]
    return [x for x, _ in points], [y for _, y in points]


def _smooth(values: Sequence[float], keep: float = 0.8) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out else keep * out[-1] + (1 - keep) * value)
    return out


def _guards(futures: Futures) -> Table:
    by_guard: dict[str, list[str]] = {}
    for verdict in futures.verdicts:
        by_guard.setdefault(verdict.guard, []).append(verdict.status)
    return Table(
        title="Guards",
        header=["guard", "looked at", "safe", "not safe"],
        rows=[[g, len(s), s.count("safe"), len(s) - s.count("safe")] for g, s in sorted(by_guard.items())],
        note="Captions and every generated clip were checked; anything but safe is not written.",
    )


def _times(road: Road) -> Table:
    return Table(
        title="Where the time went",
        header=["step", "time"],
        rows=[[name, clock(seconds)] for name, seconds in road.seconds.items()],
        note=f"Budget of training: {road.config.minutes:g} minutes (`--minutes`).",
    )
