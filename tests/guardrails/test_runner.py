"""Fault injection: whatever goes wrong with a guard, nothing passes, and the reason is said."""

import time

import numpy as np
import pytest

from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import BlockedError, CheckpointError, ConfigError, GuardUnavailable
from worldfoundry.guardrails import registry
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.registry import registered
from worldfoundry.guardrails.runner import Guardrails, describe, run_guard

FRAMES = np.zeros((3, 16, 16, 3), np.uint8)
POLICY = GuardPolicy(timeout_s=0.3)


class Toy:
    """A guard that does what it is told."""

    name, takes = "toy", "text"

    def __init__(self, answer):
        self.answer = answer

    def check(self, item):
        return self.answer(item) if callable(self.answer) else self.answer


def verdict(status, guard="toy"):
    return Verdict(status=status, guard=guard, category="test", reason="because")


def explode(item):
    raise RuntimeError("the weights are upside down")


def leave(item):
    raise SystemExit(0)


class Lookalike(Verdict):
    """A verdict that claims to block nothing."""

    @property
    def blocks(self):
        return False


FAULTS = {
    "raises": explode,
    "leaves": leave,
    "hangs": lambda item: time.sleep(5),
    "none": None,
    "text": "safe",
    "true": True,
    "dictionary": {"status": "safe"},
    "unknown status": verdict("fine"),
    "other name": verdict("safe", guard="someone else"),
    "lookalike": Lookalike(status="unsafe", guard="toy"),
    "skipped": verdict("skipped"),
    "error": verdict("error"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("neighbour", [False, True])
def test_a_faulty_guard_blocks_even_beside_a_good_one(fault, neighbour):
    guards = [Toy(FAULTS[fault])] + ([Toy(verdict("safe"))] if neighbour else [])
    with pytest.raises(GuardUnavailable) as error:
        Guardrails(POLICY, guards, ()).enforce_text("a cube")
    assert error.value.exit_code == 4
    assert "toy" in error.value.message
    assert len(error.value.verdicts) == len(guards)
    with pytest.raises(GuardUnavailable):
        Guardrails(POLICY, (), guards).enforce_video(FRAMES, 24)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("skipped", "error", "lookalike")])
def test_the_fault_is_in_the_reason(fault):
    said = run_guard(Toy(FAULTS[fault]), "a cube", 0.3)
    assert (said.status, said.guard) == ("error", "toy")
    expected = {"raises": "the weights are upside down", "hangs": "no answer within 0.3 s", "leaves": "SystemExit"}
    assert expected.get(fault, "verdict") in said.reason
    assert said.evidence["fix"]


def test_safe_passes_and_unsafe_is_blocked_with_what_was_found():
    assert Guardrails(POLICY, [Toy(verdict("safe"))], ()).enforce_text("x") == (verdict("safe"),)
    with pytest.raises(BlockedError) as error:
        Guardrails(POLICY, [Toy(verdict("safe")), Toy(verdict("unsafe")), Toy(explode)], ()).enforce_text("x")
    assert error.value.exit_code == 3  # somebody looked and objected: that is the stronger news
    assert "toy (test): because" in error.value.message
    assert [v.status for v in error.value.verdicts] == ["safe", "unsafe", "error"]


def test_no_guard_configured_blocks_and_says_how_to_mend_it():
    policy = GuardPolicy(text_guards=(), video_guards=())
    for enforce in (lambda g: g.enforce_text("a cube"), lambda g: g.enforce_video(FRAMES, 24)):
        with pytest.raises(GuardUnavailable, match=r"no (text|video) guard is configured") as error:
            enforce(Guardrails.from_policy(policy))
        assert "action to off with a reason" in error.value.hint


def test_missing_weights_block_with_the_hint_of_the_loader(monkeypatch):
    class Heavy:
        def __init__(self, config):
            raise CheckpointError("The guard's weights are not here.", "Run `worldfoundry models get heavy`.")

    monkeypatch.setattr(registry, "resolve", lambda target: Heavy)
    with pytest.raises(GuardUnavailable, match="weights are not here") as error:
        Guardrails.from_policy(GuardPolicy()).enforce_text("a cube")
    assert "models get heavy" in error.value.hint


def test_the_default_policy_works_on_a_fresh_install():
    guardrails = Guardrails.from_policy(GuardPolicy())
    assert [v.status for v in guardrails.enforce_text("the arm lifts the red cube")] == ["safe"]
    assert [v.status for v in guardrails.enforce_text("")] == ["safe"]  # a world can be unprompted
    assert [v.status for v in guardrails.enforce_video(FRAMES, 24)] == ["safe", "safe"]
    with pytest.raises(BlockedError):
        guardrails.enforce_text("a man murders his neighbour")
    with pytest.raises(GuardUnavailable):
        guardrails.enforce_text(None)
    with pytest.raises(GuardUnavailable):
        guardrails.enforce_video(FRAMES.astype(np.float32), 24)


def test_off_needs_a_reason_which_every_verdict_carries(capsys):
    for action in ("off", "warn"):
        with pytest.raises(ConfigError, match="need a reason"):
            GuardPolicy.from_dict({"action": action, "reason": "  "})
    guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="own weights, closed lab"))
    for verdicts in (guardrails.enforce_text("murder"), guardrails.enforce_video(FRAMES, 24)):
        (said,) = verdicts
        assert (said.status, said.guard) == ("skipped", "policy")
        assert "own weights, closed lab" in said.reason
    assert "switched off" in capsys.readouterr().err


def test_warn_looks_and_tells_but_lets_pass(capsys):
    guardrails = Guardrails.from_policy(GuardPolicy(action="warn", reason="measuring false blocks"))
    assert [v.status for v in guardrails.enforce_text("a murder")] == ["unsafe"]
    assert "warning: prompt: blocklist (violence)" in capsys.readouterr().err


def test_guards_cannot_change_the_frames():
    def scribble(item):
        item.frames[:] = 255
        return verdict("safe")

    frames = FRAMES.copy()
    with pytest.raises(GuardUnavailable, match="read-only"):
        Guardrails(POLICY, (), [Toy(scribble)]).enforce_video(frames, 24)
    assert (frames == 0).all()
    frames[0] = 1  # and the caller still can


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text_guards": ["blocklst"]}, "Did you mean 'blocklist'"),
        ({"text_guards": ["flash"]}, "Unknown text guard 'flash'"),
        ({"video_guards": ["blocklist"]}, "Unknown video guard"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"transforms": []}, "transforms without 'faces' needs a reason"),
        ({"action": "blok"}, "action"),
        ({"flash": {"area": 2}}, "flash.area"),
    ],
)
def test_a_policy_that_names_what_is_not_there_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        GuardPolicy.from_dict(values)


def test_every_registered_guard_has_its_options_in_the_policy():
    for takes, name in registered():
        assert name in GuardPolicy.model_fields
        assert takes in ("text", "video", "transform")


def test_describe_is_one_line():
    assert describe(verdict("unsafe")) == "toy (test): because"
    assert describe(Verdict(status="error", guard="toy")) == "toy: error"
