"""What lies beside a video: an episode table (actions and states per frame) and a caption; both are cut along with the clip.

Axis legend: N rows of the table, T frames, A width of an action or state vector.

`<stem>.episode.parquet` has columns `timestamp` (float64, seconds from the first frame) and `action` (list of float32),
optionally `frame_index` and `state`; its schema metadata `worldfoundry` is JSON with `action_names`, `caption`, and
whatever else describes the episode. `<stem>.txt` is a caption and wins over the table's.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.curation.rows import SourceError


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One validated table. `states_NA` is None if the table has none; `about` is the metadata."""

    times_s_N: np.ndarray
    actions_NA: np.ndarray
    states_NA: np.ndarray | None
    about: dict[str, Any] = field(default_factory=dict)

    def rows_at(self, times_s_T: np.ndarray) -> np.ndarray:
        """Index of the row nearest in time to each frame."""
        after = np.clip(np.searchsorted(self.times_s_N, times_s_T), 1, max(len(self.times_s_N) - 1, 1))
        after = np.minimum(after, len(self.times_s_N) - 1)
        before = np.maximum(after - 1, 0)
        nearer_before = times_s_T - self.times_s_N[before] <= self.times_s_N[after] - times_s_T
        return np.where(nearer_before, before, after)


def read_episode(path: Path) -> Episode:
    """Read and validate a table by itself. Raises SourceError (SIDECAR_UNREADABLE, _COLUMNS, _NOT_FINITE, _TIMES)."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            "SIDECAR_UNREADABLE", f"The sidecar {path.name!r} is not Parquet: {str(error).split('.')[0]}."
        ) from error
    for name in ("timestamp", "action"):
        if name not in table.column_names:
            raise SourceError("SIDECAR_COLUMNS", f"The sidecar {path.name!r} has no column {name!r}.")
    times_s_N = _matrix(table, "timestamp", path)
    if len(times_s_N) == 0:
        raise SourceError("SIDECAR_SHORT", f"The sidecar {path.name!r} has no rows.")
    if (np.diff(times_s_N) <= 0).any():
        row = int(np.argmax(np.diff(times_s_N) <= 0)) + 1
        raise SourceError("SIDECAR_TIMES", f"The timestamps of {path.name!r} do not rise at row {row}.")
    return Episode(
        times_s_N=times_s_N,
        actions_NA=_matrix(table, "action", path).astype(np.float32),
        states_NA=_matrix(table, "state", path).astype(np.float32) if "state" in table.column_names else None,
        about=_metadata(table, path),
    )


def check_episode(episode: Episode, times_s_T: np.ndarray, fps: float) -> None:
    """Compare a table with its video. Raises SourceError SIDECAR_SHORT or SIDECAR_TIMES."""
    if len(episode.times_s_N) < len(times_s_T):
        raise SourceError(
            "SIDECAR_SHORT", f"The sidecar has {len(episode.times_s_N)} rows, fewer than the video's {len(times_s_T)} frames."
        )
    off_s = np.abs(episode.times_s_N[episode.rows_at(times_s_T)] - times_s_T)
    if off_s.max() > 0.5 / fps + 1e-3:
        frame = int(off_s.argmax())
        raise SourceError(
            "SIDECAR_TIMES",
            f"Frame {frame} is at {times_s_T[frame]:.3f} s, but the nearest row of the sidecar is {off_s.max():.3f} s away.",
        )


def write_episode(clip: Path, episode: Episode, times_s_T: np.ndarray) -> None:
    """Actions and states of the rows nearest to each frame, float32, beside the clip. Times count from the video's first frame."""
    rows_T = episode.rows_at(times_s_T)
    for name, values_NA in (("actions", episode.actions_NA), ("state", episode.states_NA)):
        if values_NA is not None:
            with open(clip.with_suffix(f".{name}.npy"), "wb") as file:
                np.save(file, np.ascontiguousarray(values_NA[rows_T], dtype=np.float32))


def read_caption(path: Path) -> str:
    """The text with runs of white space made single spaces."""
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split())


def _matrix(table: pa.Table, name: str, path: Path) -> np.ndarray:
    """A numeric column as float64 (N,), a list column as (N, A). Raises SourceError for ragged, empty or not finite values."""
    try:
        array = np.array(table.column(name).to_pylist(), dtype=np.float64)
    except (ValueError, TypeError) as error:
        message = f"Column {name!r} of {path.name!r} must hold numbers, or lists of one length."
        raise SourceError("SIDECAR_COLUMNS", message) from error
    if array.ndim != (1 if name == "timestamp" else 2) and table.num_rows:
        raise SourceError("SIDECAR_COLUMNS", f"Column {name!r} of {path.name!r} has {array.ndim - 1} list levels.")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise SourceError("SIDECAR_NOT_FINITE", f"Column {name!r} of {path.name!r} is NaN, null or infinite in row {row}.")
    return array


def _metadata(table: pa.Table, path: Path) -> dict[str, Any]:
    text = (table.schema.metadata or {}).get(b"worldfoundry", b"{}")
    try:
        about = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError("SIDECAR_UNREADABLE", f"The metadata 'worldfoundry' of {path.name!r} is not JSON.") from error
    if not isinstance(about, dict):
        raise SourceError("SIDECAR_UNREADABLE", f"The metadata 'worldfoundry' of {path.name!r} must be a JSON object.")
    return about
