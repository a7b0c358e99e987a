"""Waiting episodes become the published layout: rows and videos joined into files, then the metadata, `info.json` last.

Nothing that `info.json` promises is ever changed or moved: new episodes go into new files behind the old ones. A process that
dies here leaves the dataset as it was; the next `finalize` writes the same files again.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, write_json
from worldfoundry.data.lerobot.columns import to_arrow
from worldfoundry.data.lerobot.index import read_episode_table, read_parquet, read_schema, read_tasks
from worldfoundry.data.lerobot.join import encoder_header, join_videos
from worldfoundry.data.lerobot.layout import (
    DATA_PATH,
    EPISODES_PATH,
    INDEX_FEATURES,
    INFO,
    STATS,
    TASKS,
    UNFINISHED,
    VIDEO_PATH,
    read_info,
)
from worldfoundry.data.lerobot.staging import Schema, StagedEpisode, waiting_episodes
from worldfoundry.data.lerobot.stats import FeatureStats, column_stats, merge_stats, stats_of_files

MIB = 1 << 20
ROW_GROUP = 16384  # rows; small enough to read a window from, large enough to keep the footer of a file of short episodes small

Slot = tuple[int, int]  # chunk index, file index


@dataclass
class Committed:
    """What the dataset already holds: totals, tasks by index, and the last file of every kind."""

    num_episodes: int = 0
    num_frames: int = 0
    tasks: list[str] = field(default_factory=list)
    last: dict[str, Slot] = field(default_factory=dict)


def committed(folder: Path) -> Committed:
    """Read from a finalised folder; all zero where there is none yet."""
    if not (folder / INFO).is_file():
        return Committed()
    info = read_info(folder)
    if not info.num_episodes:
        return Committed()
    last = read_episode_table(folder, info, ("data/", "videos/", "meta/")).slice(info.num_episodes - 1).to_pylist()[0]
    kinds = [name.removesuffix("/chunk_index") for name in last if name.endswith("/chunk_index")]
    return Committed(
        num_episodes=info.num_episodes,
        num_frames=info.num_frames,
        tasks=list(read_tasks(folder).values()),
        last={kind: (last[f"{kind}/chunk_index"], last[f"{kind}/file_index"]) for kind in kinds},
    )


def pack(folder: Path, schema: Schema) -> None:
    """Put all waiting episodes into the dataset. Raises DataError when there is none at all, or when indices have holes."""
    done = committed(folder)
    staged = waiting_episodes(folder, done.num_episodes)
    if not staged and not done.num_episodes:
        raise DataError(f"{str(folder)!r} has no episodes.", "Call add_episode() before finalize().")
    _check_holes(folder, staged, done.num_episodes)
    _check_last_files(folder, schema, done)
    if staged:
        rows = _begin_rows(staged, done)
        _pack_data(folder, schema, staged, rows, done)
        for camera in schema.cameras:
            _pack_videos(folder, schema, camera, staged, rows, done)
        _write_episodes(folder, schema, rows, done)
        _write_tasks(folder, done.tasks)
        _write_info(folder, schema, done)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _check_holes(folder: Path, staged: list[StagedEpisode], first: int) -> None:
    there = {episode.index for episode in staged}
    holes = [index for index in range(first, max(there, default=first)) if index not in there]
    if holes:
        named = ", ".join(map(str, holes[:8])) + (", …" if len(holes) > 8 else "")
        raise DataError(f"{str(folder)!r} lacks episode(s) {named}.", "Add them, then call finalize() again.")


def _check_last_files(folder: Path, schema: Schema, done: Committed) -> None:
    """A dataset by another writer may not say where its own rows lie; without that, new files could overwrite old ones."""
    kinds = ["data", "meta/episodes", *(f"videos/{camera}" for camera in schema.cameras)]
    unknown = [kind for kind in kinds if done.num_episodes and kind not in done.last]
    if unknown:
        raise DataError(f"meta/episodes of {str(folder)!r} does not say which files of {', '.join(unknown)} are taken.")


def _begin_rows(staged: list[StagedEpisode], done: Committed) -> list[dict[str, Any]]:
    """The rows of meta/episodes as far as the episodes alone say them; new tasks are numbered in order of appearance."""
    rows = []
    for episode in staged:
        record = episode.record
        if record["task"] not in done.tasks:
            done.tasks.append(record["task"])
        rows.append(
            {
                "episode_index": episode.index,
                "tasks": [record["task"]],
                "length": record["length"],
                "dataset_from_index": done.num_frames,
                "dataset_to_index": done.num_frames + record["length"],
                "stats": record["stats"],
            }
        )
        done.num_frames += record["length"]
        done.num_episodes += 1
    return rows


def _pack_data(folder: Path, schema: Schema, staged: list[StagedEpisode], rows: list[dict[str, Any]], done: Committed) -> None:
    sizes = [episode.data.stat().st_size for episode in staged]
    for group in _groups(sizes, schema.data_files_size_in_mb * MIB):
        slot = _next_slot(done, "data", schema.chunks_size)
        tables = []
        for i in group:
            rows[i] |= {"data/chunk_index": slot[0], "data/file_index": slot[1]}
            index_columns = _index_columns(rows[i], schema.fps, done.tasks)
            rows[i]["stats"] |= {key: column_stats(values).to_json() for key, values in index_columns.items()}
            table = read_parquet(staged[i].data)
            for key, values in index_columns.items():
                table = table.append_column(key, to_arrow(values, INDEX_FEATURES[key]))
            tables.append(table)
        with _placed(folder, DATA_PATH.format(chunk_index=slot[0], file_index=slot[1])) as temporary:
            pq.write_table(pa.concat_tables(tables), temporary, row_group_size=ROW_GROUP)


def _index_columns(row: dict[str, Any], fps: float, tasks: list[str]) -> dict[str, np.ndarray]:
    frames = np.arange(row["length"])
    return {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full_like(frames, row["episode_index"]),
        "index": frames + row["dataset_from_index"],
        "task_index": np.full_like(frames, tasks.index(row["tasks"][0])),
    }


def _pack_videos(
    folder: Path, schema: Schema, camera: str, staged: list[StagedEpisode], rows: list[dict[str, Any]], done: Committed
) -> None:
    paths = [episode.video(camera) for episode in staged]
    headers = [encoder_header(path) for path in paths]
    for group in _groups([path.stat().st_size for path in paths], schema.video_files_size_in_mb * MIB, headers):
        slot = _next_slot(done, f"videos/{camera}", schema.chunks_size)
        frames = 0
        for i in group:
            rows[i] |= {
                f"videos/{camera}/chunk_index": slot[0],
                f"videos/{camera}/file_index": slot[1],
                f"videos/{camera}/from_timestamp": frames / schema.fps,
                f"videos/{camera}/to_timestamp": (frames + rows[i]["length"]) / schema.fps,
            }
            frames += rows[i]["length"]
        target = VIDEO_PATH.format(video_key=camera, chunk_index=slot[0], file_index=slot[1])
        with _placed(folder, target) as temporary:
            join_videos([(paths[i], rows[i]["length"]) for i in group], schema.fps, temporary)


def _groups(sizes: list[int], limit: int, kinds: list[Any] | None = None) -> Iterator[list[int]]:
    """Runs of neighbours whose sizes sum to at most `limit` (or that are alone) and that are of one kind."""
    group: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if group and (total + size > limit or (kinds is not None and kinds[i] != kinds[group[0]])):
            yield group
            group, total = [], 0
        group.append(i)
        total += size
    yield group


def _next_slot(done: Committed, kind: str, chunks_size: int) -> Slot:
    """The place of the next file of a kind, counted up in `done`."""
    if kind not in done.last:
        done.last[kind] = (0, 0)
    else:
        chunk, file = done.last[kind]
        done.last[kind] = (chunk + 1, 0) if file + 1 >= chunks_size else (chunk, file + 1)
    return done.last[kind]


@contextmanager
def _placed(folder: Path, relative: str) -> Iterator[Path]:
    """Write in the waiting folder, then rename: readers glob the published folders, where no half file may ever lie."""
    target = folder / relative
    made = folder / UNFINISHED / f"packed{target.suffix}"
    with atomic_path(made) as temporary:
        yield temporary
    target.parent.mkdir(parents=True, exist_ok=True)
    made.replace(target)


def _write_episodes(folder: Path, schema: Schema, rows: list[dict[str, Any]], done: Committed) -> None:
    sizes = [len(json.dumps(row)) for row in rows]  # as text they are larger than in the file
    for group in _groups(sizes, schema.data_files_size_in_mb * MIB):
        slot = _next_slot(done, "meta/episodes", schema.chunks_size)
        place = {"meta/episodes/chunk_index": slot[0], "meta/episodes/file_index": slot[1]}
        flat = []
        for row in (rows[i] for i in group):
            stats = {f"stats/{key}/{name}": v for key, entry in row["stats"].items() for name, v in entry.items()}
            flat.append({**{key: value for key, value in row.items() if key != "stats"}, **stats, **place})
        with _placed(folder, EPISODES_PATH.format(chunk_index=slot[0], file_index=slot[1])) as temporary:
            pq.write_table(pa.Table.from_pylist(flat), temporary)


def _write_tasks(folder: Path, tasks: list[str]) -> None:
    """A pandas frame whose index is the text: `pandas.read_parquet` needs these notes in the schema to restore it."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    entries = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    notes = {"index_columns": ["task"], "column_indexes": [], "columns": entries, "pandas_version": "2.0.0"}
    with atomic_path(folder / TASKS) as temporary:
        pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(notes)}), temporary)


