"""What a command costs with everything that it starts: CPU seconds, the largest process, and all processes together (Linux).

Orphans come back to the measuring process, which is made their reaper; Ray's processes are such. CPU seconds are those of all
processes that were reaped or, if more, the last that was seen of each in /proc, five times per second (a parent that ignores the
end of its children leaves them out of its own account). Resident sizes are sampled alike; pages that processes share count in each.
"""

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
EVERY_S = 0.2
TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def measured(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> dict:
    """Run a command to its end: {"returncode", "out", "error", "wall_s", "cpu_s", "peak_mb", "peak_sum_mb", "load"}."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, started = _reaped_s(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd)
    seen: dict[tuple[int, str], float] = {}
    peak = peak_sum = 0.0
    out, error, wall_s = b"", b"", 0.0
    while True:
        sizes = _sample(process.pid, seen)
        peak, peak_sum = max([peak, *sizes]), max(peak_sum, sum(sizes))
        try:
            out, error = process.communicate(timeout=EVERY_S)
            break
        except subprocess.TimeoutExpired:
            continue
    wall_s = time.perf_counter() - started
    _reap_orphans()
    return {
        "returncode": process.returncode,
        "out": out.decode(errors="replace"),
        "error": error.decode(errors="replace"),
        "wall_s": round(wall_s, 2),
        "cpu_s": round(max(_reaped_s() - before, sum(seen.values())), 2),
        "peak_mb": round(peak, 1),
        "peak_sum_mb": round(peak_sum, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _reaped_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _sample(root: int, seen: dict[tuple[int, str], float]) -> list[float]:
    """Megabytes of every process below this one; what CPU each has taken goes into `seen`."""
    facts: dict[int, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
    ours, sizes = {os.getpid()}, []
    while more := {pid for pid, fact in facts.items() if int(fact[1]) in ours} - ours:
        ours |= more
    for pid in ours - {os.getpid()}:
        fact = facts.get(pid)
        if fact is not None:
            seen[pid, fact[19]] = (int(fact[11]) + int(fact[12])) / TICK
            sizes.append(int(fact[21]) * PAGE / 1e6)
    return sizes


def _reap_orphans(wait_s: float = 20.0) -> None:
    """Wait for processes that outlive the command (Ray's take a moment to end)."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(EVERY_S)
