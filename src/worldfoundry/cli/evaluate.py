"""`worldfoundry evaluate WHAT`: measure video against the truth and against baselines."""

import sys
from typing import TYPE_CHECKING

from worldfoundry.cli.evaluate_failure_rate import ENTRY as FAILURE_RATE
from worldfoundry.cli.evaluate_tokenizer import ENTRY as TOKENIZER
from worldfoundry.cli.evaluate_world import ENTRY as WORLD
from worldfoundry.core.errors import UsageError
from worldfoundry.evaluation.config import EvaluateGenerationConfig

if TYPE_CHECKING:
    from worldfoundry.evaluation.compare import Evaluation


def run(config: EvaluateGenerationConfig) -> int:
    """Score, write results.json, report.html and config.yaml, and print the headline."""
    from worldfoundry.evaluation.folders import GENERATED, evaluate_folders
    from worldfoundry.evaluation.present import clip_rows, sections
    from worldfoundry.evaluation.report import write_report

    if GENERATED in config.also:
        raise UsageError(f"{GENERATED!r} is the name of --generated's clips.", "Give the folder in --also another name.")
    prefix_frames = config.prefix_frames or 1
    found, clips, left_out = evaluate_folders(
        {GENERATED: config.generated, **config.also},
        config.reference,
        prefix_frames,
        assumed=config.prefix_frames is None,
        training=config.training,
        unpaired=config.unpaired,
        metrics=config.metrics,
        fetch=config.fetch,
        reference_files={name: path for name, path in config.weights if path is not None},
        baseline=config.baseline,
        horizons=config.horizons,
        resamples=config.resamples,
        seed=config.seed,
    )
    found.save(config.out / "results.json")
    config.save(config.out / "config.yaml")
    page = sections(found, strong=[GENERATED], left_out=left_out)
    if config.show:
        shown = {"prefix_frames": prefix_frames, "fps": clips.fps, "names": clips.names, "show": config.show}
        page.insert(1, clip_rows(clips.reference, clips.candidates, **shown))
    write_report(
        config.out / "report.html",
        "Generated video against the truth",
        page,
        subtitle=f"{config.generated.name} against {config.reference.name}, {counted(prefix_frames, 'prefix frame')}",
    )
    sys.stdout.write("\n".join([*_headline(found), *(f"  left out: {line}" for line in left_out)]) + "\n")
    sys.stdout.write(f"Report: {config.out / 'report.html'}   Numbers: {config.out / 'results.json'}\n")
    return 0


def _headline(found: "Evaluation") -> list[str]:
    """A line per metric: the generated clips and the baseline, with intervals."""
    from worldfoundry.evaluation.folders import GENERATED
    from worldfoundry.evaluation.present import with_interval

    count, sources, note = (found.setting[key] for key in ("clips", "sources", "note"))
    what = counted(count, "clip") + (f" of {counted(sources, 'source')}" if sources < count else "")
    lines = [what + (f" ({note})" if note else "")]
    for metric in found.metrics:
        rows = [found.row(metric.name, name) for name in (GENERATED, found.baseline)]
        mine, base = (" ".join(filter(None, (*with_interval(row), metric.unit))) for row in rows)
        said = rows[0].result.note.removeprefix(note).lstrip("; ")
        lines.append(f"  {metric.label}: {mine}, {found.baseline} {base}" + (f" ({said})" if said else ""))
    return lines


def counted(count: int, what: str) -> str:
    """`1 clip`, `3 clips`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


SUBCOMMANDS = {
    "generation": (EvaluateGenerationConfig, run, "generated futures against the true ones, per horizon"),
    "tokenizer": TOKENIZER,
    "world": WORLD,
    "failure-rate": FAILURE_RATE,
}