def _write_info(folder: Path, schema: Schema, done: Committed) -> None:
    """stats.json over the whole dataset, then info.json, which makes the new episodes part of it."""
    info = {
        "codebase_version": schema.to_json()["codebase_version"],
        "robot_type": schema.robot_type,
        "total_episodes": done.num_episodes,
        "total_frames": done.num_frames,
        "total_tasks": len(done.tasks),
        **{key: value for key, value in schema.to_json().items() if key not in ("codebase_version", "robot_type", "features")},
        "splits": {"train": f"0:{done.num_episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if schema.cameras else None,
        "features": schema.to_json()["features"],
    }
    write_json(folder / STATS, {key: value.to_json() for key, value in _dataset_stats(folder, schema).items()})
    write_json(folder / INFO, info)


def _dataset_stats(folder: Path, schema: Schema) -> dict[str, FeatureStats]:
    """Of numbers from all rows on disk, so that quantiles are exact; of cameras from the episodes' own statistics."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "meta/episodes").glob("*/*.parquet")):
        wanted = ("data/", *(f"stats/{camera}/" for camera in schema.cameras))
        rows += read_parquet(path, [name for name in read_schema(path).names if name.startswith(wanted)]).to_pylist()
    slots = sorted({(row["data/chunk_index"], row["data/file_index"]) for row in rows})
    files = [folder / DATA_PATH.format(chunk_index=chunk, file_index=file) for chunk, file in slots]
    stats = stats_of_files(files, {**schema.columns, **INDEX_FEATURES})
    for camera in schema.cameras:
        prefix = f"stats/{camera}/"
        entries = [{name.removeprefix(prefix): row[name] for name in row if name.startswith(prefix)} for row in rows]
        stats[camera] = merge_stats(FeatureStats.from_json(camera, entry, (), folder) for entry in entries)
    return {key: stats[key] for key in {**schema.features, **INDEX_FEATURES} if key in stats}
