"""A disk that fills up at any kind of write ends the run in one line, and the same call goes on to the same dataset."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.errors import ResourceError
from worldfoundry.curation.api import curate

# What curation writes, by the end of its place. Each of them fails once.
WRITES = (
    "config.yaml",
    "work/format.json",
    "work/sources.json",
    *(f"work/SOURCE/{stage}.json" for stage in ("probe", "watch", "episode", "shots", "plan", "motion")),
    "work/SOURCE/watch-KEY.npz",
    "clips/CLIP/.staging/clip.mp4",
    "clips/CLIP/encode.json",
    "shards/BUCKET/00000.tar",
    "shards/BUCKET/00000.json",
    "work/packed/BUCKET/00000.json",
    *(f"tables/{name}.parquet" for name in ("sources", "shots", "clips", "rejected", "quarantine", "events", "runs")),
    "report.html",
)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a file's name is read from /proc")
def test_every_kind_of_write_may_be_the_one_that_fills_the_disk(
    zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.video("a.mp4", num_frames=26)

    def run(out: str) -> str:
        return curate(zoo.folder, tmp_path / out, isolate=False, copy_gop=0, scores={"measure": False}).content_hash

    undisturbed, failed, lines, sync = run("reference"), [], [], os.fsync

    def full(descriptor: int) -> None:
        kind = kind_of(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path / "out")
        if kind not in failed:
            failed.append(kind)
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(3 * len(WRITES)):
        before = len(failed)
        try:
            ended = run("out")
        except ResourceError as error:
            lines.append(error.message)
        else:
            break
        assert len(failed) == before + 1, "the run ends with the write that failed"
    else:
        pytest.fail("it never came to an end")
    assert ended == undisturbed
    assert {line.partition(" '")[0] for line in lines} == {"No space left while writing"}
    assert [kind for kind in WRITES if not any(found.endswith(kind) for found in failed)] == []
    left = [path for path in (tmp_path / "out").rglob(".*") if path.name != ".lock"]
    assert left == [], "nothing half written stays"


def kind_of(path: str, out: Path) -> str:
    """The place below `out` without what is particular to a file or a bucket, temporary names made whole."""
    place = Path(path).relative_to(out)
    name = re.sub(r"^\.(.+)-[0-9a-f]{8}(\.\w+)$", r"\1\2", place.name)
    name = re.sub(r"-[0-9a-f]{16}\.", "-KEY.", name)
    parts = [re.sub(r"^\d+p_.*", "BUCKET", part) for part in place.parent.parts]
    parts = ["CLIP" if re.fullmatch(r"[0-9a-f]{20}", part) else part for part in parts]
    parts = ["SOURCE" if re.fullmatch(r"[0-9a-f]{32}", part) else part for part in parts]
    return "/".join([*parts, name])
