"""A file is whole or absent, whatever goes wrong in between."""

import errno
import os
import stat
import threading

import pytest
from safetensors import SafetensorError

from worldfoundry.core.errors import ResourceError, UsageError
from worldfoundry.core.files import atomic_folder, atomic_path, check_writable, read_fields, read_json, sole_writer, write_json


def test_success_leaves_exactly_the_file(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)), atomic_path(target) as temporary:
        write_half(temporary)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_is_a_resource_error_that_names_the_file(tmp_path, code):
    def fill():
        raise OSError(code, os.strerror(code))

    with pytest.raises(ResourceError, match=r"No space left while writing .*a\.txt") as caught, atomic_path(tmp_path / "a.txt"):
        fill()
    assert caught.value.exit_code == 1
    with pytest.raises(ResourceError), atomic_folder(tmp_path / "folder"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_disk_full_at_the_very_end_is_noticed(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # delayed allocation reports a full disk here
    with pytest.raises(ResourceError):
        write_json(tmp_path / "a.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    ],
)
def test_disk_full_in_the_words_of_those_who_write_weights(tmp_path, error):
    with pytest.raises(ResourceError, match="No space left"), atomic_folder(tmp_path / "weights"):
        raise error
    assert not list(tmp_path.iterdir())


def test_a_real_full_disk(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ResourceError), atomic_path(tmp_path / "a"), open("/dev/full", "w") as full:
        full.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_files_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="cannot be written"), atomic_path(tmp_path / "file" / "a.txt"):
        pytest.fail("must not get here")
    for target in (tmp_path, tmp_path / ("n" * 300)):  # a folder, and a name that is too long
        with pytest.raises(UsageError, match="cannot be written"), atomic_path(target) as temporary:
            temporary.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_caller_is_not_mistaken_for_a_bad_place(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        open(tmp_path / "what the caller reads")


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_many_threads_write_one_file_and_leave_one_whole_value(tmp_path):
    threads = [threading.Thread(target=write_json, args=(tmp_path / "a.json", [i] * 2000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    value = read_json(tmp_path / "a.json")
    assert value == [value[0]] * 2000
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_folder_is_replaced_only_on_request(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(UsageError, match="already exists"), atomic_folder(target):
        pytest.fail("must not get here")
    with pytest.raises(FileNotFoundError), atomic_folder(target, overwrite=True) as temporary:
        (temporary / "no such folder" / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["a"]
    with atomic_folder(target, overwrite=True) as temporary:
        (temporary / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_has_one_writer(tmp_path):
    folder = tmp_path / "new" / "run"
    with sole_writer(folder):
        assert not list(folder.iterdir())
        with pytest.raises(UsageError, match="Another process is writing"), sole_writer(folder):
            pass
    with sole_writer(folder):
        (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), sole_writer(tmp_path / "file"):
        pass


def test_a_place_is_tried_before_long_work(tmp_path):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "out.mp4")
    check_writable(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "new"]
    for bad in (tmp_path, tmp_path / "file" / "out.mp4"):
        with pytest.raises(UsageError, match=bad.name):
            check_writable(bad)


def test_fields_are_an_object(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UsageError, match=r"a\.json' must hold fields, not list"):
        read_fields(tmp_path / "a.json")


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("{", "not valid JSON"), (b"\xff", "not valid JSON")])
def test_read_json_explains(tmp_path, content, words):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=words) as error:
        read_json(file)
    assert "a.json" in error.value.message
