"""Reading text as a person would: undo the ways in which a word is disguised from a list.

`fold` works on characters (case, width, styled letters, look-alikes, invisible characters, stacked marks);
`tokens` and `undisguise` work on words (digits for letters, letters spaced or dotted apart, stretched letters).
Only Latin script is read. `unread` reports what is left, so that nobody mistakes "no match" for "looked and clean".
"""

import re
import unicodedata

# Letters that look Latin but do not decompose to it: Cyrillic, Greek, Armenian, small capitals, Latin with strokes.
_LOOK_ALIKES = str.maketrans(
    "аАвВеЕзкКмМнНоОрРсСтТуУхХіІїјЈѕЅһԁԛԝүӏ"
    + "αΑΒεΕηιΙκΚΜνΝοΟρΡτΤυΥχΧΖΗγ"
    + "սոհցօաքԼՍՕ"
    + "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ"
    + "øłđðþæœıħŋɑɡɩʋØŁĐƖ",
    "aabbee3kkmmhhooppccttyyxxiiijjsshdqwyl"
    + "aabeeniikkmvnooppttuyxxzhy"
    + "unhgowplou"
    + "abcdefghijklmnoprstuvwyz"
    + "oldopaoihnagivoldl",
)
_FILLERS = {"\u3164", "\u115f", "\u1160", "\u2800", "\uffa0"}  # letters or symbols that draw nothing
_ALNUM = re.compile(r"[a-z0-9]+")

# What a disguised character may stand for. Other punctuation inside a word stands for nothing.
_LEET = {
    "0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "bg", "7": "t", "8": "b", "9": "g",
    "@": "a", "$": "s", "!": "il", "|": "il", "+": "t", "(": "c", "€": "e", "£": "l",
}  # fmt: skip


def fold(text: str) -> str:
    """Lower-case text without marks, invisible characters, styled or look-alike letters; other scripts stay as they are."""
    text = "".join(_unboxed(c) for c in unicodedata.normalize("NFKC", text))
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf") and c not in _FILLERS)
    return text.translate(_LOOK_ALIKES).casefold()


def _unboxed(c: str) -> str:
    """The letter inside a dark circle, a dark square or a flag symbol, which NFKC leaves alone."""
    for first in (0x1F150, 0x1F170, 0x1F1E6):
        if first <= ord(c) < first + 26:
            return chr(ord("a") + ord(c) - first)
    return c


def tokens(folded: str) -> list[str]:
    """The words of folded text as they stand: runs of a-z and 0-9, a possessive 's dropped, `.` where a phrase ends."""
    return [word for chunk in folded.split() for word in _words(chunk)]


def _words(chunk: str) -> list[str]:
    words = _ALNUM.findall(re.sub(r"['’]s\b", "", chunk))
    return [*words, "."] if len("".join(words)) > 1 and chunk[-1] in ".,;:!?" else words


def undisguise(folded: str, vocabulary: set[str]) -> list[str]:
    """The words again, but a disguised word is replaced by the word of `vocabulary` that it spells.

    Undoes digits and signs for letters (k1ll, p*rn), marks inside a word (m.u.r.d.e.r), stretching (murrrder) and
    single letters standing apart (m u r d e r).
    """
    known = " ".join(sorted(vocabulary))
    words: list[str] = []
    for chunk in folded.split():
        spelled = _spelled(chunk.strip(".,;:!?\"'()[]{}<>"), known)
        words += [spelled] if spelled else _words(chunk)
    return _joined(words, vocabulary)


def _spelled(chunk: str, known: str) -> str | None:
    """The known word that a chunk spells in disguise, or None."""
    disguised = re.search(r"[^a-z]|(.)\1\1", chunk) and re.search(r"[a-z]", chunk)
    if not disguised or len(chunk) > 60:
        return None
    pattern = ""
    for run in re.finditer(r"(.)\1*", chunk):
        c, length = run[1], len(run[0])
        one = f"[{_LEET[c]}]" if c in _LEET else c if c.isalpha() else "[a-z]?" if c == "*" else ""
        pattern += one + "{1,2}" if one and length >= 3 else one * length
    found = re.search(rf"(?<![^ ]){pattern}(?![^ ])", known)
    return found[0] if found and found[0] != chunk else None


def _joined(words: list[str], vocabulary: set[str]) -> list[str]:
    """Runs of three or more single characters become the known words of four letters or more inside them."""
    out: list[str] = []
    run: list[str] = []
    for word in [*words, ""]:
        if len(word) == 1:
            run.append(word)
            continue
        joined = "".join(_LEET.get(c, c)[0] for c in run)
        found = [known for known in vocabulary if len(known) >= 4 and known in joined] if len(run) >= 3 else []
        out += [max(found, key=len)] if found else run
        out += [word] if word else []
        run = []
    return out


def unread(text: str) -> str:
    """The letters that the Latin reading does not cover. A lone Greek letter (σ, µm, Δx) is a symbol and not reported."""
    missed = ""
    for chunk in unicodedata.normalize("NFKC", text).split():
        scripts = [_script(c) for c in chunk if unicodedata.category(c).startswith("L") and c not in _FILLERS]
        foreign = [c for c in chunk if unicodedata.category(c).startswith("L") and not _ALNUM.fullmatch(fold(c) or "a")]
        if "LATIN" not in scripts and len(scripts) >= 2:  # a word of another script, even if look-alikes could spell it
            foreign = [c for c in chunk if unicodedata.category(c).startswith("L")]
        only_symbols = all(_script(c) == "GREEK" for c in foreign) and scripts.count("GREEK") == 1
        missed += "" if only_symbols else "".join(foreign)
    return missed


def _script(c: str) -> str:
    return unicodedata.name(c, "UNKNOWN").split()[0]
