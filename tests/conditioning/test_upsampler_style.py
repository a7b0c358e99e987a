"""What is kept of a language model's answer, and what is no answer."""

import pytest

from worldfoundry.conditioning.upsampler_style import (
    EXAMPLES,
    MAX_WORDS,
    STEMS,
    SYSTEM,
    as_sentence,
    cleaned,
    fault,
    is_detailed,
    talk,
)

LONG = "A red cube lies on a table. The light is soft and warm. The camera stands still."


@pytest.mark.parametrize(
    "answer",
    [
        LONG,
        f"Sure! {LONG}",
        f"Here is the long caption:\n\n{LONG}",
        f"Here's a detailed prompt: {LONG}",
        f"**Long caption:** {LONG}",
        f'"{LONG}"',
        f"<think>The user wants. A cube.</think>\n{LONG}",
        "- A red cube lies on a table.\n- The light is soft and warm.\n- The camera stands still.",
        "# A red cube lies on a table.\n\n1. The light is soft\nand warm.\n2. The camera stands still.",
        f"{LONG} The wall in the backgr",
    ],
)
def test_one_paragraph_of_whole_sentences_remains(answer):
    assert cleaned(answer) == LONG


def test_a_thought_that_does_not_end_is_no_answer():
    assert cleaned(f"<think>{LONG}") == ""


def test_an_answer_ends_before_the_limit():
    text = cleaned("One two three four five. " * 200)
    assert len(text.split()) == MAX_WORDS
    assert text.endswith("five.")


PROMPT = "a red cube on a table"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LONG, ""),
        ("", "no more than the prompt"),
        ("A red cube on a table.", "no more than the prompt"),
        ("I'm sorry, but I cannot help with describing a red cube on a table.", "refusal"),
        ("As an AI language model, a red cube on a table is nothing that can be seen here.", "refusal"),
        (f"A red cube on a table. {SYSTEM[:150]}.", "repeats its instructions"),
        (EXAMPLES[0][1], "repeats its instructions"),
        ("A red cube lies on a table. " + "The light is on. " * 6, "repeats itself"),
        ("Two dogs run along a beach while the sun goes down behind the hills.", "something else"),
    ],
)
def test_unusable_answers_are_told_apart(text, why):
    found = fault(text, PROMPT)
    assert why in found
    assert bool(found) == bool(why)


def test_the_examples_are_what_is_asked_for():
    for short, long in EXAMPLES:
        assert cleaned(long) == long
        assert long.startswith(as_sentence(short))
        assert all(f" {stem} " in long for stem in STEMS)
    assert [message["role"] for message in talk("x")] == ["system", *["user", "assistant"] * len(EXAMPLES), "user"]
    assert talk("x")[-1]["content"] == "x"


def test_a_prompt_becomes_a_sentence():
    assert as_sentence(" a cube\n falls ") == "A cube falls."
    assert as_sentence("What falls?") == "What falls?"


def test_long_prompts_are_detailed_already():
    assert not is_detailed("word " * MAX_WORDS)
    assert is_detailed("word " * (MAX_WORDS + 1))
    assert is_detailed("字" * 3000)
