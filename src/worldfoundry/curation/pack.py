"""From finished sources to shards. Shards are never changed: samples not packed yet go to new ones.

Samples are packed in the order of bucket, source, time, each shard closed at a size. The order and the sizes decide
the cuts, so a run that was killed between two shards goes on as if it had not been.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from worldfoundry.core.errors import DataError
from worldfoundry.curation.rows import Row
from worldfoundry.curation.store import Store
from worldfoundry.data.shards import write_shard


def pack(store: Store, clips: list[Row], shard_mb: float) -> dict[str, str]:
    """Put every clip that is in no shard yet into one, and remove its loose files. Returns key → shard, relative to OUT.

    Raises ResourceError when the disk is full: the shards finished so far stay, and the next run goes on.
    """
    packed = store.packed()
    for clip in clips:
        if clip["key"] in packed:  # killed between writing the shard and removing the loose files
            _remove_loose(store, clip)
    waiting = sorted(
        (clip for clip in clips if clip["key"] not in packed), key=lambda c: (c["bucket"], c["source_id"], c["start_pts"])
    )
    for bucket, group in groupby(waiting, key=lambda clip: clip["bucket"]):
        number = sum(1 for _ in (store.shards / bucket).glob("*.json"))
        for batch in _batches(list(group), shard_mb * 1e6):
            tar = store.shards / bucket / f"{number:05d}.tar"
            write_shard(tar, _samples(store, batch))
            packed |= {clip["key"]: str(tar.relative_to(store.out)) for clip in batch}
            for clip in batch:
                _remove_loose(store, clip)
            number += 1
    return packed


def _batches(clips: list[Row], limit_bytes: float) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for clip in clips:
        batch.append(clip)
        size += clip["bytes"]
        if size >= limit_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _samples(store: Store, clips: list[Row]) -> Iterator[tuple[str, dict[str, Path]]]:
    for clip in clips:
        files = store.sample_files(clip["source_id"], clip["key"])
        if "mp4" not in files:
            raise DataError(
                f"The clip {clip['key']!r} of {clip['uri']!r} is neither in a shard nor in the work folder.",
                "Files were removed by hand; add --overwrite to start anew.",
            )
        yield clip["key"], files


def _remove_loose(store: Store, clip: Row) -> None:
    for path in store.sample_files(clip["source_id"], clip["key"]).values():
        path.unlink()
