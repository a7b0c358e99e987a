"""Files at URLs are fetched once per run: to be hashed, analysed and encoded, they are read from a copy on disk.

Copies lie in the work folder of the dataset, where all workers find them, and are removed as soon as the run is done with a file.
What a killed run left is removed by the next one.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from worldfoundry.core.files import atomic_path
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.discover import blocks_of, is_url, local_copy, sha256_of
from worldfoundry.curation.store import Store

LOOK_AGAIN = 64  # fetches after which the size of the folder is measured anew: others write there too


class Copies:
    """Copies of files at URLs below `folder`, made while they take less than `cap_gb` together. Local files are used as they are."""

    def __init__(self, folder: Path, cap_gb: float) -> None:
        self.folder, self.cap_gb = folder, cap_gb
        self._fetched, self._bytes = 0, 0

    @contextmanager
    def local(self, uri: str) -> Iterator[Path]:
        """The file on this machine; beyond the cap a copy that goes at the end of the block. Raises MediaError, ResourceError."""
        place = self._place(uri)
        if not is_url(uri):
            yield Path(uri)
        elif place.is_file() or self._fetch(uri, place):
            yield place
        else:
            with local_copy(uri) as path:
                yield path

    def sha256(self, uri: str) -> str:
        """SHA-256 of a file's content, which is fetched for what comes next too. Raises MediaError MISSING or UNREADABLE."""
        if is_url(uri) and self._has_room():
            with self.local(uri) as path:
                return sha256_of(str(path))
        return sha256_of(uri)

    def forget(self, uris: Iterable[str]) -> None:
        """Remove the copies of files that are not needed any more."""
        for uri in filter(is_url, uris):
            place = self._place(uri)
            if place.is_file():
                self._bytes -= place.stat().st_size
                place.unlink()
                place.parent.rmdir()

    def _place(self, uri: str) -> Path:
        return self.folder / hashlib.sha256(uri.encode()).hexdigest()[:24] / PurePosixPath(uri).name

    def _fetch(self, uri: str, place: Path) -> bool:
        """Whether there was room for it."""
        if not self._has_room():
            return False
        with atomic_path(place) as temporary, open(temporary, "wb") as file:
            for block in blocks_of(uri):
                file.write(block)
        self._fetched += 1
        self._bytes += place.stat().st_size
        return True

    def _has_room(self) -> bool:
        if self._fetched % LOOK_AGAIN == 0:
            self._bytes = sum(path.stat().st_size for path in self.folder.glob("*/*") if path.is_file())
        return self._bytes < self.cap_gb * 1e9


def copies_of(config: CurateConfig) -> Copies:
    return Copies(Store(config.out).fetched, config.fetch_gb)
