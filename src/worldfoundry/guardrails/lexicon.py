"""Which letters make an English word: to tell a disguised word from an ordinary one, and to find what it stands for.

`english_words.txt` holds the words by falling frequency; the word list's own words come on top. Nothing here decides what is unsafe.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

ENDINGS = ("s", "es", "ed", "d", "ing", "er", "ers", "ly")
LONGEST = 24  # letters of a word that text without spaces is split into
FUZZY_FROM = 6  # letters that a listed word needs before a misspelling of it counts


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """`cost` is -log of a word's probability by Zipf's law; `listed` are the words of the word list; `near` finds misspellings."""

    cost: Mapping[str, float]
    listed: frozenset[str]
    near: Mapping[str, tuple[str, ...]]

    def knows(self, word: str) -> bool:
        """Whether this is an English word or a regular form of one."""
        return word in self.cost or any(stem in self.cost for stem in stems(word))

    def best(self, candidates: Iterable[str]) -> str | None:
        """The listed candidate if there is one, else the most frequent word among them."""
        found = [word for word in candidates if self.knows(word)]
        return min(found, key=lambda w: (w not in self.listed, self.cost.get(w, 99.0), w)) if found else None

    def split(self, letters: str) -> list[str] | None:
        """The likeliest words that a run of letters is made of (killtheman: kill, the, man), or None."""
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(letters) + 1):
            ways = [
                (best[start][0] + self.cost[letters[start:end]], start)
                for start in range(max(0, end - LONGEST), end)
                if letters[start:end] in self.cost
            ]
            best.append(min(ways, default=(math.inf, 0)))
        if math.isinf(best[-1][0]):
            return None
        words: list[str] = []
        end = len(letters)
        while end:
            words.insert(0, letters[best[end][1] : end])
            end = best[end][1]
        return words

    def misspelt(self, word: str) -> str | None:
        """The listed word that this one misses by one slip of the fingers, or None."""
        if len(word) < FUZZY_FROM - 1:
            return None
        found = {listed for short in (word, *_shorter(word)) for listed in self.near.get(short, ())}
        return min((listed for listed in found if slipped(word, listed)), default=None)


def stems(word: str) -> list[str]:
    """What is left of a word without a regular ending; three letters or more."""
    found = []
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word[: -len(ending)]
            found += (
                [stem, stem + "e"]
                + ([stem[:-1]] if stem[-1] == stem[-2] else [])
                + ([stem[:-1] + "y"] if stem[-1] == "i" else [])
            )
    return found


def slipped(word: str, meant: str) -> bool:
    """Whether `word` is `meant` with two neighbours swapped, one letter more or less, or one vowel for another.

    One consonant for another makes another word too often (vaping is no slip), unless the word is long. First letters are kept.
    """
    if word[0] != meant[0] or word == meant:
        return False
    if len(word) != len(meant):
        longer, shorter = sorted((word, meant), key=len, reverse=True)
        return len(longer) - len(shorter) == 1 and shorter in _shorter(longer)
    differ = [i for i, (a, b) in enumerate(zip(word, meant, strict=True)) if a != b]
    if len(differ) == 2:
        i, j = differ
        return j == i + 1 and word[i] == meant[j] and word[j] == meant[i]
    return len(differ) == 1 and (len(word) >= 9 or {word[differ[0]], meant[differ[0]]} <= set("aeiouy"))


def _shorter(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(1, len(word))}


def make_lexicon(words: Iterable[str], listed: frozenset[str]) -> Lexicon:
    """`words` by falling frequency; listed words that are not among them count as rare."""
    ranked = list(dict.fromkeys(words))
    total = math.log(len(ranked) + 2)
    cost = {word: math.log((rank + 2) * total) for rank, word in enumerate(ranked)}
    rare = math.log((len(ranked) + 2) * total)
    cost |= {word: rare for word in listed if word not in cost}
    near: dict[str, list[str]] = {}
    for word in sorted(listed):
        if len(word) >= FUZZY_FROM and word.isalpha():
            for short in (word, *_shorter(word)):
                near.setdefault(short, []).append(word)
    return Lexicon(cost=cost, listed=listed, near={short: tuple(found) for short, found in near.items()})


@cache
def packaged_lexicon() -> Lexicon:
    """English as it ships, with the words of the packaged word list."""
    from worldfoundry.guardrails.wordlist import packaged_list

    text = files("worldfoundry.guardrails").joinpath("english_words.txt").read_text(encoding="utf-8")
    return make_lexicon(text.splitlines()[1:], packaged_list().vocabulary)
