"""Files that are either whole or absent: write to a temporary name beside the target, sync, rename."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from worldfoundry.core.errors import ResourceError, UsageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, on any error it is removed.

    Raises ResourceError when the disk is full, so that a half-written file never carries the final name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:8]}{path.suffix}")
    with disk_full_is_clear(path):
        with _place_is_writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            with _place_is_writable(path):
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` on success. `overwrite` replaces an existing one."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{str(path)!r} already exists.", "Choose another folder, or remove it first.")
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    with disk_full_is_clear(path):
        with _place_is_writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        try:
            yield temporary
            old = path.with_name(f"{temporary.name}-old")
            if path.exists():
                path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if absent) so that no second process writes there; the lock ends with the process, however it ends.

    Raises UsageError if another process holds it. Where the system has no such locks (Windows, some network disks), nothing
    is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with disk_full_is_clear(folder), _place_is_writable(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is writing to {str(folder)!r}.", "Wait until it has ended, or choose another folder."
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(descriptor)


@contextmanager
def disk_full_is_clear(path: Path) -> Iterator[None]:
    """Turn ENOSPC (and quota) into one clear ResourceError that names the path."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if _says_disk_full(error):
            raise ResourceError(
                f"No space left while writing {str(path)!r}; nothing was left under that name.",
                "Free some disk and run the same command again.",
            ) from error
        raise


def _says_disk_full(error: BaseException) -> bool:
    """Python's own error, safetensors' text of it, and the short write that torch's zip writer notices."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    codes = [f"os error {code}" for code in (errno.ENOSPC, errno.EDQUOT)]
    return any(code in str(error) for code in codes) or ("inline_container" in str(error) and "unexpected pos" in str(error))


@contextmanager
def _place_is_writable(path: Path) -> Iterator[None]:
    """Turn a place that takes no files (no permission, read-only, a file where a folder should be) into a UsageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}.", "Choose another place for it.") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, two-space indented, keys in the order given."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def read_fields(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises UsageError that names the file if it is absent, malformed or anything but an object."""
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise UsageError(f"The file {str(path)!r} must hold fields, not {type(fields).__name__}.")
    return fields


def check_writable(path: Path) -> None:
    """Whether a file can be put at `path`, asked before long work. Raises UsageError or ResourceError; leaves no file."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder.", "Choose another place for the file.")
    probe = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:8]}")
    with disk_full_is_clear(path), _place_is_writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()


def read_json(path: Path) -> Any:
    """Read JSON; raises UsageError that names the file if it is absent or malformed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The file {str(path)!r} is not valid JSON: {error}.") from error
