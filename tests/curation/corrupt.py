"""Bad files of many kinds, each made from a good video, with the reason codes that are right for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RIGHT_FOR_DAMAGE = frozenset({"TRUNCATED", "DECODE_ERROR", "TOO_SHORT", "NO_FRAMES", "NOT_MEDIA", "BLANK"})


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """`spoil` maps the bytes of a good mp4 (index in front) to those of a bad file; any of `codes` is right for it."""

    spoil: Callable[[bytes], bytes]
    codes: frozenset[str]
    suffix: str = ".mp4"


def _random(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8).tobytes()


def _boxes(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Top-level boxes: type → (start, end)."""
    found, at = {}, 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found[content[at + 4 : at + 8]] = at, at + size
        at += max(size, 8)
    return found


def _without(box: bytes) -> Callable[[bytes], bytes]:
    def spoil(content: bytes) -> bytes:
        start, end = _boxes(content)[box]
        return content[:start] + content[end:]

    return spoil


def _filled(box: bytes, fill: Callable[[int], bytes]) -> Callable[[bytes], bytes]:
    """The box keeps its header; what is in it is replaced."""

    def spoil(content: bytes) -> bytes:
        start, end = _boxes(content)[box]
        return content[: start + 8] + fill(end - start - 8) + content[end:]

    return spoil


def _kept(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(share * len(content))]


def _renamed(box: bytes, name: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(box, name)


UNREADABLE = frozenset({"NOT_MEDIA", "MOOV_MISSING"})
CORRUPTIONS = {
    "empty": Corruption(spoil=lambda content: b"", codes=frozenset({"EMPTY_FILE"})),
    "one byte": Corruption(spoil=lambda content: content[:1], codes=UNREADABLE),
    "header alone": Corruption(spoil=lambda content: content[:32], codes=UNREADABLE),
    "text": Corruption(spoil=lambda content: b"not a video\n" * 400, codes=UNREADABLE),
    "web page": Corruption(spoil=lambda content: b"<!doctype html><title>404</title>" * 90, codes=UNREADABLE),
    "zeros": Corruption(spoil=lambda content: bytes(len(content)), codes=UNREADABLE),
    "noise": Corruption(spoil=lambda content: _random(len(content)), codes=UNREADABLE),
    "no index": Corruption(spoil=_without(b"moov"), codes=UNREADABLE),
    "no pictures": Corruption(spoil=_without(b"mdat"), codes=RIGHT_FOR_DAMAGE | {"MOOV_MISSING"}),
    "index of zeros": Corruption(spoil=_filled(b"moov", bytes), codes=UNREADABLE | {"NO_VIDEO_STREAM"}),
    "index of noise": Corruption(spoil=_filled(b"moov", _random), codes=UNREADABLE | {"NO_VIDEO_STREAM"}),
    "pictures of zeros": Corruption(spoil=_filled(b"mdat", bytes), codes=RIGHT_FOR_DAMAGE),
    "pictures of noise": Corruption(spoil=_filled(b"mdat", _random), codes=RIGHT_FOR_DAMAGE),
    "cut off in the index": Corruption(spoil=lambda content: content[:200], codes=UNREADABLE | {"NO_VIDEO_STREAM"}),
    "cut off before the pictures": Corruption(
        spoil=lambda content: content[: _boxes(content)[b"mdat"][0] + 8], codes=RIGHT_FOR_DAMAGE
    ),
    "cut off at a fifth": Corruption(spoil=_kept(0.2), codes=RIGHT_FOR_DAMAGE | UNREADABLE),
    "a picture by its name": Corruption(spoil=lambda content: content + b"0", codes=UNREADABLE, suffix=".png"),
    "track no video": Corruption(spoil=_renamed(b"vide", b"soun"), codes=UNREADABLE | {"NO_VIDEO_STREAM", "NO_FRAMES"}),
    "halves swapped": Corruption(
        spoil=lambda content: content[len(content) // 2 :] + content[: len(content) // 2], codes=UNREADABLE
    ),
    "upside down": Corruption(spoil=lambda content: content[::-1], codes=UNREADABLE),
}


def make_corrupt(good: Path, folder: Path) -> dict[str, frozenset[str]]:
    """Write one bad file of each kind; name → the reason codes that are right."""
    content, made = good.read_bytes(), {}
    for kind, corruption in CORRUPTIONS.items():
        path = folder / (kind.replace(" ", "_") + corruption.suffix)
        path.write_bytes(corruption.spoil(content))
        made[path.name] = corruption.codes
    return made
