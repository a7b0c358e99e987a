"""The seven Parquet tables of a clip dataset, with their schemas: all exist even where empty.

sources      files that gave at least one clip          shots        what the shot detector found in every decoded file
clips        kept clips                                 rejected     dropped clips, with reasons
             (both with a column for every score and tag of the stages that ran)
quarantine   files that gave no clip, with the reason   events       seconds and decoded frames per source and stage
runs         one row per run of the command
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.files import atomic_path
from worldfoundry.curation.rows import Row

FORMAT = "worldfoundry.clips/1"
_STRINGS = pa.list_(pa.string())

_SPAN: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "source_id": pa.string(),
    "uri": pa.string(),
    "shot_index": pa.int32(),
    "start_pts": pa.int64(),
    "end_pts": pa.int64(),
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "duration_s": pa.float64(),
    "num_frames": pa.int32(),
    "motion": pa.float64(),
    "kept": pa.bool_(),
    "reasons": _STRINGS,
}

SCHEMAS: Mapping[str, Mapping[str, pa.DataType]] = {
    "sources": {
        "source_id": pa.string(),
        "uri": pa.string(),
        "duplicates": _STRINGS,
        "bytes": pa.int64(),
        "image": pa.bool_(),
        "codec": pa.string(),
        "pixel_format": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "rotation": pa.int32(),
        "fps": pa.float64(),
        "variable_rate": pa.bool_(),
        "num_frames": pa.int32(),
        "duration_s": pa.float64(),
        "has_audio": pa.bool_(),
        "partial": pa.bool_(),
        "problem": pa.string(),
        "num_shots": pa.int32(),
        "num_clips": pa.int32(),
    },
    "shots": {
        "source_id": pa.string(),
        "shot_index": pa.int32(),
        "start_pts": pa.int64(),
        "end_pts": pa.int64(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "num_frames": pa.int32(),
        "opens_with": pa.string(),
        "opens_from_s": pa.float64(),
        "opens_confidence": pa.float64(),
        "opens_decided_by": pa.string(),
        "closes_with": pa.string(),
        "closes_until_s": pa.float64(),
        "closes_confidence": pa.float64(),
        "closes_decided_by": pa.string(),
    },
    "clips": {
        **_SPAN,
        "key": pa.string(),
        "fps": pa.float64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "bucket": pa.string(),
        "shard": pa.string(),
        "caption": pa.string(),
        "has_actions": pa.bool_(),
        "action_names": _STRINGS,
        "state_names": _STRINGS,
        "encoding": pa.string(),
        "bytes": pa.int64(),
    },
    "rejected": _SPAN,
    "quarantine": {
        "uri": pa.string(),
        "source_id": pa.string(),
        "stage": pa.string(),
        "code": pa.string(),
        "message": pa.string(),
        "attempt": pa.int32(),
        "bytes": pa.int64(),
    },
    "events": {
        "source_id": pa.string(),
        "clip_id": pa.string(),
        "stage": pa.string(),
        "wall_s": pa.float64(),
        "cpu_s": pa.float64(),
        "decoded_frames": pa.int64(),
    },
    "runs": {
        "started": pa.string(),
        "wall_s": pa.float64(),
        "cpu_s": pa.float64(),
        "peak_memory_mb": pa.float64(),
        "decoded_to_analyse": pa.int64(),
        "decoded_to_encode": pa.int64(),
        "files": pa.int32(),
        "processed": pa.int32(),
        "clips": pa.int32(),
        "quarantined": pa.int32(),
        "input": pa.string(),
        "config": pa.string(),
        "worldfoundry": pa.string(),
        "commit": pa.string(),
        "host": pa.string(),
    },
}


# What the content hash is taken over, and what in these tables is no content: where a clip lies, how often was tried.
CONTENT = ("sources", "shots", "clips", "rejected", "quarantine")
NO_CONTENT = frozenset({"shard", "attempt"})


def write_table(folder: Path, name: str, rows: Sequence[Row], extra: Mapping[str, pa.DataType] | None = None) -> None:
    """Write `folder/<name>.parquet` whole or not at all; a column that a row lacks is null. `extra` are further columns."""
    kinds = {**(extra or {}), **SCHEMAS[name]}
    about = json.dumps({"format": FORMAT, "table": name})
    schema = pa.schema([pa.field(column, kind) for column, kind in kinds.items()], metadata={"worldfoundry": about})
    columns = [pa.array([row.get(column) for row in rows], type=kind) for column, kind in kinds.items()]
    with atomic_path(folder / f"{name}.parquet") as temporary:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary)


def read_table(folder: Path, name: str) -> list[Row]:
    """The rows of a table, [] if it does not exist yet."""
    path = folder / f"{name}.parquet"
    return pq.read_table(path).to_pylist() if path.is_file() else []


def content_hash(folder: Path) -> str:
    """SHA-256 (shortened) over the sorted rows of the tables that hold content: equal for equal datasets, however made."""
    digest = hashlib.sha256()
    for name in CONTENT:
        rows = ({key: row[key] for key in sorted(row) if key not in NO_CONTENT} for row in read_table(folder, name))
        for line in (name, *sorted(json.dumps(row, ensure_ascii=False) for row in rows)):
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]
