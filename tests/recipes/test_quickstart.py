"""Pieces of the quickstart that the whole road (tests/e2e) does not show."""

from types import SimpleNamespace

import numpy as np
import pytest

from worldfoundry.core.progress import MetricsLog
from worldfoundry.recipes.futures import MODEL, SHUFFLED, ZERO, Futures
from worldfoundry.recipes.quickstart import action_response, evaluate
from worldfoundry.recipes.quickstart_report import training_charts


@pytest.mark.parametrize("validations", [1, 2])
def test_each_curve_takes_the_rows_that_have_its_value(tmp_path, validations):
    for run in ("tokenizer-run", "world-run"):
        log = MetricsLog(tmp_path / run / "metrics.jsonl")
        for step in (1, 2):
            log.log(step, seconds=60.0 * step, loss=1.0)
            if run == "tokenizer-run" and step > 2 - validations:
                log.log(step, seconds=60.0 * step, held_out_psnr_db=20.0 + step)
        log.close()
    found = {chart.title: (list(chart.series[0].x), list(chart.series[0].y)) for chart in training_charts(tmp_path)}
    losses = {f"{name}: training loss": ([1.0, 2.0], [1.0, 1.0]) for name in ("Tokenizer", "World model")}
    psnr = {"Tokenizer: held-out PSNR": ([1.0, 2.0], [21.0, 22.0])}
    assert found == {**losses, **(psnr if validations == 2 else {})}  # one point is no curve


def test_windows_of_one_video_are_resampled_together():
    """Each window twice, under the name of its source: intervals are those of the windows once, not narrower."""
    rng, run = np.random.default_rng(0), SimpleNamespace(world=SimpleNamespace(config=SimpleNamespace(fps=8.0)))
    once = rng.integers(0, 255, (4, 4, 5, 16, 16, 3), dtype=np.uint8)  # truth and three candidates of five frames

    def rows(times, measure):
        truth, *made = np.repeat(once, times, axis=1)
        named = [SimpleNamespace(record=SimpleNamespace(source_id=f"video {i // times}")) for i in range(len(truth))]
        candidates = dict(zip((MODEL, SHUFFLED, ZERO), made, strict=True))
        futures = Futures(
            windows=named, truth=truth, candidates=candidates, prefix_frames=1, verdicts=(), requests=[]
        )  # fmt: skip
        found = measure(futures, run)
        assert (found.setting["clips"], found.setting["sources"]) == (4 * times, 4)
        return found.row("psnr", MODEL)

    for measure in (evaluate, action_response):
        single, double = rows(1, measure), rows(2, measure)
        assert double.result.low == pytest.approx(single.result.low)
        assert double.result.high == pytest.approx(single.result.high)
        assert (double.difference_low, double.difference_high) == pytest.approx((single.difference_low, single.difference_high))
