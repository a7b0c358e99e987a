"""Writes GGUF files, which nothing in the package does."""

import struct

import pytest

UINT32, FLOAT32, BOOL, TEXT, ARRAY = 4, 6, 7, 8, 9


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(name, value):
    if isinstance(value, bool):
        return text(name) + struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return text(name) + struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return text(name) + struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return text(name) + struct.pack("<I", TEXT) + text(value)
    return text(name) + struct.pack("<IIQ", ARRAY, TEXT, len(value)) + b"".join(map(text, value))


def write_gguf(path, fields, tensors):
    """`tensors`: name → (shape, number type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(field(*pair) for pair in fields.items())
    body = b""
    for name, (shape, kind, data) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(body))
        body += data + b"\0" * (-len(data) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


@pytest.fixture(scope="session")
def gguf_writer():
    """`(path, fields, {name: (shape, number type, bytes)}) -> path`."""
    return write_gguf
