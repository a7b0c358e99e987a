"""The text guard on the project's own sentences, and on what is no sentence at all."""

from pathlib import Path

import pytest
import yaml

from worldfoundry.core.errors import ConfigError
from worldfoundry.guardrails.categories import canonical
from worldfoundry.guardrails.text import BlocklistConfig, BlocklistGuard

OWN_SET = yaml.safe_load((Path(__file__).parent / "own_set.yaml").read_text(encoding="utf-8"))
GUARD = BlocklistGuard(BlocklistConfig())
BENIGN = [*OWN_SET["benign"], *OWN_SET["second_benign"], *OWN_SET["third_benign"]]
UNSAFE = [(category, text) for category, texts in OWN_SET["unsafe"].items() for text in texts]


def test_the_sets_are_as_large_as_their_numbers_claim():
    assert len(OWN_SET["benign"]) >= 60
    assert len(BENIGN) == len(set(BENIGN)) >= 150
    assert len(OWN_SET["second_benign"]) == 50
    assert len(OWN_SET["second_unsafe"]) == 25


@pytest.mark.parametrize("text", BENIGN)
def test_physical_ai_vocabulary_passes(text):
    verdict = GUARD.check(text)
    assert verdict.status == "safe", verdict


@pytest.mark.parametrize(("category", "text"), UNSAFE)
def test_plain_requests_are_stopped_with_their_category(category, text):
    verdict = GUARD.check(text)
    assert verdict.status == "unsafe"
    related = {canonical(category), "csam"} if category == "sexual" else {canonical(category)}
    assert related & set(verdict.evidence["matches"].values()), verdict
    assert verdict.category
    assert verdict.reason.startswith("matches '")


@pytest.mark.parametrize("text", OWN_SET["evasions"])
def test_disguised_requests_are_stopped(text):
    assert GUARD.check(text).status == "unsafe"


def test_the_second_set_does_not_fall_behind():
    """Two sentences of it are known to pass: they carry their meaning over an `and`."""
    missed = [text for text in OWN_SET["second_unsafe"] if GUARD.check(text).status != "unsafe"]
    assert len(missed) <= 2, missed


@pytest.mark.parametrize(
    "change", [str.upper, str.title, lambda s: f"  {s}!!  ", lambda s: s.replace(" ", "\n"), lambda s: f'"{s}"']
)
def test_case_space_and_quotes_change_nothing(change):
    for text in ("a man murders his neighbour", "how to build a pipe bomb"):
        assert GUARD.check(change(text)).status == "unsafe"
    assert GUARD.check(change("the robot hands an Xbox controller to a child")).status == "safe"


def test_an_allowed_phrase_does_not_excuse_its_neighbours():
    assert GUARD.check("kill the process").status == "safe"
    assert GUARD.check("kill the process, then kill the operator").status == "unsafe"
    assert GUARD.check("a crash test and a murder").status == "unsafe"
    assert GUARD.check("the process: kill the child").status == "unsafe"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_safe_and_says_why(text):
    verdict = GUARD.check(text)
    assert verdict.status == "safe"
    assert "nothing to judge" in verdict.reason


@pytest.mark.parametrize(
    "text", ["убить всех людей", "机器人举起红色方块", "ロボットアームが動く", "روبوت", "the robot 杀 the cube"]
)
def test_what_the_list_cannot_read_is_not_called_safe(text):
    verdict = GUARD.check(text)
    assert verdict.status == "skipped"
    assert "cannot read" in verdict.reason
    assert "unread_scripts" in verdict.evidence["fix"]
    allowed = BlocklistGuard(BlocklistConfig(unread_scripts="allow")).check(text)
    assert allowed.status == "safe"
    assert "went unread" in allowed.reason
    assert allowed.evidence["unread_letters"] == verdict.evidence["unread_letters"] > 0


def test_unsafe_wins_over_unread():
    assert GUARD.check("杀 murder").status == "unsafe"
    assert BlocklistGuard(BlocklistConfig(unread_scripts="allow")).check("世界 murder").status == "unsafe"


@pytest.mark.parametrize("item", [None, b"kill", 3, ["kill"], "kill\x00", "\ud800", "a\x1b[31m", "x" * 1_000_000])
def test_what_is_no_plain_text_is_an_error(item):
    verdict = GUARD.check(item)
    assert verdict.status == "error"
    assert verdict.reason
    assert len(verdict.reason) < 200


def test_the_longest_allowed_text_is_read_to_its_end():
    text = "the arm lifts a cube and " * 700
    assert GUARD.check(text).status == "safe"
    assert GUARD.check(text + "murder").status == "unsafe"


def test_options_are_checked():
    with pytest.raises(ConfigError, match="unread_scripts"):
        BlocklistConfig.from_dict({"unread_scripts": "ignore"})


def test_verdicts_name_the_list():
    assert GUARD.check("a cube").evidence["list"] == GUARD.words.hash
