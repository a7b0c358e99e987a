"""`worldfoundry evaluate WHAT`: measure video against the truth and against baselines."""

import sys

from worldfoundry.evaluation.config import EvaluateGenerationConfig


def run(config: EvaluateGenerationConfig) -> int:
    """Score, write results.json, report.html and config.yaml, and print the headline."""
    from worldfoundry.evaluation.folders import GENERATED, evaluate_folders
    from worldfoundry.evaluation.present import clip_rows, sections, with_interval
    from worldfoundry.evaluation.report import write_report

    found, pairs, left_out = evaluate_folders(
        config.generated,
        config.reference,
        config.prefix_frames,
        metrics=config.metrics,
        fetch=config.fetch,
        reference_files={name: path for name, path in config.weights if path is not None},
        horizons=config.horizons,
        resamples=config.resamples,
        seed=config.seed,
    )
    found.save(config.out / "results.json")
    config.save(config.out / "config.yaml")
    page = sections(found, strong=[GENERATED], left_out=left_out)
    if config.show:
        clips = clip_rows(
            pairs.reference,
            {GENERATED: pairs.generated},
            prefix_frames=config.prefix_frames,
            fps=pairs.fps,
            names=pairs.names,
            show=config.show,
        )
        page.insert(1, clips)
    write_report(
        config.out / "report.html",
        "Generated video against the truth",
        page,
        subtitle=f"{config.generated.name} against {config.reference.name}, {config.prefix_frames} prefix frames",
    )
    lines = [f"{len(pairs.names)} clips" + (f" ({pairs.note})" if pairs.note else "")]
    for metric in found.metrics:
        mine, base = (" ".join(with_interval(found.row(metric.name, name))) for name in (GENERATED, found.baseline))
        unit = f" {metric.unit}" if metric.unit else ""
        lines.append(f"  {metric.label}: {mine}{unit}, {found.baseline} {base}{unit}")
    lines += [f"  left out: {line}" for line in left_out]
    lines.append(f"Report: {config.out / 'report.html'}   Numbers: {config.out / 'results.json'}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


SUBCOMMANDS = {"generation": (EvaluateGenerationConfig, run, "generated futures against the true ones, per horizon")}
