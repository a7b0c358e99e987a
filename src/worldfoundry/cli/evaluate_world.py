"""`worldfoundry evaluate world`: a world's futures of held-out clips, beside what it has to beat."""

import sys

from worldfoundry.recipes.evaluate_world_config import EvaluateWorldConfig


def run(config: EvaluateWorldConfig) -> int:
    """Generate, score, write results.json, report.html and config.yaml, and print the headline."""
    from worldfoundry.recipes.evaluate_world import evaluate_world, lines

    text = lines(evaluate_world(config))
    text.append(f"Report: {config.out / 'report.html'}   Numbers: {config.out / 'results.json'}")
    sys.stdout.write("\n".join(text) + "\n")
    return 0


ENTRY = (EvaluateWorldConfig, run, "a world's futures of held-out clips, domain by domain, beside what it has to beat")
