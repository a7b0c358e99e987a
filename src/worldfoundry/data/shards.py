"""WebDataset shards: all files of a sample in one tar (`key.mp4`, `key.json`, `key.actions.npy`), with an index beside it.

The index `NNNNN.json` holds the tar's SHA-256 and size and, for every file of every sample, [offset, length], so a
sample is read by range without touching the rest. The same samples give the same bytes: headers carry no time, owner
or mode of the machine. Any WebDataset reader opens the tars without the index.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, read_json, write_json

FORMAT = "worldfoundry.shard/1"


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """What lies where in one tar. `samples` maps key → extension → (offset, length) in bytes."""

    path: Path
    sha256: str
    num_bytes: int
    samples: Mapping[str, Mapping[str, tuple[int, int]]]

    def read(self, key: str, extension: str) -> bytes:
        """One file of one sample. Raises DataError if it is not in the shard, or the tar is absent or shorter."""
        try:
            offset, length = self.samples[key][extension]
        except KeyError as error:
            held = ", ".join(sorted(self.samples.get(key, {}))) or "no such sample"
            raise DataError(f"{str(self.path)!r} holds no {key}.{extension} ({held}).") from error
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                content = file.read(length)
        except FileNotFoundError as error:
            raise missing_shard(self.path) from error
        if len(content) != length:
            raise DataError(
                f"The shard {str(self.path)!r} ends early: it was cut off or is still being copied.", "Copy it again."
            )
        return content


def missing_shard(path: Path) -> DataError:
    """The error for a tar or index that the tables name and the folder lacks."""
    return DataError(
        f"The shard {str(path)!r} is missing.", "Copy the whole dataset folder, or run the same `worldfoundry curate` again."
    )


class _HashingWriter(io.RawIOBase):
    """A file opened for writing that hashes what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.position = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sha256.update(data)
        self.position += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.position


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes | Path]]]) -> ShardIndex:
    """Write `path` (.tar) and its index (.json), each whole or absent, the index last: an index vouches for its tar.

    `samples` are (key, {extension: content or file}). A key has no dot; extensions come in alphabetical order.
    Raises DataError for a bad or repeated key, ResourceError when the disk is full.
    """
    places: dict[str, dict[str, tuple[int, int]]] = {}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        writer = _HashingWriter(file)
        with tarfile.open(fileobj=writer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, files in samples:
                if not key or "." in key or "/" in key or key in places:
                    raise DataError(f"{key!r} cannot be a sample key: it must be unique, without '.' and '/'.")
                places[key] = {extension: _add(tar, f"{key}.{extension}", files[extension]) for extension in sorted(files)}
    index = ShardIndex(path=path, sha256=writer.sha256.hexdigest(), num_bytes=writer.position, samples=places)
    write_json(
        path.with_suffix(".json"), {"format": FORMAT, "sha256": index.sha256, "bytes": index.num_bytes, "samples": places}
    )
    return index


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> tuple[int, int]:
    info = tarfile.TarInfo(name)  # mtime 0, mode 0644, no owner
    info.size = content.stat().st_size if isinstance(content, Path) else len(content)
    offset = tar.offset + tarfile.BLOCKSIZE
    with open(content, "rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        tar.addfile(info, file)
    return offset, info.size


def read_index(path: Path) -> ShardIndex:
    """The index of the tar at `path`. Raises DataError if it is missing or of another format."""
    if not path.with_suffix(".json").is_file():
        raise missing_shard(path.with_suffix(".json"))
    values = read_json(path.with_suffix(".json"))
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError(f"{str(path.with_suffix('.json'))!r} is not a shard index of format {FORMAT!r}.")
    samples = {key: {ext: (int(o), int(n)) for ext, (o, n) in files.items()} for key, files in values["samples"].items()}
    return ShardIndex(path=path, sha256=values["sha256"], num_bytes=values["bytes"], samples=samples)
