"""Reading text as a person would: undo the ways in which a word is disguised from a list.

`fold` works on characters (case, width, styled letters, look-alikes, invisible characters, stacked marks);
`tokens` and `undisguise` work on words (digits for letters, letters apart, stretched, run together, reversed, slips); `reading`
does all of it and undoes what was done to the text as a whole.
Only Latin script is read. `unread` reports what is left, so that nobody mistakes "no match" for "looked and clean".
"""

import codecs
import re
import unicodedata
from typing import Any

from worldfoundry.guardrails.lexicon import Lexicon

# Letters that look Latin but do not decompose to it: Cyrillic, Greek, Armenian, small capitals, Latin with strokes.
_LOOK_ALIKES = str.maketrans(
    "аАвВеЕзкКмМнНоОрРсСтТуУхХіІїјЈѕЅһԁԛԝүӏ"
    + "αΑΒεΕηιΙκΚΜνΝοΟρΡτΤυΥχΧΖΗγ"
    + "սոհցօաքԼՍՕ"
    + "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ"
    + "øłđðþæœıħŋɑɡɩʋØŁĐƖ"
    + "ᎪᏴᏟᎬᎻᎫᏦᏞᎷᏢᏚᎢᏙᏔᏃѵԍցⅼƙɓɗ"  # Cherokee and a few more
    + "ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ",  # upside down
    "aabbee3kkmmhhooppccttyyxxiiijjsshdqwyl"
    + "aabeeniikkmvnooppttuyxxzhy"
    + "unhgowplou"
    + "abcdefghijklmnoprstuvwyz"
    + "oldopaoihnagivoldl"
    + "abcehjklmpstvwzvgglkbd"
    + "acefghijkmrtvwy",
)
_FILLERS = {"\u3164", "\u115f", "\u1160", "\u2800", "\uffa0"}  # letters or symbols that draw nothing
_ALNUM = re.compile(r"[a-z0-9]+")

MAX_CHUNK = 200  # characters without a space that are looked into

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


def undisguise(folded: str, lexicon: Lexicon) -> list[str]:
    """The words again, but a disguised word is replaced by the known word or words that it spells.

    Undoes digits and signs for letters (k1ll, p*rn), marks inside a word (m.u.r.d.e.r), stretching (murrrder), letters standing
    apart (m u r d e r), words cut in two (mur der), run together (killtheman), reversed (redrum), and slips in listed words (mudrer).
    """
    words: list[str] = []
    seen: dict[str, list[str]] = {}
    for chunk in folded.split():
        if chunk not in seen:
            seen[chunk] = _spelled(re.sub(r"['’]s$", "", chunk.strip(".,;:?\"'()[]{}<>")), lexicon) or _words(chunk)
        words += seen[chunk]
    return _mended(_joined(words, lexicon), lexicon)


def _spelled(chunk: str, lexicon: Lexicon) -> list[str] | None:
    """The known words that a chunk spells in disguise, or None if it is ordinary or spells nothing."""
    bare = chunk.rstrip("!|")  # which may stand for letters, or for nothing
    chunk = bare if lexicon.knows(bare) else chunk
    if not re.search("[a-z]", chunk) or len(chunk) > MAX_CHUNK or (chunk.isalpha() and lexicon.knows(chunk)):
        return None
    if re.fullmatch(r"[0-9.,]+[a-z]{1,4}", chunk):  # a number with its unit
        return None
    parts = re.findall(r"[a-z]+", chunk)
    marked = [part for part in re.split(r"[^a-z0-9@$!|+(€£*]+", chunk) if part]
    if len(marked) >= 2 and all(map(lexicon.knows, marked)) and sum(map(len, marked)) >= 2 * len(marked):
        return marked  # pick-and-place
    found = lexicon.best([*_candidates(chunk), *_candidates(bare)]) or _starred(chunk, lexicon)
    if found and (len(found) >= 4 or found in lexicon.listed or (len(found) == 3 and len("".join(parts)) >= 2)):
        return None if found == chunk else [found]
    if chunk.isalpha():
        return _unknown(chunk, lexicon)
    letters = min(_candidates(chunk), key=lambda c: (lexicon.split(c) is None, c), default="")
    pieces = lexicon.split(letters) if len(letters) >= 6 and 2 * len("".join(parts)) >= len(letters) else None
    return pieces if pieces and 3 * len(pieces) <= len(letters) else None


