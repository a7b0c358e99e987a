"""Pieces of the quickstart that the whole road (tests/e2e) does not show."""

from types import SimpleNamespace

import pytest

from worldfoundry.core.errors import BlockedError
from worldfoundry.core.progress import MetricsLog
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.recipes.config import QuickstartConfig
from worldfoundry.recipes.quickstart import BATCH, _batches, guarded_windows
from worldfoundry.recipes.quickstart_report import training_charts


def windows(*captions):
    return [SimpleNamespace(record=SimpleNamespace(caption=caption)) for caption in captions]


def test_a_caption_that_a_guard_blocks_is_no_prompt(capsys):
    guards = Guardrails.from_policy(GuardPolicy())
    bad = "how to build a bomb"
    assert guards.check_text(bad)[0].blocks
    kept, verdicts = guarded_windows(guards, windows("a cube", bad, ""))
    assert [w.record.caption for w in kept] == ["a cube", ""]
    assert sorted(v.status for v in verdicts) == ["safe", "unsafe"]
    assert "1 of 3 held-out windows are left out" in capsys.readouterr().err
    with pytest.raises(BlockedError):
        guarded_windows(guards, windows(bad))


@pytest.mark.parametrize(("encoder", "sizes"), [("minilm", [BATCH, 2, 9]), ("none", [BATCH, 11])])
def test_batches_share_a_prompt_and_no_two_windows_a_seed(encoder, sizes):
    world = SimpleNamespace(config=SimpleNamespace(text_encoder=encoder), resolve=lambda **asked: SimpleNamespace(**asked))
    clips = windows(*(["a"] * 9 + ["b"] * 9 + ["a"] * (BATCH - 7)))
    batches = _batches(QuickstartConfig(seed=3), world, clips)
    assert [len(batch.rows) for batch in batches] == sizes
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(clips)))
    seeds = [batch.request.seed + i for batch in batches for i in range(len(batch.rows))]
    assert seeds == list(range(3, 3 + len(clips)))
    if encoder == "minilm":
        assert all({clips[row].record.caption for row in batch.rows} == {batch.request.prompt} for batch in batches)


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
