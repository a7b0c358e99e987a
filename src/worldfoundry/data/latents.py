"""A cache of tensors on disk (latents of clips, embeddings of captions): key → named tensors, written once, resumable.

    FOLDER/manifest.json       what the tensors are of: one identity string (hashes of tokenizer, data and windows)
    FOLDER/00000.safetensors   shards, each put in place whole; a tensor's name there is `key/name`

A process that is killed loses the entries since the last finished shard and nothing else.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, read_fields, write_json

FORMAT = "worldfoundry.latents/1"


class LatentCache:
    """Opens or begins the cache in `folder`; use it in a `with` block, or call `close` to write what is still in memory.

    Raises DataError if the folder holds tensors of another identity, or a damaged shard.
    """

    def __init__(self, folder: Path | str, *, identity: str, shard_mb: float = 64.0) -> None:
        self.folder, self.identity, self.shard_bytes = Path(folder), identity, shard_mb * 1e6
        self._check_manifest()
        self._shards: dict[int, Any] = {}
        self._places: dict[str, tuple[int, list[str]]] = {}
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._waiting_bytes = 0
        for path in sorted(self.folder.glob("[0-9]*.safetensors")):
            self._add_shard(int(path.stem))

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

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Add an entry; it is on disk when its shard is full or the cache is closed. Names hold no '/'; a key is put once."""
        if key in self or not tensors or any("/" in name for name in tensors):
            raise ValueError(f"an entry is put once, with names without '/'; got {key!r}: {sorted(tensors)}")
        self._waiting[key] = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._waiting_bytes += sum(tensor.nbytes for tensor in tensors.values())
        if self._waiting_bytes >= self.shard_bytes:
            self.flush()

    def get(self, key: str) -> dict[str, Tensor]:
        """The tensors of an entry. Raises DataError if it is absent."""
        if key in self._waiting:
            return dict(self._waiting[key])
        if key not in self._places:
            raise DataError(f"The cache {str(self.folder)!r} has no entry {key!r}.")
        shard, names = self._places[key]
        return {name: self._shards[shard].get_tensor(f"{key}/{name}") for name in names}

    def flush(self) -> None:
        """Write what waits as one shard. Raises ResourceError when the disk is full; the entries then stay in memory."""
        if not self._waiting:
            return
        number = max(self._shards, default=-1) + 1
        flat = {f"{key}/{name}": tensor for key, entry in self._waiting.items() for name, tensor in entry.items()}
        with atomic_path(self._path(number)) as temporary:
            temporary.write_bytes(save(flat))  # save_file would hide a full disk in an error of its own
        self._waiting, self._waiting_bytes = {}, 0
        self._add_shard(number)

    def close(self) -> None:
        self.flush()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _check_manifest(self) -> None:
        path = self.folder / "manifest.json"
        if not path.is_file():
            write_json(path, {"format": FORMAT, "identity": self.identity})
            return
        manifest = read_fields(path)
        if manifest.get("format") != FORMAT or manifest.get("identity") != self.identity:
            raise DataError(
                f"{str(self.folder)!r} caches {manifest.get('identity')!r}, but {self.identity!r} is asked for.",
                "The tokenizer, the data or the windows changed: remove the folder, or choose another.",
            )

    def _add_shard(self, number: int) -> None:
        path = self._path(number)
        try:
            shard = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"The cache file {str(path)!r} is damaged: {error}.", "Remove it; its entries are made again."
            ) from error
        self._shards[number] = shard
        for full in shard.keys():  # noqa: SIM118  # not a dict
            key, name = full.rsplit("/", 1)
            self._places.setdefault(key, (number, []))[1].append(name)
