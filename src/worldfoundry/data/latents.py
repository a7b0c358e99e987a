"""Latents, indices and embeddings of clips on disk: key → named tensors and facts, written once, resumable.

    FOLDER/manifest.json       what the tensors are: the identity (tokenizer, dtype, options), and notes of the writer
    FOLDER/00000.safetensors   shards of bounded size, each put in place whole; a tensor's name there is `key/name`, and the
                               header holds the facts of its clips
    FOLDER/index.parquet       key → shard, tensor names, facts; written on `close` for other readers (the shards are the truth)

`worldfoundry tokenize` writes this, and trainings cache their latents in it. A process that is killed loses the entries
since the last finished shard and nothing else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, read_fields, write_json

FORMAT = "worldfoundry.tokens/1"
MANIFEST, INDEX = "manifest.json", "index.parquet"


class LatentCache:
    """Opens or begins the cache in `folder`; use it in a `with` block, or call `close` to write what is still in memory.

    `identity` is everything that decides what the tensors are. Raises DataError if the folder holds tensors of another
    identity (the first field that differs is named), or a damaged shard.
    """

    def __init__(self, folder: Path | str, *, identity: Mapping[str, Any], shard_mb: float = 64.0) -> None:
        self.folder, self.shard_bytes = Path(folder), shard_mb * 1e6
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity)))  # as it comes back from the file
        self._check_manifest()
        self._shards: dict[int, Any] = {}
        self._places: dict[str, tuple[int, list[str]]] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._waiting_bytes = 0
        for path in sorted(self.folder.glob("[0-9]*.safetensors")):
            self._add_shard(int(path.stem))

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Read a cache whatever its identity. Raises DataError if the folder is none."""
        if not (Path(folder) / MANIFEST).is_file():
            raise DataError(
                f"{str(folder)!r} holds no latents: it has no {MANIFEST!r}.", "Make them with `worldfoundry tokenize`."
            )
        manifest = read_fields(Path(folder) / MANIFEST)
        return cls(folder, identity=_identity_of(manifest, Path(folder)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self._places

    def __len__(self) -> int:
        return len(self._waiting) + len(self._places)

    def keys(self) -> list[str]:
        return sorted([*self._waiting, *self._places])

    def put(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
        """Add an entry; it is on disk when its shard is full or the cache is closed. Names hold no '/'; a key is put once.

        `facts` are JSON-able. An entry that is larger than a shard gets one of its own.
        """
        if key in self or not tensors or any("/" in name for name in tensors):
            raise ValueError(f"an entry is put once, with names without '/'; got {key!r}: {sorted(tensors)}")
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._waiting_bytes + size > self.shard_bytes:
            self.flush()
        self._waiting[key] = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._facts[key] = dict(facts or {})
        self._waiting_bytes += size

    def get(self, key: str) -> dict[str, Tensor]:
        """The tensors of an entry. Raises DataError if it is absent."""
        if key in self._waiting:
            return dict(self._waiting[key])
        shard, names = self._places[self._known(key)]
        return {name: self._shards[shard].get_tensor(f"{key}/{name}") for name in names}

    def facts(self, key: str) -> dict[str, Any]:
        """What was said of an entry. Raises DataError if it is absent."""
        return dict(self._facts[key if key in self._waiting else self._known(key)])

    def shard_keys(self, name: str) -> list[str]:
        """The keys of the shard file `name`, sorted."""
        return sorted(key for key, (number, _) in self._places.items() if self._path(number).name == name)

    def note(self, **notes: Any) -> None:
        """Say something in the manifest that is no part of the identity (which files failed)."""
        write_json(self.folder / MANIFEST, {**read_fields(self.folder / MANIFEST), **notes})

    def flush(self) -> None:
        """Write what waits as one shard. Raises ResourceError when the disk is full; the entries then stay in memory."""
        if not self._waiting:
            return
        number = max(self._shards, default=-1) + 1
        flat = {f"{key}/{name}": tensor for key, entry in self._waiting.items() for name, tensor in entry.items()}
        facts = json.dumps({key: self._facts[key] for key in self._waiting}, ensure_ascii=False)
        with atomic_path(self._path(number)) as temporary:
            # save_file would hide a full disk in an error of its own
            temporary.write_bytes(save(flat, metadata={"facts": facts}))
        self._waiting, self._waiting_bytes = {}, 0
        self._add_shard(number)

    def close(self) -> None:
        """Write what waits, and the index if it lacks an entry."""
        self.flush()
        if self._places and _rows_in(self.folder / INDEX) != len(self._places):
            rows = [
                {"key": key, "shard": self._path(number).name, "tensors": names, **self._facts[key]}
                for key, (number, names) in sorted(self._places.items())
            ]
            with atomic_path(self.folder / INDEX) as temporary:
                pq.write_table(pa.Table.from_pylist(rows), temporary)

    def _known(self, key: str) -> str:
        if key not in self._places:
            raise DataError(f"The cache {str(self.folder)!r} has no entry {key!r}.")
        return key

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _check_manifest(self) -> None:
        path = self.folder / MANIFEST
        if not path.is_file():
            if any(self.folder.glob("[0-9]*.safetensors")):
                raise DataError(
                    f"{str(self.folder)!r} holds shards, but no {MANIFEST!r} says what they are.",
                    "Put it back, or choose another folder.",
                )
            write_json(path, {"format": FORMAT, "identity": self.identity})
            return
        found = _identity_of(read_fields(path), self.folder)
        for name in sorted(found.keys() | self.identity.keys()):
            if found.get(name) != self.identity.get(name):
                raise DataError(
                    f"{str(self.folder)!r} was made with {name} {found.get(name)!r}, but {self.identity.get(name)!r} "
                    "is asked for.",
                    "Choose another folder, or remove this one.",
                )

    def _add_shard(self, number: int) -> None:
        path = self._path(number)
        try:
            shard = safe_open(path, framework="pt")
            facts = json.loads((shard.metadata() or {}).get("facts", "{}"))
        except (SafetensorError, OSError, json.JSONDecodeError) as error:
            raise DataError(
                f"The cache file {str(path)!r} is damaged: {error}.", "Remove it; its entries are made again."
            ) from error
        self._shards[number] = shard
        for full in shard.keys():  # noqa: SIM118  # not a dict
            key, name = full.rsplit("/", 1)
            self._places.setdefault(key, (number, []))[1].append(name)
            self._facts[key] = facts.get(key, {})


def _identity_of(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    identity = manifest.get("identity")
    if manifest.get("format") != FORMAT or not isinstance(identity, dict):
        raise DataError(
            f"{str(folder / MANIFEST)!r} has format {manifest.get('format')!r}; this version reads {FORMAT!r}.",
            "Choose another folder, or remove this one.",
        )
    return identity


def _rows_in(path: Path) -> int:
    """Rows of a Parquet file; -1 if it is absent or damaged."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return -1
