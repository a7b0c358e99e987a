"""`worldfoundry doctor`: what this machine can do, what is missing, and the line that gets it. Always exits with 0."""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldfoundry import __version__
from worldfoundry.core.config import Config
from worldfoundry.core.devices import available_cores, cpu_flags, package_version

# What a broken or absent library may raise while it is asked what it can do.
BROKEN = (ImportError, OSError, RuntimeError, ValueError, AttributeError, subprocess.SubprocessError)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `ok` False means something is missing that some command wants; `fix` is how to get it."""

    name: str
    value: str
    ok: bool = True
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class DoctorConfig(Config):
    """Say what this machine can do, what is missing, and how to get it. Always exits with 0."""

    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of lines."""
    measure: bool = True
    """Measure matrix multiplication (about a second)."""


def run(config: DoctorConfig) -> int:
    findings = examine(measure=config.measure)
    if config.as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return 0
    for finding in findings:
        print(f"{'ok ' if finding.ok else ' - '} {finding.name:<16}{finding.value}")
        if finding.fix:
            print(f"    {'':<16}get it: {finding.fix}")
    print("\nLines marked - lack something that some commands want. `worldfoundry quickstart` needs no extra and no model.")
    return 0


CONFIG = DoctorConfig


def examine(*, measure: bool) -> list[Finding]:
    """Every finding, in the order of the report. A check that breaks becomes a finding itself."""
    checks: list[Callable[[], Iterable[Finding]]] = [python, torch_build, gpus, cpu, memory, disk, video, simulator, extras]
    checks += [torchvision, models, caches]
    if measure:
        checks.insert(4, matrix_rates)
    return [finding for check in checks for finding in _guarded(check)]


def _guarded(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except BROKEN as error:
        return [Finding(name=check.__name__, value=f"could not be examined: {type(error).__name__}: {error}", ok=False)]


def python() -> list[Finding]:
    where = "virtual environment" if sys.prefix != sys.base_prefix else "system interpreter"
    system = f"{platform.system()} {platform.machine()}"
    return [
        Finding(name="worldfoundry", value=__version__),
        Finding(name="python", value=f"{platform.python_version()} ({where}), {system}"),
    ]


def torch_build() -> list[Finding]:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    threads = torch.get_num_threads()
    return [Finding(name="torch", value=f"{torch.__version__} ({build} build), {threads} threads", facts={"threads": threads})]


def gpus() -> list[Finding]:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names += ["Apple MPS"] if torch.backends.mps.is_available() else []
    return [Finding(name="gpu", value=", ".join(names) or "none (everything also runs on the CPU)", facts={"gpus": names})]


def cpu() -> list[Finding]:
    flags = cpu_flags()
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in flags]
    value = f"{available_cores()} cores, {', '.join(known) or 'no vector flags reported'}"
    fast = bool({"avx512_bf16", "amx_bf16"} & flags)
    return [Finding(name="cpu", value=f"{value}; bfloat16 {'in hardware' if fast else 'emulated: float32 is faster'}")]


def matrix_rates() -> list[Finding]:
    """Best of a few square matrix products, in billions of floating-point operations a second."""
    import torch

    size, rates = 768, {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2))
        best, end = float("inf"), time.perf_counter() + 0.3
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - start)
        rates[str(dtype).removeprefix("torch.")] = round(2 * size**3 / best / 1e9, 1)
    value = ", ".join(f"{name} {rate:g} GFLOP/s" for name, rate in rates.items())
    return [Finding(name="matrix rate", value=value, facts=rates)]


