"""What `worldfoundry tokenize` reads: a file, a folder of files, or a clip dataset, as clips with a key each.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import UsageError
from worldfoundry.core.video_io import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_media
from worldfoundry.data.clips import ClipDataset, ClipRecord


@dataclass(frozen=True, kw_only=True)
class Source:
    """One clip to encode. `read` gives uint8 THWC frames and their rate (0 for an image); it raises MediaError.

    `size` in bytes tells whether a file of the same name is still the same file.
    """

    key: str
    source: str
    caption: str
    size: int
    read: Callable[[], tuple[np.ndarray, float]]


def sources(place: Path) -> list[Source]:
    """The clips at `place`. Raises UsageError if there is nothing, DataError for a damaged clip dataset."""
    if not place.exists():
        raise UsageError(f"{str(place)!r} does not exist.")
    if (place / "tables" / "clips.parquet").is_file():
        dataset = ClipDataset(place)
        return [_from_record(dataset, record) for record in dataset.records]
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix.lower() in MEDIA)
    if not files:
        raise UsageError(f"{str(place)!r} holds no video or image.")
    names = _names(files, place)
    return [_from_file(file, names[file]) for file in files]


MEDIA = VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _from_record(dataset: ClipDataset, record: ClipRecord) -> Source:
    return Source(
        key=record.key,
        source=record.source_id,
        caption=record.caption,
        size=record.bytes,
        read=lambda: (dataset.video(record), record.fps),
    )


def _from_file(file: Path, key: str) -> Source:
    def read() -> tuple[np.ndarray, float]:
        clip = read_media(file)
        return clip.frames, clip.fps

    text = file.with_suffix(".txt")
    caption = text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else ""
    return Source(key=key, source=file.name, caption=caption, size=file.stat().st_size, read=read)


def _names(files: list[Path], place: Path) -> dict[Path, str]:
    """The key of each file: its place below `place` without suffix; namesakes keep their suffix in it."""
    plain = {file: file.relative_to(place if place.is_dir() else file.parent).with_suffix("") for file in files}
    seen = Counter(plain.values())
    return {file: f"{name.as_posix()}{file.suffix if seen[name] > 1 else ''}" for file, name in plain.items()}
