"""Disguises are undone one by one; what cannot be read is reported."""

import pytest

from worldfoundry.guardrails.lexicon import make_lexicon, packaged_lexicon, slipped
from worldfoundry.guardrails.normalize import fold, reading, tokens, undisguise, unread

WORDS = make_lexicon(
    ["the", "a", "man", "robot", "lifts", "red", "cube", "pick", "place", "and", "strong", "kilt"],
    frozenset({"murder", "murders", "kill", "porn", "rape", "suicide", "bomb"}),
)


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
        ("k i l l t h e m a n", "kill"),
        ("killtheman", "kill"),
        ("kill_the_man", "kill"),
        ("k.i.l.l.t.h.e.m.a.n", "man"),
        ("mur der", "murder"),
        ("redrum", "murder"),
        ("mudrer", "murder"),
        ("murdder", "murder"),
        ("su1cid3", "suicide"),
        ("robto", "robot"),
        ("kill_a_man", "man"),
        ("m🔪u🔪r🔪d🔪e🔪r", "murder"),
    ],
)
def test_disguised_words_are_read(text, word):
    assert word in undisguise(fold(text), WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "4x4 pallet",
        "a 100m race",
        "pick-and-place",
        "kilted",
        "vaping",
        "grape",
        "720p at 30 fps",
        "x y z axes",
        "H13 steel",
        "co-op mode",
        "12k",
        "R2D2 and C3PO",
        "1 2 3 4 5",
        "...",
    ],
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


@pytest.mark.parametrize(
    "text", ["nam eht redrum", "redrum eht nam", "zheqre gur zna", "ＫＩＬＬ ｔｈｅ ｍａｎ", "ʇhǝ man murdǝr"]
)
def test_tricks_on_the_whole_text_are_undone(text):
    assert {"murder", "kill"} & set(reading(text, packaged_lexicon()))


@pytest.mark.parametrize(
    "text",
    [
        "the robot lifts a red cube",
        "a drive from Scunthorpe to Essex",
        "mergulho kapten zwolle brum",
        "R2D2 at 720p",
        "time lapse of beets",
    ],
)
def test_texts_that_make_sense_or_never_will_are_left_alone(text):
    assert reading(text, packaged_lexicon()) == tokens(fold(text))


@pytest.mark.parametrize(
    ("word", "meant", "expected"),
    [
        ("mudrer", "murder", True),
        ("murdr", "murder", True),
        ("murderr", "murder", True),
        ("mirder", "murder", True),
        ("murfer", "murder", False),
        ("burder", "murder", False),
        ("murder", "murder", False),
        ("explosiwe", "explosive", True),
    ],
)
def test_what_counts_as_a_slip(word, meant, expected):
    assert slipped(word, meant) is expected


def test_letters_without_spaces_are_split_by_frequency():
    assert packaged_lexicon().split("therobotliftsthecube") == ["the", "robot", "lifts", "the", "cube"]
    assert packaged_lexicon().split("qqq") is None
