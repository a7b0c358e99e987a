"""The word list as a value: parse `blocklist.txt`, expand inflections, compile each entry to a regular expression.

The syntax is described at the top of the list itself. Matching runs on normalised words joined by single spaces, so every
entry matches whole words only: `sex` does not match `Essex`.
"""

import codecs
import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

VOWELS = "aeiou"
GAP_WORDS = 4  # that `...` in an entry may skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the list: its category, the line as written, and its compiled form."""

    category: str
    text: str
    regex: re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class WordList:
    """`allow` entries are taken out before matching; `vocabulary` is every literal word, for reading disguised ones."""

    entries: tuple[Entry, ...]
    allow: tuple[Entry, ...]
    vocabulary: frozenset[str]
    hash: str

    def matches(self, words: list[str]) -> list[tuple[Entry, str]]:
        """Every entry found in the words, with the words that it matched; allowed phrases are masked beforehand."""
        text = " ".join(words)
        for entry in self.allow:
            text = entry.regex.sub("_", text)
        return [(entry, found[0]) for entry in self.entries for found in entry.regex.finditer(text)]


@dataclass(kw_only=True)
class _Sections:
    """What has been read so far."""

    classes: dict[str, list[str]] = field(default_factory=dict)
    irregular: dict[str, list[str]] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)


@cache
def packaged_list() -> WordList:
    """The list that ships with the package."""
    return parse_list(files("worldfoundry.guardrails").joinpath("blocklist.txt").read_text(encoding="utf-8"))


def parse_list(text: str) -> WordList:
    """Read a list in the syntax of `blocklist.txt`. Raises ValueError for an entry before any section."""
    sections = _read(text)
    entries, words = [], set()
    for category, line in sections.lines:
        parts = [_forms(part, sections) for part in line.split()]
        words |= {word for forms in parts for word in forms if len(word) >= 3} if category != "allow" else set()
        entries.append(Entry(category=category, text=line, regex=_compile(parts, sections.classes.get("stop", []))))
    return WordList(
        entries=tuple(entry for entry in entries if entry.category != "allow"),
        allow=tuple(entry for entry in entries if entry.category == "allow"),
        vocabulary=frozenset(words),
        hash=hashlib.sha256(text.encode()).hexdigest()[:12],
    )


def _read(text: str) -> _Sections:
    sections, header = _Sections(), [""]
    for raw in text.splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("["):
            header = line.strip("[]").split()
        elif line and header[0] == "class":
            sections.classes.setdefault(header[1], []).extend(line.split())
        elif line and header[0] == "irregular":
            word, forms = line.split(":")
            sections.irregular[word] = forms.split()
        elif line:
            if not header[0]:
                raise ValueError(f"entry {line!r} stands before any [category]")
            sections.lines.append((header[0], codecs.decode(line, "rot13") if "rot13" in header else line))
    return sections


def _forms(part: str, sections: _Sections) -> list[str]:
    """The words that one part of an entry stands for; empty for the gap `...`."""
    forms: list[str] = []
    for word in [] if part == "..." else part.split("|"):
        if word.startswith("<"):
            forms += sections.classes[word.strip("<>")]
        else:
            forms += [*inflections(word[:-1]), *sections.irregular.get(word[:-1], [])] if word.endswith("+") else [word]
    return forms


def _compile(parts: list[list[str]], stop: list[str]) -> re.Pattern[str]:
    gap = rf"(?: (?!(?:{'|'.join(stop) or '_'})(?![^ ]))[a-z0-9]+){{0,{GAP_WORDS}}}"
    pattern = ""
    for forms in parts:
        word = "|".join(sorted(map(re.escape, set(forms)), key=len, reverse=True))
        pattern += f"{' ' if pattern else ''}(?:{word})" if forms else gap
    return re.compile(rf"(?<![^ ]){pattern}(?![^ ])")


def inflections(word: str) -> list[str]:
    """Regular English forms of a noun or verb: -s, -ed, -ing, with e-dropping, y to ie, and a doubled last consonant."""
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return [word, word[:-1] + "ies", word[:-1] + "ied", word + "ing"]
    plural = word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
    stems = [word[:-1] if word.endswith("e") else word]
    if len(word) >= 3 and word[-1] not in VOWELS + "wxy" and word[-2] in VOWELS:
        stems.append(word + word[-1])
    return [word, plural, *(stem + ending for stem in stems for ending in ("ed", "ing"))]
