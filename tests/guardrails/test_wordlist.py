"""The list's little language: inflections, alternatives, classes, gaps, allowed phrases."""

import pytest

from worldfoundry.guardrails.categories import ALIASES, CATEGORIES, canonical
from worldfoundry.guardrails.normalize import tokens
from worldfoundry.guardrails.wordlist import inflections, packaged_list, parse_list

SMALL = parse_list(
    """
    [class person]
    man woman
    [class stop]
    and
    [irregular]
    beat: beaten
    [violence]
    kill+
    shoot+ ... <person>
    beat+ up|down
    [secret rot13]
    frperg
    [allow]
    kill+ the|a process
    """
)


def found(text, words=SMALL):
    return [match for _, match in words.matches(tokens(text))]


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("kill", {"kill", "kills", "killed", "killing"}),
        ("stab", {"stab", "stabs", "stabbed", "stabbing"}),
        ("rape", {"rape", "rapes", "raped", "raping"}),
        ("crush", {"crush", "crushes", "crushed", "crushing"}),
        ("rob", {"robs", "robbed", "robbing"}),
        ("carry", {"carry", "carries", "carried", "carrying"}),
    ],
)
def test_inflections(word, forms):
    assert forms <= set(inflections(word))


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("he kills", ["kills"]),
        ("a skill", []),  # whole words only
        ("shoots at the woman", ["shoots at the woman"]),
        ("shoots and a woman", []),  # not across a stop word
        ("shoots. a woman walks", []),  # nor across the end of a phrase
        ("shoots one two three four five man", []),  # nor over more than four words
        ("beaten up", ["beaten up"]),
        ("kill the process", []),
        ("kill the process and kill", ["kill"]),
        ("a secret", ["secret"]),
    ],
)
def test_matching(text, matches):
    assert found(text) == matches


def test_entries_need_a_category():
    with pytest.raises(ValueError, match="stands before any"):
        parse_list("kill+")


def test_the_packaged_list():
    words = packaged_list()
    categories = {entry.category for entry in words.entries}
    assert categories == set(CATEGORIES)
    assert all(entry.regex.pattern for entry in words.entries)
    for entry in words.entries:  # an allowed phrase must never hide an entry for good
        assert entry.text not in {allowed.text for allowed in words.allow}


def test_earlier_names_of_categories_are_understood():
    assert {canonical(name) for name in ALIASES} <= set(CATEGORIES)
    assert all(canonical(name) == name for name in CATEGORIES)
