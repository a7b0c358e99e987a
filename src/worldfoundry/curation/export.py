"""The clips of a dataset as plain files in plain folders, for tools that know nothing of shards."""

import csv
from pathlib import Path

from worldfoundry.core.errors import UsageError
from worldfoundry.core.files import atomic_path
from worldfoundry.core.progress import progress
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.shards import ShardIndex, read_index

COLUMNS = ("file", "source_id", "start_s", "duration_s", "num_frames", "fps", "width", "height", "caption", "motion")


def export(dataset_folder: Path, to: Path) -> int:
    """Write `<to>/<bucket>/<clip>.mp4` with its caption (.txt), facts (.json), actions and states (.npy), and `clips.csv`.

    Returns the number of clips. A file that is there is kept, so an interrupted export goes on. Raises DataError if the
    folder is no clip dataset, UsageError if `to` holds other things.
    """
    dataset = ClipDataset(dataset_folder)
    if to.exists() and (not to.is_dir() or (any(to.iterdir()) and not (to / ".export").is_file())):
        raise UsageError(f"{str(to)!r} holds other files.", "Choose a new or empty folder for --to.")
    to.mkdir(parents=True, exist_ok=True)
    (to / ".export").touch()
    indexes: dict[str, ShardIndex] = {}
    with progress("export", total=len(dataset), unit="clips") as bar:
        for record in dataset.records:
            index = indexes.setdefault(record.shard, read_index(dataset.folder / record.shard))
            for extension in index.samples[record.key]:
                _write(to / record.bucket / f"{record.key}.{extension}", index.read(record.key, extension))
            if record.caption:
                _write(to / record.bucket / f"{record.key}.txt", record.caption.encode())
            bar.advance()
    with atomic_path(to / "clips.csv") as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for record in dataset.records:
            writer.writerow((f"{record.bucket}/{record.key}.mp4", *(getattr(record, name) for name in COLUMNS[1:])))
    return len(dataset)


def _write(path: Path, content: bytes) -> None:
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
