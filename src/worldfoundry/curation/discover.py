"""Where the files are: a folder, a glob, a list file, one file, or the same at an fsspec URL; and how to get at their bytes.

A row says `uri`, `bytes` and `modified` (what tells a changed file from an unchanged one), and the sidecars beside the
file: `episode_uri` (`<stem>.episode.parquet`) and `caption_uri` (`<stem>.txt`).
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from worldfoundry.core.errors import MediaError, UsageError
from worldfoundry.core.video_io import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from worldfoundry.curation.rows import Row

MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES


def discover(source: str, *, exclude: Path | None = None) -> list[Row]:
    """Candidate media files, sorted by uri, each once; hidden files and everything under `exclude` are left out.

    A line of a list file that names nothing becomes a row too (its quarantine reason will be MISSING).
    Raises UsageError if `source` does not exist or holds no video or image file.
    """
    if source.endswith(".txt"):
        rows = [row for entry in _list_entries(source) for row in _resolve(entry, missing_ok=True)]
    else:
        rows = _resolve(source, missing_ok=False)
    if exclude is not None:
        inside = str(exclude.resolve()) + os.sep
        rows = [row for row in rows if not row["uri"].startswith(inside)]
    unique = {row["uri"]: row for row in rows}
    if not unique:
        raise UsageError(
            f"{source!r} holds no video or image file.", f"Looked for: {' '.join(sorted(s[1:] for s in MEDIA_SUFFIXES))}."
        )
    return [unique[uri] for uri in sorted(unique)]


def is_image(uri: str) -> bool:
    return _suffix(uri) in IMAGE_SUFFIXES


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """The file itself if it is local, else a download that is removed afterwards. Raises MediaError MISSING, UNREADABLE."""
    if not is_url(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="worldfoundry-") as folder:
        path = Path(folder) / PurePosixPath(uri).name
        with open(path, "wb") as file:
            for block in blocks_of(uri):
                file.write(block)
        yield path


def sha256_of(uri: str) -> str:
    """SHA-256 of a file's content. Raises MediaError MISSING or UNREADABLE."""
    digest = hashlib.sha256()
    for block in blocks_of(uri):
        digest.update(block)
    return digest.hexdigest()


def is_url(uri: str) -> bool:
    return "://" in uri


def blocks_of(uri: str) -> Iterator[bytes]:
    """A file's content in pieces. Raises MediaError MISSING or UNREADABLE."""
    try:
        with _open(uri) as file:
            while block := file.read(1 << 20):
                yield block
    except FileNotFoundError as error:
        raise MediaError("MISSING", f"The file {uri!r} does not exist.") from error
    except OSError as error:
        raise MediaError("UNREADABLE", f"{uri!r} cannot be read: {error.strerror or error}.") from error


def _open(uri: str) -> Any:
    return fsspec.open(uri, "rb") if is_url(uri) else open(uri, "rb")


def _list_entries(source: str) -> list[str]:
    """Lines of a list file; relative paths count from the list's folder; empty lines and # comments are skipped."""
    if not is_url(source) and not Path(source).is_file():
        raise UsageError(f"The list file {source!r} does not exist.")
    lines = b"".join(blocks_of(source)).decode("utf-8", errors="replace").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if is_url(source):
        return entries
    return [entry if is_url(entry) else str(Path(source).parent / entry) for entry in entries]


def _resolve(source: str, *, missing_ok: bool) -> list[Row]:
    if is_url(source):
        return _resolve_url(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _local_rows(_walk(path))
    if path.exists():
        return _local_rows([path])
    if has_magic(source):
        return _local_rows(match for match in map(Path, glob(str(path), recursive=True)) if _is_media(match.name))
    if missing_ok:
        return [{"uri": str(path), "bytes": 0, "modified": "", "episode_uri": "", "caption_uri": ""}]
    raise UsageError(
        f"{source!r} does not exist.", "Name a folder, a file, a glob in quotes, a .txt list of files, or an fsspec URL."
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Media files below a folder; links are followed, but no folder is entered twice."""
    entered: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in entered else []
        if real not in entered:
            yield from (Path(here) / name for name in names if _is_media(name))
        entered.add(real)


def _local_rows(paths: Iterable[Path]) -> list[Row]:
    rows = []
    for path in paths:
        path = Path(os.path.abspath(path))
        if path.is_dir():
            continue
        facts = path.stat() if path.exists() else None  # a dangling link is listed, and will be quarantined as missing
        episode, caption = path.with_suffix(".episode.parquet"), path.with_suffix(".txt")
        rows.append(
            {
                "uri": str(path),
                "bytes": facts.st_size if facts else 0,
                "modified": str(facts.st_mtime_ns) if facts else "",
                "episode_uri": str(episode) if episode.is_file() else "",
                "caption_uri": str(caption) if caption.is_file() else "",
            }
        )
    return rows


def _resolve_url(source: str) -> list[Row]:
    try:
        filesystem, root = fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise UsageError(f"{source!r} needs a package that is not installed.", f"fsspec says: {error}") from error
    except ValueError as error:
        raise UsageError(f"{source!r} is not a URL that fsspec knows: {error}.") from error
    try:
        if has_magic(root):
            names = [name for name in filesystem.glob(root) if _is_media(name)]
        elif filesystem.isfile(root):
            names = [root]
        else:
            names = [name for name in filesystem.find(root) if _is_media(name)]
        folders = {name.rpartition("/")[0] for name in names}
        present = {name for folder in folders for name in filesystem.find(folder, maxdepth=1)}
        return [_remote_row(filesystem, name, present) for name in names]
    except OSError as error:
        raise UsageError(f"{source!r} cannot be listed: {error}.") from error


def _remote_row(filesystem: Any, name: str, present: set[str]) -> Row:
    facts, stem = filesystem.info(name), name[: len(name) - len(_suffix(name))]
    episode, caption = f"{stem}.episode.parquet", f"{stem}.txt"
    return {
        "uri": filesystem.unstrip_protocol(name),
        "bytes": int(facts.get("size") or 0),
        "modified": str(facts.get("ETag") or facts.get("mtime") or facts.get("created") or ""),
        "episode_uri": filesystem.unstrip_protocol(episode) if episode in present else "",
        "caption_uri": filesystem.unstrip_protocol(caption) if caption in present else "",
    }


def _is_media(name: str) -> bool:
    return not PurePosixPath(name).name.startswith(".") and _suffix(name) in MEDIA_SUFFIXES


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
