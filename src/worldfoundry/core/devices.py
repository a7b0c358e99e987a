"""Which device to run on, in which dtype, and what this machine is."""

import math
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldfoundry.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
NO_LIMIT = 2**62
"""Bytes of memory where nothing limits them."""


def pick_device(name: str = "auto") -> "torch.device":
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises ConfigError for a device that this machine lacks."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind, _, index = name.partition(":")
    if kind not in counts or not (index.isdecimal() or name == kind):
        raise ConfigError(f"Unknown device {name!r}.", "Use auto, cpu, cuda, cuda:0 or mps.")
    device, count = torch.device(name), counts[kind]
    if kind != "cpu" and int(index or 0) >= count:
        raise ConfigError(
            f"Device {name!r} was asked for, but torch {torch.__version__} sees {count} such.", "Use --device cpu."
        )
    return device


def pick_dtype(name: str | None) -> "torch.dtype | None":
    """`None` keeps the stored dtype. Raises ConfigError for an unknown name."""
    import torch

    if name is None:
        return None
    if name not in DTYPES:
        raise ConfigError(f"Unknown dtype {name!r}.", f"Use one of {', '.join(DTYPES)}.")
    return getattr(torch, name)


def cpu_flags() -> set[str]:
    """Instruction-set flags of the first CPU (empty where /proc is absent)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((set(line.split(":")[1].split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return set()


def fast_bfloat16(device: "torch.device") -> bool:
    """Whether bfloat16 matrix work is faster than float32 here: CUDA capability 8, or a CPU with the instructions."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def package_version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """What a result must name: CPU model and count, memory, accelerators, versions."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def available_cores() -> int:
    """Cores this process may use (containers and affinity respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


def matrix_rate(device: "torch.device", dtype: "torch.dtype", seconds: float = 0.2) -> float:
    """Floating-point operations per second of a square matrix product, the best of as many as fit in `seconds` (2 at least)."""
    import torch

    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end, count = math.inf, time.perf_counter() + seconds, 0
    while count < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return 2 * side**3 / best


def free_memory(device: "torch.device") -> int:
    """Bytes that can still be allocated: on CUDA with what torch holds in reserve, on a CPU within the container's limit."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return NO_LIMIT if device.type == "meta" else min(_available_memory(), _container_memory())


def _available_memory() -> int:
    """What Linux says can be had without swapping; all of the memory elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_memory() -> int:
    """What the control group still allows; no limit where there is none."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        parts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return int(limit) - used + int(parts.get("inactive_file", 0))  # files read before are let go of when memory is short
    except (OSError, ValueError):  # no such group, or "max"
        return NO_LIMIT
