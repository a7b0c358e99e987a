"""Reads a GGUF file (version 3): its fields, and its tensors as numbers again.

GGUF is the single-file format of llama.cpp. Layout, little-endian: magic, version, number of tensors and of fields; the fields
(name, type, value); per tensor its name, sizes (fastest axis first), type and offset; padding; the data. A quantised tensor is
rows of blocks of 32 numbers: Q8_0 is a half-precision scale d and 32 signed bytes q, the numbers are d·q; Q4_1 is d, a minimum
m and 32 half-bytes, the numbers are d·q + m, the low halves holding the first 16.
Only what the embedded upsampler's file uses is read (F32, F16, Q4_1, Q8_0), so no further package is needed for it.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.errors import CheckpointError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True, kw_only=True)
class GGUF:
    """Fields by name (numbers, text, lists), and tensors by name as float32 arrays, slowest axis first."""

    fields: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]


def read_gguf(path: Path) -> GGUF:
    """Read a whole GGUF file. Raises CheckpointError for a file that is damaged, or of a version or number type not known here."""
    try:
        return _parse(_Cursor(Path(path).read_bytes()), path)
    except OSError as error:
        raise CheckpointError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError) as error:
        raise CheckpointError(f"The GGUF file {str(path)!r} is damaged ({error}).", "Get it again.") from error


def _parse(cursor: "_Cursor", path: Path) -> GGUF:
    magic, version = bytes(cursor.take("4B")), cursor.one("I")
    if magic != b"GGUF" or version != 3:
        raise CheckpointError(f"{str(path)!r} is no GGUF file of version 3.", "Give a file that starts with GGUF.")
    tensors, fields = cursor.take("QQ")
    values = {cursor.text(): cursor.value(cursor.one("I")) for _ in range(fields)}
    places = {}
    for _ in range(tensors):
        name, axes = cursor.text(), cursor.one("I")
        places[name] = (cursor.take(f"{axes}Q")[::-1], *cursor.take("IQ"))
    step = values.get("general.alignment", 32)
    start = -(-cursor.at // step) * step
    return GGUF(fields=values, tensors={name: _numbers(cursor.data, name, start, *place) for name, place in places.items()})


class _Cursor:
    """Bytes, and how far they have been read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def one(self, form: str) -> Any:
        return self.take(form)[0]

    def text(self) -> str:
        length = self.one("Q")
        if self.at + length > len(self.data):
            raise ValueError("a text runs past the end")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            inner, length = self.take("IQ")
            return [self.value(inner) for _ in range(length)]
        return self.one(_SCALARS[kind])


def _q8_0(blocks_NK: np.ndarray) -> np.ndarray:
    return blocks_NK[:, :2].view("<f2").astype(np.float32) * blocks_NK[:, 2:].view(np.int8)


def _q4_1(blocks_NK: np.ndarray) -> np.ndarray:
    scale, least = blocks_NK[:, :2].view("<f2").astype(np.float32), blocks_NK[:, 2:4].view("<f2").astype(np.float32)
    halves = np.concatenate([blocks_NK[:, 4:] & 15, blocks_NK[:, 4:] >> 4], axis=1)
    return scale * halves + least


def _plain(kind: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda blocks_NK: blocks_NK.view(kind).astype(np.float32)


# number type → (its name, numbers in a block, bytes of a block, bytes of N blocks → numbers)
_TYPES: dict[int, tuple[str, int, int, Callable[[np.ndarray], np.ndarray]]] = {
    0: ("F32", 1, 4, _plain("<f4")),
    1: ("F16", 1, 2, _plain("<f2")),
    3: ("Q4_1", 32, 20, _q4_1),
    8: ("Q8_0", 32, 34, _q8_0),
}


def _numbers(data: bytes, name: str, start: int, shape: tuple[int, ...], kind: int, offset: int) -> np.ndarray:
    if kind not in _TYPES:
        known = ", ".join(entry[0] for entry in _TYPES.values())
        raise CheckpointError(f"The GGUF tensor {name!r} has number type {kind!r}; known are {known}.")
    _, numbers, size, decode = _TYPES[kind]
    count = math.prod(shape) // numbers
    blocks_NK = np.frombuffer(data, np.uint8, count * size, start + offset).reshape(count, size)
    return decode(blocks_NK).reshape(shape)
