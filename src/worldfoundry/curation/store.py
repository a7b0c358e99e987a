"""The folder of a clip dataset and what makes a killed run resumable.

OUT/config.yaml                     the parameters that made it
OUT/work/sources.json               what the last run found in its input
OUT/work/<source>/<stage>.json      one commit per stage of a source (see `commits`)
OUT/work/<source>/clips/<clip>/     the same per clip; the files of a sample lie here until they are packed, its
                                    thumbnails stay for the report
OUT/work/.fetched/                  copies of files at URLs, while a run needs them
OUT/work/packed/<bucket>/           what is in each shard, and which commits it came from
OUT/shards/<bucket>/                WebDataset tars
OUT/tables/  OUT/report.html
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldfoundry.core.errors import UsageError
from worldfoundry.core.files import write_json
from worldfoundry.curation.commits import Commits
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.rows import Row

FORMAT = "worldfoundry.curation/2"
REDO = "Choose another --out, or add --overwrite to discard it and start anew."


class Store:
    """Paths and bookkeeping below OUT."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.work, self.shards, self.tables, self.report = out / "work", out / "shards", out / "tables", out / "report.html"
        self.packed, self.fetched = self.work / "packed", self.work / ".fetched"

    @contextmanager
    def opened(self, config: CurateConfig) -> Iterator[None]:
        """Take the folder for this run. Raises UsageError if it is in use, not ours, or of an older format."""
        self._check_ours()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{str(self.out)!r} cannot be created: {error.strerror}.", "Choose another --out.") from error
        with open(self.work / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"Another curation is writing to {str(self.out)!r}.", "Wait for it, or choose another --out."
                ) from error
            if config.overwrite:
                self._discard()
            self._check_format()
            self._sweep()
            config.replace(overwrite=False).save(self.out / "config.yaml")
            try:
                yield
            finally:
                shutil.rmtree(self.fetched, ignore_errors=True)

    def source_folder(self, source_id: str) -> Path:
        return self.work / source_id

    def clip_folder(self, source_id: str, clip_id: str) -> Path:
        return self.work / source_id / "clips" / clip_id

    def clip_commits(self, source_id: str, clip_id: str) -> Commits:
        return Commits(self.clip_folder(source_id, clip_id))

    def strip(self, source_id: str, clip_id: str) -> Path:
        """A clip's thumbnails."""
        found = sorted(self.clip_folder(source_id, clip_id).glob("*.strip.webp"))
        return found[0] if found else self.clip_folder(source_id, clip_id) / "no.strip.webp"

    def save_sources(self, sources: list[Row], unreadable: list[Row], files: int) -> None:
        write_json(self.work / "sources.json", {"sources": sources, "unreadable": unreadable, "files": files})

    def load_sources(self) -> tuple[list[Row], list[Row], int]:
        """What the last run found. Raises UsageError if there was none."""
        path = self.work / "sources.json"
        if not path.is_file():
            raise UsageError(
                f"{str(self.out)!r} holds no curation to go on with: it has no 'work/sources.json'.",
                f"Make one with: worldfoundry curate INPUT --out {self.out}",
            )
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["sources"], found["unreadable"], found["files"]

    def _check_ours(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{str(self.out)!r} is a file, not a folder.", "Choose another --out.")
        strangers = [path.name for path in self.out.iterdir()] if self.out.is_dir() else []
        if strangers and not (self.work.is_dir() or (self.tables / "clips.parquet").is_file()):
            raise UsageError(
                f"{str(self.out)!r} holds other files ({', '.join(sorted(strangers)[:3])}) and no clip dataset.",
                "Choose a new or empty folder for --out.",
            )

    def _check_format(self) -> None:
        path = self.work / "format.json"
        found = json.loads(path.read_text(encoding="utf-8"))["format"] if path.is_file() else None
        older = found is None and next(self.work.glob("*/commit.json"), None) is not None
        if older or found not in (None, FORMAT):
            raise UsageError(
                f"{str(self.out)!r} was made by another version of curate; it can be read, not gone on with.", REDO
            )
        if found is None:
            write_json(path, {"format": FORMAT})

    def _discard(self) -> None:
        for folder in (self.shards, self.tables):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (*self.work.iterdir(), self.report, self.out / "config.yaml"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed run left half done: temporary names begin with a dot. A source's own are removed when it runs."""
        for folder in (self.work, *self.shards.glob("*"), *self.packed.glob("*"), self.tables, self.out):
            for path in folder.glob(".*"):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != ".lock":
                    path.unlink()
