"""Futures of held-out clips: what is a prompt, what shares a batch, and the controls."""

from types import SimpleNamespace

import numpy as np
import pytest

from worldfoundry.core.errors import BlockedError
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.recipes.futures import BATCH, _actions, _batches, guarded_windows


def windows(*captions):
    return [SimpleNamespace(record=SimpleNamespace(caption=caption, fps=12.0)) for caption in captions]


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
    batches = _batches(world, clips, 3)
    assert [len(batch.rows) for batch in batches] == sizes
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(clips)))
    seeds = [batch.request.seed + i for batch in batches for i in range(len(batch.rows))]
    assert seeds == list(range(3, 3 + len(clips)))
    if encoder == "minilm":
        assert all({clips[row].record.caption for row in batch.rows} == {batch.request.prompt} for batch in batches)


def test_nothing_acts_in_clips_without_actions():
    """As in training: a world with actions never saw a clip without any input to its adapter."""
    frames, actions = np.zeros((3, 2, 2, 3), np.uint8), np.ones((3, 2), np.float32)
    clips = [SimpleNamespace(frames=frames, actions=None), SimpleNamespace(frames=frames, actions=actions)]
    assert np.array_equal(_actions(clips, 2), np.stack([0 * actions, actions]))
    assert np.array_equal(_actions(clips[:1], 2), 0 * actions[None])
    assert _actions(clips, 0) is None
