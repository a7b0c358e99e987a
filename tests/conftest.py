"""Shared fixtures: small clip datasets, written as `curate` writes them but without it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.video_io import write_video
from worldfoundry.data.buckets import bucket_name
from worldfoundry.data.shards import write_shard


def frames_of(number: int, num_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 THWC whose frame t is a flat gray that tells clip and frame apart after lossy coding."""
    levels = (16 + 8 * (np.arange(num_frames) % 24) + 3 * (number % 3)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """`make_dataset([(source, num_frames, height, width), …], actions=True)` → folder of a clip dataset.

    `actions` may be the sources that have them.
    """

    def make(clips: list[tuple[str, int, int, int]], *, actions: bool | set[str] = False, name: str = "clips") -> Path:
        folder, rows, samples = tmp_path / name, [], {}
        for i, (source, num_frames, height, width) in enumerate(clips):
            key, acting = f"clip{i:03d}", actions if isinstance(actions, bool) else source in actions
            video = write_video(tmp_path / f"{key}.mp4", frames_of(i, num_frames, height, width), 12.0, crf=1)
            files: dict[str, bytes | Path] = {"mp4": video, "json": b'{"n": %d}' % i}
            if acting:
                buffer = io.BytesIO()
                np.save(buffer, np.stack([np.arange(num_frames), np.full(num_frames, i)], axis=1).astype(np.float32))
                files["actions.npy"] = buffer.getvalue()
            bucket = bucket_name(width, height, num_frames)
            samples.setdefault(bucket, []).append((key, files))
            facts = {"clip_id": key, "key": key, "source_id": source, "num_frames": num_frames, "fps": 12.0}
            size = {"width": width, "height": height, "bucket": bucket, "shard": f"shards/{bucket}/00000.tar"}
            span = {"start_s": 0.0, "duration_s": num_frames / 12, "motion": 1.0, "bytes": video.stat().st_size}
            names = ["time", "clip"] if acting else []
            rows.append({**facts, **size, **span, "caption": f"caption {i}", "has_actions": acting, "action_names": names})
        for bucket, members in samples.items():
            write_shard(folder / "shards" / bucket / "00000.tar", members)
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "tables" / "clips.parquet")
        return folder

    return make
