"""A child process that works for a parent: it may crash, hang or run out of memory, and the parent goes on.

The child is this module, run with `python -m`: a fresh process, so that no lock or thread of the parent's is in it, and a
script that calls `curate` needs no `if __name__ == "__main__"`. Parent and child talk in pickles over a socket. The child
ends itself when its parent is gone, so nothing is written after a `kill -9`.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, Protocol

from worldfoundry.core.errors import ResourceError, UsageError, WorldFoundryError

Place = tuple[str, str | None]
"""A stage, and the clip that it runs on if it is one per clip."""


class Job(Protocol):
    """What a child can do: `job(row, at)` calls `at(places, allowed_s)` before everything that may hang."""

    def __call__(self, row: dict[str, Any], at: Any) -> Any: ...


class Died(Exception):
    """The child ended while it was at `place`: on its own, or because it took too long."""

    def __init__(self, place: Place | None, timed_out: bool, message: str) -> None:
        self.place, self.timed_out, self.message = place, timed_out, message


class Stopped(Exception):
    """The child was ended on purpose."""


class Child:
    """A process that is started when it is first needed and started anew after it died. For one thread; `stop` is for others."""

    def __init__(self, memory_mb: float, start_s: float = 120.0) -> None:
        self.memory_mb, self.start_s = memory_mb, start_s
        self.stopped = False
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: Connection | None = None

    def call(self, job: Job, row: dict[str, Any]) -> Any:
        """What `job` returns for `row`. Raises Died, or the WorldFoundryError that ended the job."""
        if self.stopped:
            raise Stopped
        process, pipe = self._started()
        place, allowed_s, answered = None, self.start_s, False
        try:
            pipe.send((job, row))
            while True:
                if not pipe.poll(allowed_s):
                    self.close()
                    raise Died(place, True, f"Took longer than the {allowed_s:.0f} s allowed (--timeout-s).")
                kind, *values = pipe.recv()
                if kind == "at":
                    place, allowed_s = values
                elif kind == "error":
                    raise values[0]
                else:
                    answered = True
                    return values[0]
        except (EOFError, ConnectionError) as error:
            code = process.wait()
            self.close()
            if self.stopped:
                raise Stopped from error
            raise Died(place, False, f"The process died with {_cause(code)}.") from error
        finally:
            if not answered:  # whatever ended the call, an interrupt too: this process is not used again
                self.close()

    def stop(self) -> None:
        """End the process for good; a call that waits for it raises Stopped."""
        self.stopped = True
        if self.process is not None:
            self.process.kill()

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin:
                self.process.stdin.close()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self.process is None or self.pipe is None:
            ours, theirs = socket.socketpair()
            command = [sys.executable, "-m", "worldfoundry.curation.child", str(theirs.fileno()), str(self.memory_mb)]
            # Its standard input is a pipe that only the parent holds open: the child knows by it that the parent lives.
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(theirs.fileno(),))
            theirs.close()
            self.pipe = Connection(ours.detach())
            self.pipe.send(sys.path)
        return self.process, self.pipe


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else "unknown"
    return f"signal {-code} ({name})"


def portable(error: WorldFoundryError) -> WorldFoundryError:
    """The same words and exit code in a class that survives a pickle: not all have a plain constructor."""
    kind = next(kind for kind in (UsageError, ResourceError, WorldFoundryError) if isinstance(error, kind))
    return kind(error.message, error.hint)


def main(descriptor: int, memory_mb: float) -> None:
    """Serve until the parent closes the pipe or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and SIGTERM are the parent's to handle
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe = Connection(descriptor)
    sys.path[:] = pipe.recv()
    import worldfoundry.curation.work  # noqa: F401  # before memory is counted

    _limit_memory(memory_mb)
    while True:
        try:
            job, row = pipe.recv()
        except EOFError:
            return
        try:
            answer = "done", job(row, lambda place, allowed_s: pipe.send(("at", place, allowed_s)))
        except WorldFoundryError as error:
            answer = "error", portable(error)
        except ImportError as error:
            answer = "error", UsageError(f"A stage could not be run: {error}.", "Install what it needs.")
        pipe.send(answer)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _limit_memory(memory_mb: float) -> None:
    """Let the process take so much more than it has now; where the system knows no such limit (macOS), nothing is limited."""
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    limit = taken + int(memory_mb * 1e6)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
