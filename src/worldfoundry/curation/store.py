"""The folder of a clip dataset and what makes a killed run resumable.

OUT/config.yaml       the parameters that made it
OUT/work/<source>/    one folder per finished source, put in place by a single rename: commit.json and, until they
                      are packed, the files of its samples; thumbnails stay for the report
OUT/shards/<bucket>/  WebDataset tars, never changed once written
OUT/tables/  OUT/report.html
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldfoundry.core.config import read_yaml
from worldfoundry.core.errors import ConfigError, UsageError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.rows import Row
from worldfoundry.data.shards import read_index


class Store:
    """Paths and commits below OUT."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.work, self.shards, self.tables, self.report = out / "work", out / "shards", out / "tables", out / "report.html"

    @contextmanager
    def opened(self, config: CurateConfig) -> Iterator[None]:
        """Take the folder for this run. Raises UsageError if it is in use, not ours, or made with other parameters."""
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
            self._check_parameters(config)
            self._sweep()
            config.replace(overwrite=False).save(self.out / "config.yaml")
            yield

    def source_folder(self, source_id: str) -> Path:
        return self.work / source_id

    def commit(self, source_id: str) -> Row | None:
        """What an earlier run committed for a source; None if it did not finish it."""
        path = self.work / source_id / "commit.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def sample_files(self, source_id: str, key: str) -> dict[str, Path]:
        """Extension → file of a sample that is not packed yet. The thumbnail strip is not part of the sample."""
        files = sorted((self.work / source_id).glob(f"{key}.*"))
        return {path.name[len(key) + 1 :]: path for path in files if not path.name.endswith(".strip.webp")}

    def strip(self, source_id: str, key: str) -> Path:
        return self.work / source_id / f"{key}.strip.webp"

    def packed(self) -> dict[str, str]:
        """Key → shard path relative to OUT, of every sample in a finished shard."""
        tars = sorted(path for path in self.shards.glob("*/*.tar") if path.with_suffix(".json").is_file())
        return {key: str(tar.relative_to(self.out)) for tar in tars for key in read_index(tar).samples}

    def _check_ours(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{str(self.out)!r} is a file, not a folder.", "Choose another --out.")
        strangers = [path.name for path in self.out.iterdir()] if self.out.is_dir() else []
        if strangers and not (self.work.is_dir() or (self.tables / "clips.parquet").is_file()):
            raise UsageError(
                f"{str(self.out)!r} holds other files ({', '.join(sorted(strangers)[:3])}) and no clip dataset.",
                "Choose a new or empty folder for --out.",
            )

    def _check_parameters(self, config: CurateConfig) -> None:
        path = self.out / "config.yaml"
        if not path.is_file():
            return
        try:
            old = CurateConfig.from_dict(read_yaml(path), where=str(path)).parameters()
        except ConfigError as error:
            raise UsageError(f"{str(path)!r} is not from this version of curate: {error.message}", REDO) from error
        new = config.parameters()
        changes = [f"{name} {was!r} -> {now!r}" for name, was, now in _differences(old, new)]
        if changes:
            raise UsageError(f"{str(self.out)!r} was made with other parameters: {', '.join(changes)}.", REDO)

    def _discard(self) -> None:
        for folder in (self.shards, self.tables):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (*self.work.iterdir(), self.report, self.out / "config.yaml"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed run left half done: temporary names begin with a dot."""
        leftovers = [*self.work.glob(".*"), *self.shards.glob("*/.*"), *self.tables.glob(".*"), *self.out.glob(".*")]
        for path in leftovers:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()


REDO = "Choose another --out, or add --overwrite to discard it and start anew."


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    rows = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            rows += _differences(was, now, f"{prefix}{name}.")
        elif was != now:
            rows.append((prefix + name, was, now))
    return rows
