"""Reading a clip dataset: records from `tables/clips.parquet`, frames and actions from the shards.

Axis legend: T frames, H height, W width, C = 3 (RGB), A action numbers.
"""

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import DataError
from worldfoundry.core.video_io import iter_frames
from worldfoundry.data.shards import ShardIndex, missing_shard, read_index


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One clip as the table describes it. An image has one frame and `fps` 0. `shard` is relative to the dataset."""

    clip_id: str
    key: str
    source_id: str
    num_frames: int
    fps: float
    width: int
    height: int
    start_s: float
    duration_s: float
    caption: str
    motion: float
    has_actions: bool
    action_names: tuple[str, ...]
    bucket: str
    shard: str
    bytes: int


FIELDS = tuple(ClipRecord.__dataclass_fields__)


class ClipDataset:
    """A folder that `worldfoundry curate` wrote.

    Raises DataError if the folder is not a clip dataset, holds no clip, or lacks a shard that its table names.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.records: tuple[ClipRecord, ...] = tuple(_read_records(self.folder))
        self._indexes: dict[str, ShardIndex] = {}
        for shard in sorted({record.shard for record in self.records}):
            if not (self.folder / shard).is_file():
                raise missing_shard(self.folder / shard)

    def __len__(self) -> int:
        return len(self.records)

    def video(self, record: ClipRecord, start: int = 0, num_frames: int | None = None) -> np.ndarray:
        """Frames [start, start + num_frames) as uint8 THWC, all by default; decoding begins at the keyframe before.

        Raises DataError if the clip has fewer frames, or its file does not hold what the table says.
        """
        count = record.num_frames - start if num_frames is None else num_frames
        if start < 0 or count < 1 or start + count > record.num_frames:
            raise DataError(
                f"Frames {start} to {start + count} are not all in clip {record.key!r} of {record.num_frames} frames."
            )
        # Bounds half a frame away from the frames' times, so that no rounding decides.
        frame_s = 1 / record.fps if record.fps else 1.0
        start_s, end_s = max(0.0, (start - 0.5) * frame_s), (start + count - 0.5) * frame_s
        content = io.BytesIO(self._index(record).read(record.key, "mp4"))
        frames = [frame for _, frame in iter_frames(content, start_s=start_s, end_s=end_s)]
        if len(frames) != count:
            raise DataError(f"The clip {record.key!r} in {record.shard!r} gave {len(frames)} frames instead of {count}.")
        return np.stack(frames)

    def actions(self, record: ClipRecord) -> np.ndarray | None:
        """float32 [T, A], one row per frame, or None if the clip has no actions. Raises DataError if the counts differ."""
        if not record.has_actions:
            return None
        actions = np.load(io.BytesIO(self._index(record).read(record.key, "actions.npy")), allow_pickle=False)
        if actions.ndim != 2 or len(actions) != record.num_frames:
            raise DataError(f"The actions of clip {record.key!r} are {actions.shape}, for {record.num_frames} frames.")
        return actions.astype(np.float32, copy=False)

    def metadata(self, record: ClipRecord) -> dict[str, Any]:
        """The sample's JSON: what the table says and what the episode's sidecar said."""
        return json.loads(self._index(record).read(record.key, "json"))

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action numbers, () if no clip has actions. Raises DataError if clips disagree."""
        names = {record.action_names for record in self.records if record.has_actions}
        if len(names) > 1:
            listed = ", ".join(repr("/".join(name)) for name in sorted(names)[:3])
            raise DataError(f"The clips of {str(self.folder)!r} have different actions: {listed}.", "Curate them apart.")
        return names.pop() if names else ()

    def hash(self) -> str:
        """A short hash of the shards' contents: two datasets of the same hash hold the same samples."""
        return stable_hash(sorted(self._load_index(shard).sha256 for shard in {record.shard for record in self.records}))

    def _index(self, record: ClipRecord) -> ShardIndex:
        return self._load_index(record.shard)

    def _load_index(self, shard: str) -> ShardIndex:
        if shard not in self._indexes:
            self._indexes[shard] = read_index(self.folder / shard)
        return self._indexes[shard]


def split_records(
    records: list[ClipRecord] | tuple[ClipRecord, ...], held_out_fraction: float, seed: int
) -> tuple[list[ClipRecord], list[ClipRecord]]:
    """(train, held out), split by source: no source is on both sides.

    About `held_out_fraction` of the sources are held out, at least one if there are two; a single source stays in train.
    The choice depends on the source ids and the seed alone.
    """
    if not 0 <= held_out_fraction < 1:
        raise ValueError(f"held_out_fraction must be in [0, 1), got {held_out_fraction!r}")
    sources = sorted({record.source_id for record in records})
    count = min(max(round(held_out_fraction * len(sources)), 1 if held_out_fraction else 0), len(sources) - 1) if sources else 0
    chosen = {sources[i] for i in np.random.default_rng(seed).permutation(len(sources))[:count]}
    return [r for r in records if r.source_id not in chosen], [r for r in records if r.source_id in chosen]


def _read_records(folder: Path) -> list[ClipRecord]:
    path = folder / "tables" / "clips.parquet"
    make_one = f"Make one with: worldfoundry curate INPUT --out {folder}"
    if not folder.is_dir():
        raise DataError(f"The clip dataset {str(folder)!r} does not exist.", make_one)
    if not path.is_file():
        raise DataError(f"{str(folder)!r} is not a clip dataset: it has no 'tables/clips.parquet'.", make_one)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {str(error).splitlines()[0]}.", make_one) from error
    lacking = [name for name in FIELDS if name not in table.column_names]
    if lacking:
        raise DataError(f"{str(path)!r} lacks the columns {', '.join(lacking)}.", "Curate again with this version.")
    if not table.num_rows:
        raise DataError(f"{str(folder)!r} holds no clip.", f"{str(folder / 'report.html')!r} says why each file was left out.")
    rows = table.select(list(FIELDS)).to_pylist()
    return [ClipRecord(**{**row, "action_names": tuple(row["action_names"])}) for row in rows]
