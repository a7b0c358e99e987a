"""Disguises are undone one by one; what cannot be read is reported."""

import pytest

from worldfoundry.guardrails.normalize import fold, tokens, undisguise, unread

WORDS = {"murder", "murders", "kill", "porn", "rape", "suicide", "bomb"}


@pytest.mark.parametrize(
    "text",
    [
        "MURDER",
        "ｍｕｒｄｅｒ",  # full width
        "𝐦𝓾𝖗𝔡𝚎𝕣",  # mathematical alphabets
        "ⓜⓤⓡⓓⓔⓡ",
        "🅼🆄🆁🅳🅴🆁",
        "mu\u200brd\u00ader\u2060",  # zero width space, soft hyphen, word joiner
        "m\u0337u\u0337r\u0337d\u0337e\u0337r\u0337",  # stacked marks
        "múrdër",
        "murdеr",  # Cyrillic е
        "mսrder",  # Armenian ս
        "ᴍᴜʀᴅᴇʀ",
        "mu\u202erd\u202cer",  # direction marks
    ],
)
def test_styled_letters_fold_to_plain_ones(text):
    assert fold(text) == "murder"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("k1ll", "kill"),
        ("ki11", "kill"),
        ("k!ll", "kill"),
        ("r@pe", "rape"),
        ("p0rn", "porn"),
        ("p*rn", "porn"),
        ("p*o*r*n", "porn"),
        ("m.u.r.d.e.r", "murder"),
        ("mur-der", "murder"),
        ("m_u_r_d_e_r", "murder"),
        ("murrrrder", "murder"),
        ("(k1ll!)", "kill"),
        ("m u r d e r", "murder"),
        ("s u 1 c 1 d e", "suicide"),
    ],
)
def test_disguised_words_are_read(text, word):
    assert word in undisguise(fold(text), WORDS)


@pytest.mark.parametrize(
    "text",
    ["4x4 pallet", "720p at 30 fps", "x y z axes", "H13 steel", "co-op mode", "12k", "R2D2 and C3PO", "1 2 3 4 5", "..."],
)
def test_ordinary_writing_is_left_alone(text):
    assert undisguise(fold(text), WORDS) == tokens(fold(text))


def test_phrases_end_at_punctuation():
    assert " ".join(tokens("stop, look: go! the man's 3.5 mm bolt.")) == "stop . look . go . the man 3 5 mm bolt ."


@pytest.mark.parametrize(
    "text", ["", "plain", "naïve Łódź straße", "σ = 0.5, 5 µm, Δx, λ/2, 20 °C, π", "🤖 → 📦", "ⓐⓑ ｃ", "١٢٣"]
)
def test_latin_text_and_lone_symbols_are_read(text):
    assert unread(text) == ""


@pytest.mark.parametrize(
    ("text", "count"),
    [("убить", 5), ("рот", 3), ("杀", 1), ("αβγ", 3), ("the 世界 model", 2), ("घर", 2), ("קוף", 3), ("ﺍﻟ", 2)],
)
def test_other_scripts_are_reported_even_where_look_alikes_could_spell_them(text, count):
    assert len(unread(text)) == count


def test_one_foreign_letter_inside_a_latin_word_is_read_as_what_it_looks_like():
    assert unread("murdеr") == ""
    assert len(unread("mur杀der")) == 1