def memory() -> list[Finding]:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (page * os.sysconf(name) / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    enough = total >= 4
    fix = "" if enough else "quickstart wants about 4 GiB; train with a smaller --batch-size"
    return [Finding(name="memory", value=f"{total:.1f} GiB, {free:.1f} GiB unused", ok=enough, fix=fix)]


def disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    enough = free >= 2
    return [Finding(name="disk here", value=f"{free:.1f} GiB free", ok=enough, fix="" if enough else "quickstart wants 2 GiB")]


def video() -> list[Finding]:
    import av
    from av.codec import Codec

    def has(name: str, mode: str) -> bool:
        try:
            Codec(name, mode)  # type: ignore[arg-type]
        except ValueError:
            return False
        return True

    decode = [name for name in ("h264", "hevc", "vp9", "av1", "prores", "mjpeg") if has(name, "r")]
    can_write = has("libx264", "w")
    return [
        Finding(name="video in", value=f"PyAV {av.__version__} decodes {', '.join(decode)}", ok="h264" in decode),
        Finding(
            name="video out",
            value="H.264 (libx264)" if can_write else "this PyAV build has no H.264 encoder",
            ok=can_write,
            fix="" if can_write else "pip install --force-reinstall --only-binary av av",
        ),
    ]


def simulator() -> list[Finding]:
    """MuJoCo, and whether it draws without a display: tried in a process of its own, since a bad driver may abort."""
    if importlib.util.find_spec("mujoco") is None:
        return [Finding(name="simulator", value="mujoco is not installed", ok=False, fix="pip install 'worldfoundry[sim]'")]
    code = "import mujoco; c = mujoco.GLContext(16, 16); c.make_current(); c.free()"
    done = _python(code, MUJOCO_GL="egl")
    name = f"mujoco {package_version('mujoco')}"
    if done is None or done.returncode != 0:
        fix = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
        return [Finding(name="simulator", value=f"{name}, but headless drawing (EGL) fails", ok=False, fix=fix)]
    return [Finding(name="simulator", value=f"{name}, draws without a display (EGL)")]


def extras() -> list[Finding]:
    """Which optional dependencies are here, from the package's own metadata."""
    try:
        lines = requires("worldfoundry") or []
    except PackageNotFoundError:
        return [Finding(name="extras", value="worldfoundry itself is not installed", ok=False, fix="pip install -e .")]
    found: dict[str, list[str]] = {}
    for line in lines:
        if match := re.match(r"([A-Za-z0-9_.-]+).*extra\s*==\s*['\"](\w+)['\"]", line):
            found.setdefault(match[2], []).append(match[1])
    return [_extra(extra, packages) for extra, packages in found.items()]


def _extra(extra: str, packages: list[str]) -> Finding:
    missing = [name for name in packages if package_version(name) is None]
    value = f"lacks {', '.join(missing)}" if missing else ", ".join(packages)
    fix = f"pip install 'worldfoundry[{extra}]'" if missing else ""
    return Finding(name=f"extra [{extra}]", value=value, ok=not missing, fix=fix)


def torchvision() -> list[Finding]:
    """A torchvision built for another torch breaks transformers and diffusers, so it is worse than none."""
    if importlib.util.find_spec("torchvision") is None:
        return [Finding(name="torchvision", value="absent, as it should be")]
    done = _python("import torchvision")
    works = done is not None and done.returncode == 0
    value = "installed and importable" if works else "installed, but broken beside this torch: transformers will fail to import"
    return [Finding(name="torchvision", value=value, ok=works, fix="" if works else "pip uninstall torchvision")]


def models() -> list[Finding]:
    """Other people's weights that commands fetch on first use."""
    from worldfoundry.core.model_store import is_fetched
    from worldfoundry.core.model_table import MODELS

    return [_model(name, is_fetched(name), f"{entry.description}, {entry.size_mb:g} MB") for name, entry in MODELS.items()]


def _model(name: str, here: bool, what: str) -> Finding:
    fix = "" if here else f"worldfoundry models get {name}"
    return Finding(name=f"model {name}", value=what if here else f"{what}: not fetched", ok=here, fix=fix)


def caches() -> list[Finding]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    repositories = sorted(p.name for p in cache.glob("models--*")) if cache.is_dir() else []
    offline = " (offline mode is on)" if constants.HF_HUB_OFFLINE else ""
    return [Finding(name="hf cache", value=f"{cache}: {len(repositories)} models{offline}", facts={"models": repositories})]


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str] | None:
    """Run a line of Python in a fresh process; None if it did not end within a minute."""
    try:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired:
        return None
