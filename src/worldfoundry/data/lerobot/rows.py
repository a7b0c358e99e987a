"""Rows of Parquet files, read row group by row group and kept up to a number of bytes (least recently used go first)."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot.index import read_parquet


class RowCache:
    """Image columns (structs of bytes) are read when asked for by name and never kept."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.groups: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()
        self.ends: dict[Path, np.ndarray] = {}

    def __getstate__(self) -> dict[str, object]:
        """What is sent to another process: the limit, not the rows."""
        return {"limit_bytes": self.limit_bytes, "held_bytes": 0, "groups": OrderedDict(), "ends": {}}

    def read(self, path: Path, first: int, count: int, who: str, *, only: str | None = None) -> pa.Table:
        """Rows `first` … `first + count − 1`: all columns without images, or the column `only`. Raises DataError."""
        ends = self._ends(path)
        if first + count > ends[-1]:
            raise DataError(
                f"{str(path)!r} has {ends[-1]} rows; {who} needs rows up to {first + count}.", "Copy or download it again."
            )
        begin, end = np.searchsorted(ends, [first, first + count - 1], side="right")
        groups = [self._group(path, int(i), only) for i in range(begin, end + 1)]
        before = int(ends[begin - 1]) if begin else 0
        return pa.concat_tables(groups).slice(first - before, count)

    def _ends(self, path: Path) -> np.ndarray:
        """The number of rows up to the end of each row group."""
        if path not in self.ends:
            metadata = self._open(path).metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self.ends[path] = np.cumsum(sizes or [0])
        return self.ends[path]

    def _group(self, path: Path, i: int, only: str | None) -> pa.Table:
        if only is not None:
            file = self._open(path)
            return file.read_row_group(i, columns=[only] if only in file.schema_arrow.names else [])
        if (path, i) in self.groups:
            self.groups.move_to_end((path, i))
            return self.groups[path, i]
        file = self._open(path)
        table = file.read_row_group(i, columns=[f.name for f in file.schema_arrow if not pa.types.is_struct(f.type)])
        self.groups[path, i] = table
        self.held_bytes += table.nbytes
        while self.held_bytes > self.limit_bytes and len(self.groups) > 1:
            self.held_bytes -= self.groups.popitem(last=False)[1].nbytes
        return table

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError):
            read_parquet(path)  # says clearly what is wrong
            raise
