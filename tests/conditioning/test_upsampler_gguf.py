"""GGUF files written here block by block: every number type comes back, and damage is one line."""

import struct

import numpy as np
import pytest

from worldfoundry.conditioning.upsampler_gguf import read_gguf
from worldfoundry.core.errors import CheckpointError


def plain(array):
    return array.shape, 0, array.astype("<f4").tobytes()


def test_every_number_type(tmp_path, gguf_writer):
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    q8 = np.arange(-16, 16, dtype=np.int8)
    halves = np.arange(32) % 16  # number i lies in byte i % 16, low half for the first 16
    q4 = struct.pack("<ee", 0.25, -2.0) + bytes(
        int(a) | int(b) << 4 for a, b in zip(halves[:16], halves[16:][::-1], strict=True)
    )
    tensors = {
        "f32": plain(numbers),
        "f16": ((2, 3), 1, numbers.astype("<f2").tobytes()),
        "q8_0": ((1, 32), 8, struct.pack("<e", 0.5) + q8.tobytes()),
        "q4_1": ((2, 32), 3, q4 * 2),
    }
    found = read_gguf(gguf_writer(tmp_path / "a.gguf", {"name": "toy", "size": 3, "rate": 0.5, "on": True}, tensors))
    assert found.fields == {"name": "toy", "size": 3, "rate": 0.5, "on": True}
    assert np.array_equal(found.tensors["f32"], numbers)
    assert np.array_equal(found.tensors["f16"], numbers.astype(np.float16))
    assert np.array_equal(found.tensors["q8_0"], [q8 * 0.5])
    assert np.array_equal(found.tensors["q4_1"], [np.concatenate([halves[:16], halves[16:][::-1]]) * 0.25 - 2] * 2)


def test_lists_and_alignment(tmp_path, gguf_writer):
    fields = {"general.alignment": 64, "words": ["a", "", "Ġé"]}
    path = gguf_writer(tmp_path / "a.gguf", fields, {})
    assert read_gguf(path).fields == fields


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"GGML" + raw[4:], "no GGUF file of version 3"),
        (lambda raw: raw[:4] + b"\2" + raw[5:], "no GGUF file of version 3"),
        (lambda raw: raw[:-1], "is damaged"),
        (lambda raw: raw[:30], "is damaged"),
        (lambda raw: b"", "is damaged"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, damage, message, gguf_writer):
    path = gguf_writer(tmp_path / "a.gguf", {"name": "toy"}, {"x": plain(np.ones((2, 16)))})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        read_gguf(path)


def test_another_number_type_is_named(tmp_path, gguf_writer):
    path = gguf_writer(tmp_path / "a.gguf", {}, {"x": ((1, 256), 14, bytes(210))})
    with pytest.raises(CheckpointError, match="'x' has number type 14; known are F32, F16, Q4_1, Q8_0"):
        read_gguf(path)


def test_an_absent_file_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_gguf(tmp_path / "absent.gguf")
