"""From finished clips to shards. A shard is never changed: it stays as it is, or it is replaced.

Samples are packed in the order of bucket, source, time, each shard closed at a size. What is in a shard, and which commits it
came from, is kept in a ledger beside the commits. New clips go to new shards. Where a shard holds something that is no longer
wanted (a clip that `select` now drops, a clip that was encoded anew, another caption), that shard and the later ones of its
bucket are taken apart: their samples go back to the work folder, so that nothing is ever encoded again because of it, and
what is wanted is packed anew. Other buckets are not touched.

The order of the steps makes this safe to kill: samples come back first, shards are removed from the last one down, and the
clips that are in no shard are packed last; a run that finds any of this half done goes on with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, read_json, write_json
from worldfoundry.curation.stages import ENCODE
from worldfoundry.curation.store import Store
from worldfoundry.data.shards import read_index, write_shard


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What goes into a shard: the files of the commit `encode_key` of a clip, and its `key.json` as text."""

    source_id: str
    clip_id: str
    start_pts: int
    bucket: str
    bytes: int
    encode_key: str
    text: str

    @property
    def entry(self) -> list[str]:
        """The ledger's line: equal entries are equal samples."""
        return [self.source_id, self.encode_key, stable_hash(self.text)]


Ledger = dict[str, dict[str, list[str]]]
"""Shard (relative to OUT) → clip id → entry."""


def read_ledger(store: Store) -> Ledger:
    """What the finished shards hold. A shard that the ledger does not know holds something unknown, under the clip id ""."""
    ledger: Ledger = {}
    for tar in sorted(store.shards.glob("*/*.tar")):
        shard, note = str(tar.relative_to(store.out)), store.packed / tar.parent.name / f"{tar.stem}.json"
        known = read_json(note) if note.is_file() and tar.with_suffix(".json").is_file() else {}
        fits = known and known["sha256"] == read_index(tar).sha256
        ledger[shard] = known["samples"] if fits else {"": []}
    return ledger


def pack(store: Store, samples: Iterable[Sample], shard_mb: float) -> dict[str, str]:
    """Make the shards hold exactly these samples. Returns clip id → shard, relative to OUT.

    Raises ResourceError when the disk is full: the shards finished so far stay, and the next run goes on.
    """
    wanted = {sample.clip_id: sample for sample in samples}
    ledger = _take_apart(store, wanted, read_ledger(store))
    packed = {clip_id: shard for shard, held in ledger.items() for clip_id in held}
    for clip_id in packed:  # killed between writing the shard and removing the loose files
        _remove_loose(store, wanted[clip_id])
    waiting = sorted(
        (sample for sample in wanted.values() if sample.clip_id not in packed),
        key=lambda sample: (sample.bucket, sample.source_id, sample.start_pts),
    )
    for batch in _batches(waiting, shard_mb * 1e6):
        bucket = batch[0].bucket
        tar = next(tar for n in count() if not (tar := store.shards / bucket / f"{n:05d}.tar").exists())
        index = write_shard(tar, _contents(store, batch))
        held = {sample.clip_id: sample.entry for sample in batch}
        write_json(store.packed / bucket / f"{tar.stem}.json", {"sha256": index.sha256, "samples": held})
        packed |= {sample.clip_id: str(tar.relative_to(store.out)) for sample in batch}
        for sample in batch:
            _remove_loose(store, sample)
    return packed


def _take_apart(store: Store, wanted: Mapping[str, Sample], ledger: Ledger) -> Ledger:
    """Remove the shards of each bucket from the first on that holds something unwanted. Returns what stays."""
    kept: Ledger = {}
    by_bucket: dict[str, list[str]] = {}
    for shard in sorted(ledger):
        by_bucket.setdefault(Path(shard).parent.name, []).append(shard)
    for bucket, shards in by_bucket.items():
        good = [
            all(
                clip_id in wanted and (wanted[clip_id].entry, wanted[clip_id].bucket) == (entry, bucket)
                for clip_id, entry in held
            )
            for held in (ledger[shard].items() for shard in shards)
        ]
        stays = good.index(False) if False in good else len(shards)
        for shard in shards[stays:]:
            _bring_back(store, shard, ledger[shard])
        for shard in reversed(shards[stays:]):
            tar = store.out / shard
            for path in (store.packed / bucket / f"{tar.stem}.json", tar.with_suffix(".json"), tar):
                path.unlink(missing_ok=True)
        if not any((store.shards / bucket).iterdir()):
            (store.shards / bucket).rmdir()
        kept |= {shard: ledger[shard] for shard in shards[:stays]}
    return kept


def _bring_back(store: Store, shard: str, held: Mapping[str, list[str]]) -> None:
    """Put the samples of a shard back beside their commits, as far as these are still what was packed."""
    if "" in held:
        return
    index = read_index(store.out / shard)
    for clip_id, (source_id, encode_key, _) in held.items():
        commits = store.clip_commits(source_id, clip_id)
        if commits.read(ENCODE, encode_key) is None:
            continue
        for extension in index.samples[clip_id]:
            path = commits.folder / f"{ENCODE}-{encode_key}.{extension}"
            if extension != "json" and not path.exists():
                with atomic_path(path) as temporary:
                    temporary.write_bytes(index.read(clip_id, extension))


def _batches(samples: list[Sample], limit_bytes: float) -> Iterator[list[Sample]]:
    """Runs of one bucket, each closed at the size."""
    batch: list[Sample] = []
    size = 0
    for sample in samples:
        if batch and (sample.bucket != batch[0].bucket or size >= limit_bytes):
            yield batch
            batch, size = [], 0
        batch.append(sample)
        size += sample.bytes
    if batch:
        yield batch


def loose_files(store: Store, source_id: str, clip_id: str, encode_key: str) -> dict[str, Path]:
    """Extension → file of a sample that is in no shard. The thumbnails are not part of the sample."""
    files = store.clip_commits(source_id, clip_id).files(ENCODE, encode_key)
    return {extension: path for extension, path in files.items() if extension not in ("strip.webp", "npz")}


def _contents(store: Store, samples: list[Sample]) -> Iterator[tuple[str, dict[str, bytes | Path]]]:
    for sample in samples:
        files = loose_files(store, sample.source_id, sample.clip_id, sample.encode_key)
        if "mp4" not in files:
            raise DataError(
                f"The clip {sample.clip_id!r} is neither in a shard nor in the work folder.",
                "Files were removed by hand; add --overwrite to start anew.",
            )
        yield sample.clip_id, {**files, "json": sample.text.encode()}


def _remove_loose(store: Store, sample: Sample) -> None:
    for path in loose_files(store, sample.source_id, sample.clip_id, sample.encode_key).values():
        path.unlink()
