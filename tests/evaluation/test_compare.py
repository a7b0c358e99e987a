"""evaluate_predictions: horizons, pairing, JSON, and the refusal to compare what was measured differently."""

import functools
import json
import operator

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.evaluation.baselines import BACKGROUND, COPY_LAST, copy_last_frame
from worldfoundry.evaluation.check import moving_squares
from worldfoundry.evaluation.compare import evaluate_predictions, horizon_spans
from worldfoundry.evaluation.metrics import METRICS
from worldfoundry.evaluation.results import compare_results, read_results

TRUTH = moving_squares(clips=9)


@pytest.fixture(scope="module")
def found():
    return evaluate_predictions(TRUTH, {"truth": TRUTH, "copy": copy_last_frame(TRUTH, 2)}, 2, fps=12, resamples=200)


def test_the_truth_is_perfect_at_every_horizon(found):
    for metric in METRICS.values():
        for horizon in found.horizons:
            assert found.value(metric.name, "truth", horizon) == pytest.approx(metric.perfect)


def test_a_candidate_equal_to_the_baseline_differs_by_nothing(found):
    rows = [row for row in found.rows if row.candidate in ("copy", COPY_LAST)]
    assert rows
    assert all(row.difference == row.difference_low == row.difference_high == 0 for row in rows)


def test_controls_are_added_and_copying_gets_worse_with_time(found):
    assert {COPY_LAST, BACKGROUND} <= set(found.candidates)
    errors = [found.value("centroid_error_pusher", COPY_LAST, horizon) for horizon in found.horizons[:-1]]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


def test_a_row_agrees_with_the_metric_called_alone(found):
    alone = METRICS["psnr"](reference=TRUTH, generated=copy_last_frame(TRUTH, 2), prefix_frames=2)
    assert found.value("psnr", "copy") == pytest.approx(alone.value)


def test_the_pooled_curve_is_consistent_with_the_whole(found):
    curve = np.array(found.curves["psnr"]["copy"])
    pooled = -10 * np.log10(np.mean(10 ** (-curve / 10)))
    assert pooled == pytest.approx(found.value("psnr", "copy"))


def test_windows_of_one_source_are_drawn_together_and_that_is_another_protocol(found):
    made = {"copy": copy_last_frame(TRUTH, 2)}
    grouped = evaluate_predictions(TRUTH, made, 2, fps=12, resamples=200, groups=["a"] * 3 + ["b"] * 3 + ["c"] * 3)
    alone = evaluate_predictions(TRUTH, made, 2, fps=12, resamples=200, groups=list(range(9)))
    row, other = grouped.row("psnr", "copy").result, found.row("psnr", "copy").result
    assert row.value == pytest.approx(other.value)
    assert row.n == 9
    assert row.note == "fewer than 8 sources: the interval is too narrow"
    assert row.protocol != other.protocol == alone.row("psnr", "copy").result.protocol
    assert alone.row("psnr", "copy").result.low == other.low
    assert grouped.to_dict()["sources"] == 3
    assert "over the 3 sources of the clips" in grouped.setting["interval"]


def test_everything_goes_into_json_and_comes_back(found, tmp_path):
    found.save(tmp_path / "results.json")
    rows = read_results(tmp_path / "results.json")
    assert len(rows) == len(found.rows)
    assert {"value", "n", "low", "high", "tier", "protocol"} <= rows[0].keys()
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_unknown_row_gets_a_suggestion(found):
    with pytest.raises(DataError, match="Did you mean"):
        found.row("psnr_movin", "copy")


def test_object_metrics_are_left_out_where_there_is_no_pusher():
    gray = np.random.default_rng(0).integers(90, 130, (3, 4, 16, 16, 1)).repeat(3, -1).astype(np.uint8)
    names = [metric.name for metric in evaluate_predictions(gray, {}, 1, resamples=100).metrics]
    assert names == ["psnr_moving", "psnr", "psnr_per_frame", "ssim"]


def test_constant_videos_and_a_single_clip_are_said_in_the_row():
    still = np.full((1, 4, 16, 16, 3), 90, np.uint8)
    found = evaluate_predictions(still, {"same": still}, 1, resamples=100)
    assert found.row("psnr_moving", "same").result.note == "no clip has anything to score here"
    assert found.row("psnr", "same").result.note == "one clip: no interval"
    assert found.to_dict()["rows"][0]["value"] is None


def test_horizons_cover_the_future_once():
    for frames in (1, 2, 7, 12, 28):
        spans = horizon_spans(frames, 3)
        parts = [list(range(frames))[span] for name, span in spans.items() if name != "all"]
        assert spans["all"] == slice(0, frames)
        assert not parts or functools.reduce(operator.iadd, parts, []) == list(range(frames))
    assert list(horizon_spans(12, 3)) == ["+1–4", "+5–8", "+9–12", "all"]


def test_numbers_measured_against_other_clips_are_not_compared(found, tmp_path):
    same = evaluate_predictions(TRUTH, {"again": TRUTH}, 2, resamples=200)
    other = evaluate_predictions(moving_squares(clips=9, seed=5), {"again": TRUTH}, 2, resamples=200)
    for name, evaluation in {"a": found, "b": same, "c": other}.items():
        evaluation.save(tmp_path / f"{name}.json")
    a, b, c = (read_results(tmp_path / f"{name}.json") for name in "abc")
    assert {row["run"] for row in compare_results({"a": a, "b": b})} == {"a", "b"}
    with pytest.raises(DataError, match="cannot be compared"):
        compare_results({"a": a, "c": c})


def test_facts_of_the_caller_are_part_of_the_protocol():
    a, b = (evaluate_predictions(TRUTH, {}, 2, protocol={"held_out": seed}, resamples=100) for seed in (1, 2))
    assert a.row("psnr", COPY_LAST).result.protocol != b.row("psnr", COPY_LAST).result.protocol
