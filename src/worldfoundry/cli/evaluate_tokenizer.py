"""`worldfoundry evaluate tokenizer`: reconstructions beside codecs and other people's autoencoders."""

import sys

from worldfoundry.recipes.evaluate_tokenizer_config import EvaluateTokenizerConfig


def run(config: EvaluateTokenizerConfig) -> int:
    """Score, write results.json, report.html and config.yaml, and print the headline."""
    from worldfoundry.evaluation.report import write_report
    from worldfoundry.recipes.evaluate_tokenizer import evaluate_tokenizer
    from worldfoundry.recipes.tokenizer_report import lines, sections

    table = evaluate_tokenizer(config)
    table.save(config.out / "results.json")
    config.save(config.out / "config.yaml")
    page = sections(table, config.show)
    write_report(config.out / "report.html", "Tokenizers", page, subtitle=f"reconstructions of {config.clips.name}")
    text = [*lines(table), f"Report: {config.out / 'report.html'}   Numbers: {config.out / 'results.json'}"]
    sys.stdout.write("\n".join(text) + "\n")
    return 0


ENTRY = (EvaluateTokenizerConfig, run, "tokenizers by their reconstructions, beside codecs at the same bits")
