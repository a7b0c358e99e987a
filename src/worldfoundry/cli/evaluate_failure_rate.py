"""`worldfoundry evaluate failure-rate`: videos to judge, and how often what was judged fails."""

import sys

from worldfoundry.recipes.failure_rate_config import FailureRateConfig


def run(config: FailureRateConfig) -> int:
    """Make the videos and the page, or count what was judged, and print the rates."""
    from worldfoundry.recipes.failure_rate import failure_rate, lines

    text = lines(failure_rate(config))
    if config.judgements:
        text.append(f"Numbers: {config.out / 'judged.json'}")
    else:
        text.append(f"Judge them: {config.out / 'judge.html'}   then: the same command with --judgements judgements.csv")
    sys.stdout.write("\n".join(text) + "\n")
    return 0


ENTRY = (FailureRateConfig, run, "videos to judge by eye, and how often they fail, with intervals")
