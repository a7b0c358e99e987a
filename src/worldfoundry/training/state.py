"""The resumable state of a run: `checkpoints/step_00001234/{tensors.safetensors,state.json}` and the link `last`.

Tensors go to safetensors, the rest to JSON; no pickle. Tensors that are split among ranks go to torch's distributed format
instead (`.metadata`, `*.distcp`), each rank writing its part. Names are the same, and either is read by any number of ranks.
A state folder is whole or absent, so kill -9 at any time leaves `last` at the newest complete one.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor, distribute_tensor

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import atomic_folder, read_json
from worldfoundry.training.distributed import Ranks

TENSORS, SHARDS, FACTS, LAST = "tensors.safetensors", ".metadata", "state.json", "last"
ALONE = Ranks()
Like = Callable[[str], Tensor | None]


def anywhere(_: str) -> None:
    """No tensor is split."""


def save_state(
    run: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], keep: int, ranks: Ranks = ALONE
) -> Path:
    """Write one state folder atomically, point `last` at it, and drop the oldest beyond `keep`. Every rank calls it."""
    folder = run / "checkpoints" / f"step_{step:08d}"
    if ranks.sharded:
        _save_shards(folder, tensors, {"step": step, **facts}, ranks)
    elif ranks.main:
        with atomic_folder(folder, overwrite=True) as temporary:
            save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary / TENSORS)
            _write_facts(temporary, {"step": step, **facts})
    if ranks.main:
        _make_last(folder, keep)
    return folder


def _save_shards(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any], ranks: Ranks) -> None:
    """Main makes the folder and puts it in place; between, every rank writes its part."""
    with atomic_folder(folder, overwrite=True) if ranks.main else nullcontext() as made:
        temporary = ranks.from_main(made)
        assert temporary is not None, "main made it"
        try:
            dcp.save(tensors, checkpoint_id=temporary)
        except CheckpointException as error:  # not an Exception, and it hides that a disk is full
            raise _reason(error) from error
        if ranks.main:
            _write_facts(temporary, facts)


def _write_facts(folder: Path, facts: dict[str, Any]) -> None:
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _make_last(folder: Path, keep: int) -> None:
    link = folder.parent / f".{LAST}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(folder.parent / LAST)
    states = _states(folder.parents[1])
    # A later state than this one was put in place by a run that died before it set the link: it is done again.
    kept = [state for state in states if state.name <= folder.name][-keep:]
    for state in states:
        if state not in kept:
            shutil.rmtree(state, ignore_errors=True)


def load_state(run: Path, like: Like = anywhere) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the newest state, or None if the run has none yet. Raises CheckpointError for damage.

    The newest is what `last` points to; where that was removed, the newest that is left. A tensor is split among the ranks
    as what `like` gives for its name, if that has the same shape; otherwise it comes whole.
    """
    last = run / "checkpoints" / LAST
    if not last.exists():
        states = _states(run)
        if not states:
            return None
        last = states[-1]
    try:
        tensors = _load_shards(last, like) if (last / SHARDS).exists() else _load_whole(last, like)
        return tensors, read_json(last / FACTS)
    except (SafetensorError, OSError, UnpicklingError, EOFError, CheckpointException) as error:
        raise CheckpointError(
            f"The training state {str(last)!r} is damaged: {_first_line(_reason(error))}.",
            f"Remove {str(last.resolve())!r} to fall back, or start anew.",
        ) from error


def _load_whole(folder: Path, like: Like) -> dict[str, Tensor]:
    tensors = load_file(folder / TENSORS)
    return {name: _split_as(_match(like(name), tensor.shape), tensor) for name, tensor in tensors.items()}


def _split_as(model: Tensor | None, tensor: Tensor) -> Tensor:
    """This rank's part, cut out of the whole that every rank has read."""
    if not isinstance(model, DTensor):
        return tensor
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def _load_shards(folder: Path, like: Like) -> dict[str, Tensor]:
    """Each rank reads what it needs, however many ranks wrote it."""
    reader = dcp.FileSystemReader(folder)
    found: dict[str, Any] = {}
    for name, stored in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(stored, TensorStorageMetadata), "nothing but tensors is written"
        model = _match(like(name), stored.size)
        dtype = stored.properties.dtype
        found[name] = torch.empty(stored.size, dtype=dtype) if model is None else torch.empty_like(model, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process reads what several wrote: meant so
        dcp.load(found, storage_reader=reader, no_dist=not dist.is_initialized())
    return found


def _match(model: Tensor | None, shape: torch.Size) -> Tensor | None:
    return model if model is not None and model.shape == shape else None


def _reason(error: BaseException) -> BaseException:
    """torch packs what went wrong into a report of every rank; the first one's will do."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) and error.failures else error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")


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
