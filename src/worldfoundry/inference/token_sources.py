"""What `worldfoundry tokenize` reads: a file, a folder of files, or a clip dataset, as clips with a key each.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import MediaError, UsageError
from worldfoundry.core.video_io import IMAGE_SUFFIXES, VIDEO_SUFFIXES, stream_media
from worldfoundry.data.clips import ClipDataset, ClipRecord

RECORD_FRAMES = 256  # of a dataset's clip that are decoded together


class Frames:
    """The frames of a clip, uint8 HWC, one after the other, so that a long one is never in memory whole.

    `fps` is 0 for an image; `count` frames were handed out so far, of which `last` is the last. Raises MediaError, also while
    it is iterated, for a clip without frames or of changing size.
    """

    def __init__(self, name: str, fps: float, frames: Iterator[np.ndarray]) -> None:
        first = next(frames, None)
        if first is None:
            raise MediaError("NO_FRAMES", f"{name!r} holds no video frame.")
        self.name, self.fps, self.count, self.last = name, fps, 0, first
        self.height, self.width = first.shape[:2]
        self._frames = chain([first], frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in self._frames:
            if frame.shape != self.last.shape:
                sizes = " to ".join(f"{width}x{height}" for height, width, _ in (self.last.shape, frame.shape))
                raise MediaError("DECODE_ERROR", f"{self.name!r} changes its size from {sizes} at frame {self.count}.")
            self.count, self.last = self.count + 1, frame
            yield frame


@dataclass(frozen=True, kw_only=True)
class Source:
    """One clip to encode. `read` begins to decode it; it raises MediaError.

    `size` in bytes tells whether a file of the same name is still the same file.
    """

    key: str
    source: str
    caption: str
    size: int
    read: Callable[[], Frames]


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
    def frames() -> Iterator[np.ndarray]:
        for start in range(0, record.num_frames, RECORD_FRAMES):
            yield from dataset.video(record, start, min(RECORD_FRAMES, record.num_frames - start))

    return Source(
        key=record.key,
        source=record.source_id,
        caption=record.caption,
        size=record.bytes,
        read=lambda: Frames(record.key, record.fps, frames()),
    )


def _from_file(file: Path, key: str) -> Source:
    text = file.with_suffix(".txt")
    caption = text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else ""
    size = file.stat().st_size
    return Source(key=key, source=file.name, caption=caption, size=size, read=lambda: Frames(file.name, *stream_media(file)))


def _names(files: list[Path], place: Path) -> dict[Path, str]:
    """The key of each file: its place below `place` without suffix; namesakes keep their suffix in it."""
    plain = {file: file.relative_to(place if place.is_dir() else file.parent).with_suffix("") for file in files}
    seen = Counter(plain.values())
    return {file: f"{name.as_posix()}{file.suffix if seen[name] > 1 else ''}" for file, name in plain.items()}
