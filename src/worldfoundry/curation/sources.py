"""From files to sources: a source is a content, known by its hash, wherever it lies and however many copies there are."""

import json
from collections.abc import Iterable
from pathlib import Path

from worldfoundry.core.progress import progress
from worldfoundry.curation.discover import is_image
from worldfoundry.curation.executors import Executor
from worldfoundry.curation.fetch import Copies
from worldfoundry.curation.rows import Failure, Row, quarantine_row
from worldfoundry.curation.sidecars import read_caption
from worldfoundry.curation.store import Store
from worldfoundry.curation.work import Fingerprint


class Fingerprints:
    """SHA-256 of contents, remembered by (uri, size, time of change) in a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                key, digest = json.loads(line)
            except ValueError:  # the last line of a killed run
                continue
            self.known[key] = digest

    def get(self, row: Row) -> str | None:
        return self.known.get(self._key(row))

    def add(self, row: Row, digest: str) -> None:
        self.known[self._key(row)] = digest
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps([self._key(row), digest]))

    def _key(self, row: Row) -> str:
        return f"{row['uri']}|{row['bytes']}|{row['modified']}"


def fingerprint(rows: Iterable[Row], store: Store, executor: Executor, copies: Copies) -> tuple[list[Row], list[Row]]:
    """(one row per distinct content with its `duplicates`, quarantine rows of files that cannot be read).

    A source's id is the first 32 hex digits of its SHA-256. Of several files with the same content, the first one with a
    sidecar speaks for all.
    """
    prints, rows = Fingerprints(store.work / "fingerprints.jsonl"), list(rows)
    unreadable, new = _hash_new(rows, prints, executor, copies)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        digest = new.get(row["uri"]) or prints.get(row)
        if digest is not None and row["uri"] not in unreadable:
            groups.setdefault(digest, []).append(row)
    sources = []
    for source_id, group in groups.items():
        first, *others = sorted(group, key=_speaks_first)
        copies.forget(row["uri"] for row in others)
        sources.append(
            {
                **first,
                "source_id": source_id,
                "image": is_image(first["uri"]),
                "duplicates": sorted(row["uri"] for row in others),
                "episode_hash": copies.sha256(first["episode_uri"])[:16] if first["episode_uri"] else "",
                "caption_hash": copies.sha256(first["caption_uri"])[:16] if first["caption_uri"] else "",
                "caption": _caption(first["caption_uri"], copies),
            }
        )
    return sorted(sources, key=lambda row: row["uri"]), list(unreadable.values())


def _hash_new(
    rows: list[Row], prints: Fingerprints, executor: Executor, copies: Copies
) -> tuple[dict[str, Row], dict[str, str]]:
    """(quarantine rows of unreadable files by uri, source ids of files hashed now by uri)."""
    todo = {row["uri"]: row for row in rows if prints.get(row) is None}
    unreadable, new = {}, {}
    if not todo:
        return unreadable, new
    with progress("fingerprint", total=len(todo), unit="files") as bar:
        for found in executor(Fingerprint(copies=copies), list(todo.values())):
            row = todo[found["uri"]]
            if found["code"]:
                failure = Failure(stage="fingerprint", code=found["code"], message=found["message"])
                unreadable[row["uri"]] = quarantine_row(row, None, failure)
            else:
                new[row["uri"]] = found["sha256"][:32]
                prints.add(row, new[row["uri"]])
            bar.advance()
    return unreadable, new


def _caption(uri: str, copies: Copies) -> str:
    if not uri:
        return ""
    with copies.local(uri) as path:
        return read_caption(path)


def _speaks_first(row: Row) -> tuple[bool, bool, str]:
    return not (row["episode_uri"] or row["caption_uri"]), is_image(row["uri"]), row["uri"]
