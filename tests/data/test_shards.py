"""Shards: same samples, same bytes; range reads; readable by any tar reader; whole or absent."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from worldfoundry.core.errors import DataError, ResourceError
from worldfoundry.data.shards import read_index, write_shard

SAMPLES = [("b", {"mp4": b"x" * 1000, "json": b"{}", "actions.npy": b"abc"}), ("a", {"mp4": b""})]


def test_same_samples_give_same_bytes(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "one" / "00000.tar", SAMPLES)
    file = tmp_path / "content"
    file.write_bytes(b"x" * 1000)
    second = write_shard(tmp_path / "two" / "00000.tar", [("b", {**SAMPLES[0][1], "mp4": file}), SAMPLES[1]])
    assert (tmp_path / "one" / "00000.tar").read_bytes() == (tmp_path / "two" / "00000.tar").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "one" / "00000.tar").read_bytes()).hexdigest()
    assert first.num_bytes == (tmp_path / "one" / "00000.tar").stat().st_size


def test_range_reads_agree_with_the_tar(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.tar", SAMPLES)
    index = read_index(tmp_path / "00000.tar")
    with tarfile.open(tmp_path / "00000.tar") as tar:
        names = tar.getnames()
        for key, files in SAMPLES:
            for extension, content in files.items():
                member = tar.extractfile(f"{key}.{extension}")
                assert member is not None
                assert index.read(key, extension) == content == member.read()
    assert names == ["b.actions.npy", "b.json", "b.mp4", "a.mp4"], "the files of a sample must follow each other"


@pytest.mark.parametrize("key", ["", "a.b", "a/b"])
def test_bad_keys_are_refused_and_leave_nothing(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="sample key"):
        write_shard(tmp_path / "00000.tar", [(key, {"mp4": b"1"})])
    with pytest.raises(DataError, match="unique"):
        write_shard(tmp_path / "00000.tar", [("k", {"mp4": b"1"}), ("k", {"mp4": b"2"})])
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    index = write_shard(tmp_path / "00000.tar", SAMPLES)
    with pytest.raises(DataError, match=r"no a\.json \(mp4\)"):
        index.read("a", "json")
    with pytest.raises(DataError, match="no such sample"):
        index.read("z", "mp4")
    with open(tmp_path / "00000.tar", "r+b") as file:
        file.truncate(600)
    with pytest.raises(DataError, match="ends early"):
        index.read("b", "mp4")
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(DataError, match="is missing"):
        index.read("b", "mp4")
    with pytest.raises(DataError, match="is missing"):
        read_index(tmp_path / "00001.tar")


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: tarfile.TarFile, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", no_space)
    with pytest.raises(ResourceError, match="No space left"):
        write_shard(tmp_path / "00000.tar", SAMPLES)
    assert list(tmp_path.iterdir()) == []
