"""The resumable state of a run: `checkpoints/step_00001234/{tensors.safetensors,state.json}` and the link `last`.

Tensors go to safetensors, the rest to JSON; no pickle. A state folder is whole or absent, so kill -9 at any time
leaves `last` at the newest complete one.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import atomic_folder, read_json

TENSORS, FACTS, LAST = "tensors.safetensors", "state.json", "last"


def save_state(run: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], keep: int) -> Path:
    """Write one state folder atomically, point `last` at it, and drop the oldest beyond `keep`."""
    folder = run / "checkpoints" / f"step_{step:08d}"
    with atomic_folder(folder, overwrite=True) as temporary:
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary / TENSORS)
        (temporary / FACTS).write_text(json.dumps({"step": step, **facts}), encoding="utf-8")
    link = folder.parent / f".{LAST}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(folder.parent / LAST)
    states = _states(run)
    # A later state than this one was put in place by a run that died before it set the link: it is done again.
    kept = [state for state in states if state.name <= folder.name][-keep:]
    for state in states:
        if state not in kept:
            shutil.rmtree(state, ignore_errors=True)
    return folder


def load_state(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the newest state, or None if the run has none yet. Raises CheckpointError for damage.

    The newest is what `last` points to; where that was removed, the newest that is left.
    """
    last = run / "checkpoints" / LAST
    if not last.exists():
        states = _states(run)
        if not states:
            return None
        last = states[-1]
    try:
        return load_file(last / TENSORS), read_json(last / FACTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The training state {str(last)!r} is damaged: {error}.",
            f"Remove {str(last.resolve())!r} to fall back, or start anew.",
        ) from error


@contextmanager
def understood(run: Path) -> Iterator[None]:
    """Turn a state that lacks something, or does not fit the run's network, into one CheckpointError."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        folder = (run / "checkpoints" / LAST).resolve()
        raise CheckpointError(
            f"The training state {str(folder)!r} is damaged: {what.rstrip('.:')}.", "Remove it to fall back, or start anew."
        ) from error


def clean_leftovers(run: Path) -> None:
    """Remove the half-written states and links of processes that were killed. The caller is the folder's sole writer."""
    for left in [*(run / "checkpoints").glob(".step_*"), *(run / "checkpoints").glob(f".{LAST}-*")]:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def has_state(run: Path) -> bool:
    """Whether the run has saved anything."""
    return bool(_states(run))


def _states(run: Path) -> list[Path]:
    """Complete state folders, oldest first."""
    return sorted((run / "checkpoints").glob("step_*"))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments as `optim.<parameter number>.<name>` tensors."""
    state = optimizer.state_dict()["state"]
    return {f"optim.{i}.{name}": torch.as_tensor(value) for i, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`. Moments get the memory layout of their parameter: fused kernels take it for granted."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optim."):
            _, number, name = key.split(".", 2)
            parameter = parameters[int(number)]
            same_shape = value.shape == parameter.shape
            laid_out = torch.empty_like(parameter, dtype=value.dtype).copy_(value) if same_shape else value
            state.setdefault(int(number), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
