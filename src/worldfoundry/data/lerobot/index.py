"""Where each episode of a v3.0 folder lies: `meta/episodes/*` and `meta/tasks.parquet`, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot.layout import TASKS, Info

NEEDED = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """An episode's stretch of a video file, in seconds from the file's first frame; `end_s` is None where nothing says it."""

    path: Path
    start_s: float
    end_s: float | None


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """Where one episode lies. `start` is its first frame counted over the dataset, `row` its first row in the data file."""

    index: int
    length: int
    start: int
    tasks: tuple[str, ...]
    data: Path
    row: int
    videos: Mapping[str, VideoSpan]


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns; a damaged or absent one is a DataError that names it."""
    try:
        return pq.ParquetFile(path).read(columns)  # read_table would take a folder called `a=b` for a column
    except FileNotFoundError as error:
        raise DataError(f"The file {str(path)!r} is missing.", "Copy or download the whole dataset again.") from error
    except (pa.ArrowInvalid, OSError) as error:
        what = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{str(path)!r} is not a readable Parquet file: {what}.", "Copy or download it again.") from error


def read_episode_table(folder: Path, info: Info, prefixes: tuple[str, ...] = ("data/", "videos/", "dataset_")) -> pa.Table:
    """The first `total_episodes` rows of all `meta/episodes` files in order, without the columns of other prefixes."""
    files = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(f"{str(folder)!r} has no meta/episodes.", "Copy or download the whole dataset again.")
    tables = []
    for file in files:
        names = read_schema(file).names
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise DataError(f"{str(file)!r} lacks the column(s) {', '.join(missing)}.", "Convert the dataset again.")
        chosen = [name for name in names if name in ("episode_index", "length", "tasks") or name.startswith(prefixes)]
        tables.append(read_parquet(file, chosen))
    table = pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index")
    table = table.slice(0, info.num_episodes)  # a writer that was stopped may have left rows beyond
    if table["episode_index"].to_pylist() != list(range(info.num_episodes)):
        raise DataError(
            f"info.json of {str(folder)!r} promises {info.num_episodes} episodes, meta/episodes lists {table.num_rows}.",
            "Copy or download the whole dataset again.",
        )
    return table


def read_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file without reading it. Raises DataError."""
    try:
        return pq.read_schema(path)
    except FileNotFoundError as error:
        raise DataError(f"The file {str(path)!r} is missing.", "Copy or download the whole dataset again.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{str(path)!r} is not a readable Parquet file.", "Copy or download it again.") from error


def read_entries(folder: Path, info: Info) -> list[EpisodeEntry]:
    """One entry per episode of a v3.0 folder. Raises DataError when the index lacks something or disagrees with itself."""
    rows = read_episode_table(folder, info).to_pylist()
    cameras = [key for key, feature in info.features.items() if feature.dtype == "video"]
    first_of_file: dict[tuple[int, int], int] = {}
    entries = []
    for row in rows:
        slot, start, length = (row["data/chunk_index"], row["data/file_index"]), row["dataset_from_index"], row["length"]
        if row["dataset_to_index"] - start != length:
            raise DataError(f"Episode {row['episode_index']} of {str(folder)!r} has another length than its rows.")
        first = first_of_file.setdefault(slot, start)
        entries.append(
            EpisodeEntry(
                index=row["episode_index"],
                length=length,
                start=start,
                tasks=tuple(row.get("tasks") or ()),
                data=folder / info.data_path.format(chunk_index=slot[0], file_index=slot[1]),
                row=start - first,
                videos={key: span for key in cameras if (span := _span(folder, info, key, row)) is not None},
            )
        )
    return entries


def _span(folder: Path, info: Info, key: str, row: dict[str, Any]) -> VideoSpan | None:
    chunk, file, start = (row.get(f"videos/{key}/{name}") for name in ("chunk_index", "file_index", "from_timestamp"))
    if chunk is None or file is None or start is None:
        return None
    path = folder / info.video_path.format(video_key=key, chunk_index=int(chunk), file_index=int(file))
    return VideoSpan(path=path, start_s=float(start), end_s=row.get(f"videos/{key}/to_timestamp"))


def read_tasks(folder: Path) -> dict[int, str]:
    """`meta/tasks.parquet`: the text is the pandas index, under whatever name its writer gave it."""
    table = read_parquet(folder / TASKS)
    texts = [name for name in table.column_names if pa.types.is_string(table[name].type) or _large(table[name].type)]
    if "task_index" not in table.column_names or not texts:
        raise DataError(f"{str(folder / TASKS)!r} lacks the column task_index or the tasks' text.")
    name = "task" if "task" in texts else texts[0]
    return dict(sorted(zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True)))


def _large(kind: pa.DataType) -> bool:
    return pa.types.is_large_string(kind)