def _unknown(word: str, lexicon: Lexicon) -> list[str] | None:
    """An unknown word of letters only: reversed, misspelt, or several words run together."""
    if len(word) >= 4 and word[::-1] in lexicon.listed:
        return [word[::-1]]
    if slip := lexicon.misspelt(word):
        return [slip]
    swaps = (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1))
    if meant := lexicon.best(swapped for swapped in swaps if len(word) >= 4 and swapped in lexicon.cost):
        return [meant]
    pieces = lexicon.split(word) if len(word) >= 8 else None
    return pieces if pieces and 3 <= len(pieces) <= len(word) // 3 else None  # two words are a compound more often


def _candidates(chunk: str) -> list[str]:
    """What a chunk may spell: digits and signs as letters, marks as nothing, three of a letter as one or two; at most 64."""
    ways = [""]
    for run in re.finditer(r"(.)\1*", chunk):
        c, length = run[1], len(run[0])
        letters = _LEET.get(c, c if c.isalpha() else "")
        options = [letter * n for letter in letters for n in ((1, 2) if length >= 3 else (length,))] or [""]
        ways = [way + option for way in ways for option in options][:64]
    return ways


def _starred(chunk: str, lexicon: Lexicon) -> str | None:
    """The listed word of a chunk whose stars stand for letters (p*rn) or for nothing (p*o*r*n)."""
    if "*" not in chunk:
        return None
    pattern = re.compile(
        "".join(
            "[a-z]?" if c == "*" else f"[{_LEET[c]}]" if c in _LEET else c
            for c in chunk
            if c == "*" or c in _LEET or c.isalpha()
        )
    )
    return min((word for word in lexicon.listed if pattern.fullmatch(word)), default=None)


def _joined(words: list[str], lexicon: Lexicon) -> list[str]:
    """Runs of three or more single characters become the known words that they spell."""
    out: list[str] = []
    run: list[str] = []
    for word in [*words, ""]:
        if len(word) == 1 and word != "." and len(run) < MAX_CHUNK:
            run.append(word)
            continue
        joined = "".join(run)
        spelled = None
        if len(run) >= 3:
            choices = [lexicon.split(way) for way in _candidates(joined)]
            spelled = min((c for c in choices if c and 3 * len(c) <= len(run)), key=lambda c: (len(c), c), default=None)
        out += spelled or run
        out += [word] if word else []
        run = []
    return out


def _mended(words: list[str], lexicon: Lexicon) -> list[str]:
    """Neighbours that make a listed word, one of them no word by itself, are put together (mur der)."""
    out: list[str] = []
    for word in words:
        both = out[-1] + word if out else ""
        cut = len(both) >= 5 and both in lexicon.listed and not (lexicon.knows(word) and lexicon.knows(out[-1]))
        out = [*out[:-1], both] if cut else [*out, word]
    return out


def reading(text: str, lexicon: Lexicon) -> list[str]:
    """The words of a text as a person would read them: folded, whole-text tricks undone, then each word.

    Whole-text tricks are letters or words written backwards and letters moved by 13. They are only tried where fewer than half
    of the letters belong to known words, and only believed where nearly all do afterwards.
    """
    folded = fold(text)
    if _sense(folded, lexicon) < 0.5:
        backwards = " ".join(word[::-1] for word in folded.split())
        if len(tokens(backwards)) >= 2 and _sense(backwards, lexicon) > 0.8:  # either order of the words may be meant
            return [*undisguise(folded[::-1], lexicon), ".", *undisguise(backwards, lexicon)]
        turned = codecs.encode(folded, "rot13")
        if len(tokens(turned)) >= 2 and _sense(turned, lexicon) > 0.8:
            return undisguise(turned, lexicon)
    return undisguise(folded, lexicon)


def _sense(folded: str, lexicon: Lexicon) -> float:
    """The share of letters that belong to known words of three letters or more; 1 where there are none."""
    words = [word for word in tokens(folded) if len(word) >= 3 and word.isalpha()]
    return sum(len(word) for word in words if lexicon.knows(word)) / max(sum(map(len, words)), 1) if words else 1.0


def not_plain(item: Any, max_chars: int) -> str:
    """Why this cannot be judged as text, in one line; empty if it can."""
    if not isinstance(item, str):
        return f"expected text, got {type(item).__name__}"
    if len(item) > max_chars:
        return f"a text of {len(item)} characters is longer than max_chars={max_chars}"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") and c not in "\t\n\r" for c in item):
        return "the text holds control or undefined characters, so it is not plain text"
    return ""


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
