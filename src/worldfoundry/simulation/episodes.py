"""One episode on disk: `NAME.mp4` and, beside it, `NAME.episode.parquet` with one row per frame.

Columns: frame_index int64, timestamp float64 (seconds), action list<float32> (the command that acts between this frame and
the next), state list<float32>. The schema metadata, key `worldfoundry`, is JSON: action_names, state_names, caption, seed,
scene, renderer, and the signs that mirror an action and a state left to right.
The parquet is written last: an episode that has one is whole.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.files import atomic_path
from worldfoundry.core.video_io import write_video

SUFFIX = ".episode.parquet"

# Encodings that take a fifth off so small a file: commands repeat, states change slowly. Every Parquet reader knows them.
SMALL: dict[str, Any] = {
    "compression": "zstd",
    "write_statistics": False,
    "use_dictionary": ["action.list.element"],
    "column_encoding": {
        "frame_index": "DELTA_BINARY_PACKED",
        "timestamp": "BYTE_STREAM_SPLIT",
        "state.list.element": "BYTE_STREAM_SPLIT",
    },
}


def episode_path(folder: Path, index: int) -> Path:
    """The table of episode `index`; its video is the same name with `.mp4`."""
    return folder / f"episode_{index:06d}{SUFFIX}"


def write_episode(
    table: Path,
    frames: np.ndarray,
    *,
    fps: float,
    actions: np.ndarray,
    states: np.ndarray,
    metadata: Mapping[str, Any],
    crf: int,
) -> None:
    """Write video and table. frames uint8 (T, H, W, 3), actions float32 (T, A), states float32 (T, S).

    Raises ResourceError when the disk is full; neither file is then left under its name.
    """
    video = table.with_name(table.name.removesuffix(SUFFIX) + ".mp4")
    write_video(video, frames, fps, crf=crf)
    count = len(frames)
    columns = {
        "frame_index": pa.array(np.arange(count), pa.int64()),
        "timestamp": pa.array(np.arange(count) / fps, pa.float64()),
        "action": pa.array(list(actions), pa.list_(pa.float32())),
        "state": pa.array(list(states), pa.list_(pa.float32())),
    }
    rows = pa.table(columns).replace_schema_metadata({"worldfoundry": json.dumps(dict(metadata))})
    with atomic_path(table) as temporary:
        pq.write_table(rows, temporary, **SMALL)


def write_npz(path: Path, name: str, array: np.ndarray) -> None:
    """One array as `.npz`, whole or absent. Compressed at the fastest level: np.savez_compressed takes five times as long."""
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def write_text(path: Path, text: str) -> None:
    """A caption or a list, whole or absent."""
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
