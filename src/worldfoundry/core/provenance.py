"""What produced a file: command, code version, seeds, hardware, hours, metrics. Written as provenance.json."""

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worldfoundry import __version__
from worldfoundry.core.devices import hardware


def provenance(**facts: Any) -> dict[str, Any]:
    """The standing facts of this process plus `facts` (recipe, data manifest hash, seed, hours, metrics, …)."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "worldfoundry": __version__,
        "commit": code_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "hardware": hardware(),
        **facts,
    }


def code_commit() -> str | None:
    """The git commit of a source checkout, with `+dirty` for local changes; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10
        )
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (commit.stdout.strip() + ("+dirty" if dirty.stdout.strip() else "")) or None


def machine(hardware_facts: dict[str, Any]) -> str:
    """`hardware()` in a few words, for cards and reports."""
    gpus = "".join(f" + {gpu}" for gpu in hardware_facts["gpus"])
    return f"{hardware_facts['cpu']}, {hardware_facts['cores']} cores, {hardware_facts['memory_gib']} GiB{gpus}"
