"""Fault injection: whatever goes wrong with a guard, nothing passes, and the reason is said."""

import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import BlockedError, CheckpointError, ConfigError, GuardUnavailable
from worldfoundry.guardrails import registry
from worldfoundry.guardrails.coverage import coverage
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.registry import registered
from worldfoundry.guardrails.runner import Guardrails, describe, run_guard

FRAMES = np.zeros((3, 16, 16, 3), np.uint8)
POLICY = GuardPolicy(timeout_s=600)  # however busy the machine is


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
    policy = GuardPolicy(timeout_s=0.3) if fault == "hangs" else POLICY
    guards = [Toy(FAULTS[fault])] + ([Toy(verdict("safe"))] if neighbour else [])
    with pytest.raises(GuardUnavailable) as error:
        Guardrails(policy, guards, ()).enforce_text("a cube")
    assert error.value.exit_code == 4
    assert "toy" in error.value.message
    assert len(error.value.verdicts) == len(guards)
    with pytest.raises(GuardUnavailable):
        Guardrails(policy, (), guards).enforce_video(FRAMES, 24)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("skipped", "error", "lookalike")])
def test_the_fault_is_in_the_reason(fault):
    said = run_guard(Toy(FAULTS[fault]), "a cube", 0.3 if fault == "hangs" else 600)
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


def test_a_preset_fills_what_was_left_at_its_default():
    strict = GuardPolicy(preset="strict")
    assert strict.flash.area == 0.1
    assert "classifier" in strict.text_guards
    assert GuardPolicy(preset="strict", flash={"area": 0.5}).flash.area == 0.5
    assert GuardPolicy.from_dict(strict.to_dict()) == strict
    assert GuardPolicy.from_dict(GuardPolicy().to_dict()) == GuardPolicy()
    assert GuardPolicy.off("a test").action == "off"
    with pytest.raises(ConfigError, match="need a reason"):
        GuardPolicy.from_dict({"preset": "off"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"actions": {"violence": "warn"}}, "to let 'violence' pass with a warning needs a reason"),
        ({"video_guards": ["flash"]}, "video_guards without 'nsfw' needs a reason"),
        ({"actions": {"flash": "blur"}}, "only looks and cannot blur"),
    ],
)
def test_what_lets_more_pass_needs_a_reason(values, words):
    with pytest.raises(ConfigError, match=words):
        GuardPolicy.from_dict(values)


def test_an_exception_lets_an_objection_pass_but_not_a_failure(capsys):
    policy = GuardPolicy(actions={"test": "warn"}, reason="a test")
    assert Guardrails(policy, [Toy(verdict("unsafe"))]).enforce_text("x") == (verdict("unsafe"),)
    assert "warning: prompt: toy (test): because" in capsys.readouterr().err
    assert policy.said() == "block, test warn: a test"
    with pytest.raises(GuardUnavailable):
        Guardrails(policy, [Toy(explode)]).enforce_text("x")
    with pytest.raises(GuardUnavailable):
        Guardrails(policy, [Toy(verdict("error"))]).enforce_text("x")
    with pytest.raises(BlockedError):
        Guardrails(GuardPolicy(actions={"other": "warn"}, reason="a test"), [Toy(verdict("unsafe"))]).enforce_text("x")


class Hides:
    """A transform that whitens the first row of every frame."""

    name = "hides"

    def apply(self, item):
        frames = item.frames.copy()
        frames[:, 0] = 255
        return frames, Verdict(status="safe", guard=self.name)


def test_what_leaves_is_hidden_first_and_then_looked_at():
    seen = []
    looker = Toy(lambda item: seen.append(item.frames.copy()) or verdict("safe"))
    out, said = Guardrails(POLICY, (), [looker], [Hides()]).release(FRAMES, 24)
    assert (out[:, 0] == 255).all()
    assert (FRAMES == 0).all()
    assert np.array_equal(seen[0], out)
    assert said[0].evidence["changed_frames"] == 3
    blocking = GuardPolicy(actions={"hides": "block"})
    with pytest.raises(BlockedError, match="3 of 3 frames show what 'hides' hides"):
        Guardrails(blocking, (), [Toy(verdict("safe"))], [Hides()]).release(FRAMES, 24)
    letting = GuardPolicy(actions={"hides": "warn"}, reason="a test")
    assert (Guardrails(letting, (), [Toy(verdict("safe"))], [Hides()]).release(FRAMES, 24)[0] == 0).all()


def test_a_guard_sees_of_the_past_what_it_asks_for():
    seen = []
    looker = Toy(lambda item: seen.append(len(item.frames)) or verdict("safe"))
    looker.history_s = 0.5
    Guardrails(POLICY, (), [looker]).check_video(np.zeros((100, 8, 8, 3), np.uint8), 8, new=4)
    assert seen == [8]


class Own:
    """What a policy names as module:Class."""

    name, takes = "own", "text"

    def check(self, item):
        return Verdict(status="unsafe" if "cat" in item else "safe", guard=self.name)


def test_a_policy_takes_a_guard_of_ones_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_guards", SimpleNamespace(Own=Own))
    guardrails = Guardrails.from_policy(GuardPolicy(text_guards=("blocklist", "my_guards:Own")))
    assert guardrails.check_text("a cat")[-1].status == "unsafe"
    wrong = GuardPolicy(video_guards=("my_guards:Own",), reason="a test")
    assert "takes 'text', not 'video'" in Guardrails.from_policy(wrong).check_video(FRAMES, 24)[0].reason
    absent = GuardPolicy(text_guards=("blocklist", "no_such_module:Guard"))
    with pytest.raises(GuardUnavailable, match="could not be made ready"):
        Guardrails.from_policy(absent).enforce_text("a cube")


def test_coverage_says_what_was_asked_for_and_what_was_done():
    policy = GuardPolicy(text_guards=("blocklist",), video_guards=("flash",), transforms=("faces",), reason="a test")
    said = [Verdict(status="safe", guard="flash", evidence={"frames": 10, "frames_checked": n}) for n in (10, 5)]
    found = coverage(policy, said)
    assert found["requested"] == {"text": ["blocklist"], "video": ["flash"], "transform": ["faces"]}
    assert found["effective"] == {"flash": {"safe": 2, "frames": 20, "share": 0.75}}
    assert found["not_asked"] == ["blocklist", "faces"]
    assert found["policy"] == policy.hash()


def test_ranks_stop_together(monkeypatch):
    """What another rank objects to blocks here too; an exchange that fails blocks as well."""
    torch = pytest.importorskip("torch")

    def others(said, verdicts):
        said[0], said[1] = verdicts, (verdict("unsafe"),)

    fakes = {"is_initialized": lambda: True, "get_world_size": lambda: 2, "get_rank": lambda: 0, "all_gather_object": others}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.distributed, name, fake)
    with pytest.raises(BlockedError, match="rank 1: because"):
        Guardrails(POLICY, [Toy(verdict("safe"))]).enforce_text("x")

    def gone(said, verdicts):
        raise RuntimeError("a rank has left")

    monkeypatch.setattr(torch.distributed, "all_gather_object", gone)
    with pytest.raises(GuardUnavailable, match="could not compare"):
        Guardrails(POLICY, [Toy(verdict("safe"))]).enforce_text("x")
