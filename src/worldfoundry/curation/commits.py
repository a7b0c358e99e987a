"""What finished stages leave on disk: one commit per stage in the folder of a source or of a clip.

`<stage>.json` vouches for a commit: its key (a hash of the stage's name, version, parameters and inputs), the columns that
were added, or why it failed, the seconds it took and the frames it decoded. Arrays lie beside it in `<stage>-<key>.npz`, files in
`<stage>-<key>.<ext>`. These come into place first, each by write, sync and rename, and the JSON last; so a commit is whole
or absent, whenever the process is killed. A stage's next commit replaces the one before.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, disk_full_is_clear
from worldfoundry.core.video_io import VideoInfo
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.plan import ClipPlan
from worldfoundry.curation.rows import Failure, Row
from worldfoundry.curation.shots import Transition
from worldfoundry.curation.sidecars import Episode

TYPES = {cls.__name__: cls for cls in (ClipPlan, Episode, FrameTable, Transition, VideoInfo)}


def to_plain(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON of a column; its arrays go into `arrays`, and only their names into the JSON. Raises DataError for other types."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[name := f"a{len(arrays)}"] = value
        return {"$array": name}
    if isinstance(value, Fraction | Path):
        return {"$" + ("fraction" if isinstance(value, Fraction) else "path"): str(value)}
    if is_dataclass(value) and type(value).__name__ in TYPES:
        plain = {f.name: to_plain(getattr(value, f.name), arrays) for f in fields(value)}
        return {"$type": type(value).__name__, "fields": plain}
    if isinstance(value, list | tuple):
        return [to_plain(item, arrays) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        plain = {name: to_plain(item, arrays) for name, item in value.items()}
        return {"$dict": plain} if any(name.startswith("$") for name in plain) else plain
    raise DataError(f"A stage returned {type(value).__name__}; rows hold JSON values, NumPy arrays, lists and dictionaries.")


def from_plain(value: Any, array_of: Callable[[str], np.ndarray]) -> Any:
    """The column that `to_plain` made JSON of; tuples have become lists."""
    if isinstance(value, list):
        return [from_plain(item, array_of) for item in value]
    if not isinstance(value, dict):
        return value
    if "$dict" in value:
        return {name: from_plain(item, array_of) for name, item in value["$dict"].items()}
    if "$array" in value:
        return array_of(value["$array"])
    if "$fraction" in value:
        return Fraction(value["$fraction"])
    if "$path" in value:
        return Path(value["$path"])
    if "$type" in value:
        return TYPES[value["$type"]](**{name: from_plain(item, array_of) for name, item in value["fields"].items()})
    return {name: from_plain(item, array_of) for name, item in value.items()}


class Commit:
    """One finished stage. A column is decoded, and its arrays are read, when it is asked for."""

    def __init__(self, facts: Row, arrays: Mapping[str, np.ndarray] | Path) -> None:
        self.facts, self._arrays = facts, arrays
        self.key: str = facts["key"]
        self.failure = Failure(**facts["failure"]) if facts["failure"] else None

    def __getitem__(self, column: str) -> Any:
        return from_plain(self.facts["columns"][column], self._array)

    def _array(self, name: str) -> np.ndarray:
        """Opens and closes the file each time: a run holds the commits of all its sources."""
        if not isinstance(self._arrays, Path):
            return self._arrays[name]
        with np.load(self._arrays, allow_pickle=False) as stored:
            return stored[name]

    @property
    def event(self) -> Row:
        return {name: self.facts.get(name) for name in ("stage", "wall_s", "cpu_s", "decoded_frames")}


class Commits:
    """The commits in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, stage: str, key: str | None = None) -> Commit | None:
        """The commit of a stage; None if there is none, or only one under another key."""
        try:
            facts = json.loads((self.folder / f"{stage}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if key is not None and facts["key"] != key:
            return None
        return Commit(facts, self.folder / f"{stage}-{facts['key']}.npz")

    def write(
        self,
        stage: str,
        key: str,
        *,
        columns: Row | None = None,
        failure: Failure | None = None,
        wall_s: float = 0.0,
        cpu_s: float = 0.0,
        decoded_frames: int = 0,
        staging: Path | None = None,
    ) -> Commit:
        """Commit a stage's columns and the files in `staging` (named `<anything>.<ext>`), or its failure."""
        arrays: dict[str, np.ndarray] = {}
        plain = {name: to_plain(value, arrays) for name, value in (columns or {}).items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        if arrays:
            with atomic_path(self.folder / f"{stage}-{key}.npz") as temporary:
                with open(temporary, "wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
        if staging is not None:
            self._take(staging, f"{stage}-{key}", keep=failure is None)
        facts = {
            "stage": stage,
            "key": key,
            "columns": plain,
            "failure": failure.to_dict() if failure else None,
            "wall_s": round(wall_s, 4),
            "cpu_s": round(cpu_s, 4),
            "decoded_frames": decoded_frames,
        }
        with atomic_path(self.folder / f"{stage}.json") as temporary:
            temporary.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        for path in self.folder.glob(f"{stage}-*"):
            if not path.name.startswith(f"{stage}-{key}."):
                path.unlink()
        # Decoded from its own JSON, so that going on and resuming see the very same values.
        return Commit(json.loads(json.dumps(facts)), arrays)

    def _take(self, staging: Path, name: str, *, keep: bool) -> None:
        with disk_full_is_clear(self.folder):
            for path in sorted(staging.iterdir()) if keep else ():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                path.replace(self.folder / f"{name}.{path.name.split('.', 1)[1]}")
            shutil.rmtree(staging)

    def forget(self, stage: str) -> None:
        """Let a stage run again."""
        (self.folder / f"{stage}.json").unlink(missing_ok=True)

    def files(self, stage: str, key: str) -> dict[str, Path]:
        """Extension → file of a commit."""
        name = f"{stage}-{key}."
        return {path.name[len(name) :]: path for path in sorted(self.folder.glob(f"{name}*"))}

    def sweep(self) -> None:
        """Remove what a killed run left half done: temporary names begin with a dot."""
        for path in self.folder.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
