"""The checkpoint folder: `config.json`, `model.safetensors` (or shards with an index), `README.md`, `provenance.json`.

A published folder never holds a pickle. Loading is strict: every tensor named by the network must be there with its
shape, nothing may be left over, and nothing may be NaN. Networks are built without memory and take the tensors as they are
stored, so a large one is never initialised and never held twice.
"""

import json
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import atomic_folder, read_json
from worldfoundry.core.registry import factory_for

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORMAT = "worldfoundry/1"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_NAMED = 3


def save_component(
    folder: Path,
    module: "nn.Module",
    *,
    kind: str,
    provenance: Mapping[str, Any],
    card: str = "",
    dtype: "torch.dtype | None" = None,
    shard_bytes: int = 4 << 30,
    overwrite: bool = False,
) -> Path:
    """Write a component (a module with a `.config`) as a checkpoint folder, atomically.

    `dtype` casts floating-point tensors; weights above `shard_bytes` are split into shards with an index.
    """
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    if dtype is not None:
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    config: Any = module.config
    with atomic_folder(Path(folder), overwrite=overwrite) as temporary:
        write_component(
            temporary, config.to_dict(), state, kind=kind, provenance=provenance, card=card, shard_bytes=shard_bytes
        )
    return Path(folder)


def write_component(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, "Tensor"],
    *,
    kind: str,
    provenance: Mapping[str, Any],
    card: str = "",
    shard_bytes: int = 4 << 30,
) -> None:
    """Write the files of a checkpoint into an existing folder (not atomic by itself: see `save_component`)."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", {"format": FORMAT, "kind": kind, **config})
    _write_json(folder / "provenance.json", dict(provenance))
    (folder / "README.md").write_text(card or _default_card(kind, config), encoding="utf-8")
    _write_weights(folder, state, shard_bytes)


def load_component(
    folder: Path, *, dtype: "torch.dtype | None" = None, device: "torch.device | str | None" = None, expect: str | None = None
) -> Any:
    """Build the component that `folder` holds and fill it strictly; eval mode, no gradients, `.config`, `.provenance`.

    `dtype=None` keeps the stored dtype. Raises CheckpointError for a missing or damaged folder, another kind than
    `expect`, a newer format, or config and weights that disagree (the tensors are named).
    """
    import torch

    fields = read_config(folder)
    kind = fields.pop("kind")
    if expect is not None and kind != expect:
        raise CheckpointError(f"{str(folder)!r} holds a {kind!r}, but a {expect!r} is needed here.")
    state = read_weights(folder)
    with weightless():
        module = factory_for(kind)(fields)
    fill(module, state, where=str(folder))
    # The widest dtype of the weights. Buffers do not count: a tokenizer keeps its statistics in float32 beside half weights.
    weights = {state[name].dtype for name, parameter in module.named_parameters() if parameter.is_floating_point()}
    module = module.to(dtype=dtype or reduce(torch.promote_types, weights or {torch.float32}))
    module = module.to(device) if device is not None else module
    provenance = folder / "provenance.json"
    module.provenance = read_json(provenance) if provenance.exists() else {}
    return module.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` without its `format`, checked. Raises CheckpointError."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        what = "does not exist" if not folder.exists() else "has no config.json, so it is not a checkpoint folder"
        raise CheckpointError(
            f"{str(folder)!r} {what}.", "Give a folder written by `worldfoundry train` or `worldfoundry convert`."
        )
    fields = read_json(folder / "config.json")
    if not isinstance(fields, dict):
        raise CheckpointError(f"{str(folder / 'config.json')!r} must hold fields, not {type(fields).__name__}.")
    found = fields.pop("format", None)
    if found != FORMAT:
        raise CheckpointError(
            f"{str(folder)!r} has checkpoint format {found!r}; this version reads {FORMAT!r}.",
            "Convert it with `worldfoundry convert`, or update worldfoundry." if found is None else "Update worldfoundry.",
        )
    if "kind" not in fields:
        raise CheckpointError(f"{str(folder / 'config.json')!r} names no kind.")
    return fields


def weightless() -> "torch.device":
    """As a `with` block: networks built in it hold shapes and no memory, until `fill` gives them tensors."""
    import torch

    return torch.device("meta")


def fill(module: "nn.Module", state: Mapping[str, "Tensor"], *, where: str) -> None:
    """Strict load with an error that names what is missing, left over, of another shape, or not finite.

    A module built in `weightless()` takes copies of the tensors as they are stored (buffers in its own dtype), so that nothing
    is initialised only to be overwritten. Raises CheckpointError.
    """
    want = module.state_dict()
    check_fit({name: tensor.shape for name, tensor in want.items()}, state, what=f"Weights and config of {where!r} disagree")
    if not any(tensor.is_meta for tensor in want.values()):
        module.load_state_dict(dict(state), strict=True)
        return
    buffers = {name for name, _ in module.named_buffers()}
    own = {name: state[name].to(want[name].dtype if name in buffers else state[name].dtype, copy=True) for name in want}
    tied = [names for names in _names_by_parameter(module) if len(names) > 1]
    module.load_state_dict(own, strict=True, assign=True)
    for first, *others in tied:
        for name in others:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, module.get_parameter(first))
    left = [name for name, tensor in [*module.named_parameters(), *module.named_buffers()] if tensor.is_meta]
    if left:  # a buffer outside the state dict has only what the constructor puts there
        raise ValueError(f"{type(module).__name__} keeps {left} out of its state dict: build it outside `weightless()`")


def check_fit(want: Mapping[str, "torch.Size"], state: Mapping[str, "Tensor"], *, what: str, ignore: str = r"(?!)") -> None:
    """Whether `state` has exactly these names and shapes (names that match `ignore` may be left over) and is finite.

    Raises CheckpointError that begins with `what`, counts each sort of disagreement, and names up to three tensors of it.
    """
    import torch

    unexpected = [name for name in state if name not in want and not re.fullmatch(ignore, name)]
    both = sorted(want.keys() & state.keys())
    shapes = [f"{n} is {list(state[n].shape)}, config says {list(want[n])}" for n in both if state[n].shape != want[n]]
    broken = [n for n in both if state[n].is_floating_point() and not torch.isfinite(state[n]).all()]
    sorts = {
        "of another shape": shapes,
        "missing": sorted(f"missing {name}" for name in want if name not in state),
        "unexpected": sorted(f"unexpected {name}" for name in unexpected),
        "not finite": [f"{name} holds NaN or infinity" for name in broken],
    }
    found = {sort: lines for sort, lines in sorts.items() if lines}
    if found:
        said = [
            "; ".join(lines[:MAX_NAMED]) + (f"; and {len(lines) - MAX_NAMED} more {sort}" if len(lines) > MAX_NAMED else "")
            for sort, lines in found.items()
        ]
        counts = ", ".join(f"{len(lines)} {sort}" for sort, lines in found.items())
        raise CheckpointError(f"{what} ({counts} of {len(want)} tensors): {'; '.join(said)}.")


def _names_by_parameter(module: "nn.Module") -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return list(groups.values())


def read_weights(folder: Path) -> dict[str, "Tensor"]:
    """All tensors of a folder, whether in one file or in shards. Raises CheckpointError for damage or absence."""
    return {name: tensor for file in _weight_files(Path(folder)) for name, tensor in _read_safetensors(file).items()}


def _weight_files(folder: Path) -> list[Path]:
    for weights, index in (
        (WEIGHTS, INDEX),
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    ):
        if (folder / index).is_file():
            return _shards_of(folder / index)
        if (folder / weights).is_file():
            return [folder / weights]
    raise CheckpointError(f"{str(folder)!r} holds no {WEIGHTS}.", "The checkpoint is incomplete; copy it again.")


def _shards_of(index: Path) -> list[Path]:
    """The shard files that an index names; plain file names only, so that an index cannot point outside its folder."""
    listed = read_json(index)
    names = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(names, dict) or any(not isinstance(n, str) or Path(n).name != n for n in names.values()):
        raise CheckpointError(f"The index {str(index)!r} is malformed.", "Copy or download the checkpoint again.")
    return [index.parent / name for name in sorted(set(names.values()))]


def _read_safetensors(file: Path) -> dict[str, "Tensor"]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"The weights file {str(file)!r} is missing.", "The checkpoint is incomplete; copy it again."
        ) from error
    except SafetensorError as error:
        raise CheckpointError(f"The weights file {str(file)!r} is damaged: {error}.", "Copy or download it again.") from error


def _write_weights(folder: Path, state: Mapping[str, "Tensor"], shard_bytes: int) -> None:
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in _without_sharing(state).items():
        nbytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(t.numel() * t.element_size() for t in state.values())
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _without_sharing(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Contiguous tensors of which no two share memory (tied weights, views), as safetensors wants them."""
    owners: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in owners or storage.nbytes() != tensor.numel() * tensor.element_size()
        owners.add(storage.data_ptr())
        own[name] = tensor.contiguous().clone() if shared else tensor.contiguous()
    return own


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _default_card(kind: str, config: Mapping[str, Any]) -> str:
    fields = "\n".join(f"- `{key}`: {value}" for key, value in config.items())
    header = f"---\nlibrary_name: worldfoundry\ntags: [{kind}]\n---\n\n"
    return f"{header}# A {kind} written by WorldFoundry\n\n{fields}\n\nHow it was made: `provenance.json`.\n"
