"""Translate a checkpoint between layouts: ours, diffusers', and the originals (`.pt`, `encoder.jit` + `decoder.jit`, …)."""

import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.core.files import atomic_folder, read_fields
from worldfoundry.core.provenance import provenance
from worldfoundry.inference.load import from_original, load_part

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["worldfoundry", "diffusers", "original"]
JIT_NAMES = ("autoencoder.jit", "encoder.jit", "decoder.jit")
ORIGINAL_NAMES = (*JIT_NAMES, "model.pt")
RANK_FILES = "*model_mp_*.pt"
MEAN_STD = "mean_std.pt"
JIT_SECONDS = 600
# What unpickling bytes that are no checkpoint has been seen to raise.
UNREADABLE = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    LookupError,
    EOFError,
    OSError,
    TypeError,
    AttributeError,
    struct.error,
)
READ_JIT = """
import sys, torch
from safetensors.torch import save_file
state = torch.jit.load(sys.argv[1], map_location="cpu").state_dict()
save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, sys.argv[2])
"""


def convert(
    source: Path,
    target: Path,
    *,
    to: Layout = "worldfoundry",
    original_config: Path | str | None = None,
    tensor_parallel: int = 1,
) -> Path:
    """Write `source` (a folder in any layout, or a `.pt` / `.jit` file) as a new folder `target` in layout `to`.

    Original layouts do not hold the constructor's arguments, so `original_config` (a JSON file, or the name of a published
    tokenizer or transformer) must, unless the folder bears the published name. Latent statistics in a `mean_std.pt` beside the
    weights come along. An autoregressive transformer is written in `tensor_parallel` shards, and read from any number. Raises
    CheckpointError for what a layout cannot express, UsageError for an existing target.
    """
    component = read_any(Path(source), original_config)
    kind = component_kind(component)
    if tensor_parallel > 1 and (kind, to) != ("autoregressive", "original"):
        raise UsageError(
            f"A {kind!r} in {to} layout is not written in shards (tensor_parallel {tensor_parallel!r}).",
            "Shards are for an autoregressive transformer --to original.",
        )
    if to == "worldfoundry":
        facts = provenance(converted_from=Path(source).name, source_layout=component.provenance.get("layout", "worldfoundry"))
        return save_component(target, component, kind=kind, provenance=facts)
    state, config = _express(component, kind, to)
    with atomic_folder(Path(target)) as temporary:
        _write(temporary, state, config, to, tensor_parallel)
        if to == "original" and kind == "tokenizer":
            _write_mean_std(temporary / MEAN_STD, component)
    return Path(target)


def read_any(source: Path, original_config: Path | str | None = None) -> Any:
    """The component at `source`, whatever its layout."""
    if not source.exists():
        raise CheckpointError(f"There is no checkpoint {str(source)!r}.")
    if source.is_dir() and (source / "model_index.json").is_file():
        raise UsageError(f"{str(source)!r} is a world; convert its parts one by one.", "For example its `transformer` folder.")
    if original_config is None and source.is_dir() and _is_ours_or_diffusers(source):
        return load_part(source)
    state = read_original(source)
    arguments = _constructor_arguments(source, original_config)
    kind = guess_kind(state)
    component = from_original(kind, state, arguments)
    statistics = (source if source.is_dir() else source.parent) / MEAN_STD
    if kind == "tokenizer" and statistics.is_file():
        component.set_statistics(*read_mean_std(statistics, component.spec.channels))
    return component


def _is_ours_or_diffusers(folder: Path) -> bool:
    """Published original folders may hold a config.json of another kind."""
    if not (folder / "config.json").is_file():
        return False
    fields = read_fields(folder / "config.json")
    return "_class_name" in fields or "format" in fields or not any((folder / name).is_file() for name in ORIGINAL_NAMES)


def _constructor_arguments(source: Path, given: Path | str | None) -> Mapping[str, Any]:
    """From a JSON file, or the name of a published tokenizer or transformer: the one given, else the folder's own."""
    if given is not None and Path(given).is_file():
        return read_fields(Path(given))
    from worldfoundry.autoregressive import original as autoregressive
    from worldfoundry.autoregressive.config import ar_size
    from worldfoundry.tokenizers.config import NAMED, named_config
    from worldfoundry.tokenizers.original import config_to_original

    if given is not None and Path(given).suffix == ".json":
        return read_fields(Path(given))
    name = str(given or (source if source.is_dir() else source.parent).resolve().name)
    if name in autoregressive.PUBLISHED:
        return autoregressive.config_to_original(ar_size(autoregressive.PUBLISHED[name]))
    if given is None and name not in NAMED:
        raise UsageError(
            f"{str(source)!r} is in an original layout, which does not say how the network was constructed.",
            "Give the constructor's arguments, --config original.json, or the published name, for example "
            "--config Cosmos-Tokenize1-CV8x8x8-720p or --config Cosmos-Predict1-4B.",
        )
    return config_to_original(named_config(name))


def read_mean_std(file: Path, channels: int) -> "tuple[Tensor, Tensor]":
    """The pair of latent statistics [channels, latent frames] of a published `mean_std.pt`. Raises CheckpointError."""
    loaded = _load_pt(file)
    fits = isinstance(loaded, tuple | list) and len(loaded) == 2 and all(hasattr(part, "numel") for part in loaded)
    if not fits or loaded[0].numel() != loaded[1].numel() or not loaded[0].numel() or loaded[0].numel() % channels:
        shapes = (
            [list(getattr(part, "shape", ())) for part in loaded] if isinstance(loaded, tuple | list) else type(loaded).__name__
        )
        raise CheckpointError(
            f"{str(file)!r} must hold a mean and a deviation for {channels} channels, not {shapes}.",
            "Take the mean_std.pt that belongs to this tokenizer.",
        )
    mean, std = (part.float().reshape(channels, -1) for part in loaded)
    return mean, std


def read_original(source: Path) -> dict[str, "Tensor"]:
    """The state dict of a `.pt` (read with weights_only) or of TorchScript files (read in another process)."""
    files = [source] if source.is_file() else [source / name for name in ORIGINAL_NAMES if (source / name).is_file()]
    if not files and (ranks := list(source.glob(RANK_FILES))):
        return _read_ranks(source, ranks)
    if not files:
        raise CheckpointError(f"{str(source)!r} holds none of {', '.join(JIT_NAMES)}, model.pt or config.json.")
    state: dict[str, Tensor] = {}
    for file in files[:1] if files[0].name in ("autoencoder.jit", "model.pt") else files:
        state |= _read_jit(file) if file.suffix == ".jit" else _read_pt(file)
    return state


def _read_pt(file: Path) -> "dict[str, Tensor]":
    """The tensors of a `.pt` by name. Raises CheckpointError for a file that holds anything else."""
    loaded = _load_pt(file)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{str(file)!r} must hold a state dict, not {type(loaded).__name__}.")
    nested = loaded.get("model")
    state = dict(nested if isinstance(nested, Mapping) else loaded)
    others = sorted(str(name) for name, value in state.items() if not hasattr(value, "numel") and not is_ignorable(name))
    if others:
        raise CheckpointError(
            f"{str(file)!r} must hold tensors by name; {', '.join(map(repr, others[:3]))} ({len(others)} in all) are none.",
            "Give the file of weights, not a training state.",
        )
    return state


def _read_ranks(folder: Path, files: list[Path]) -> "dict[str, Tensor]":
    """One whole state dict from the `…model_mp_{rank}.pt` of a tensor-parallel training. Raises CheckpointError for a gap."""
    from worldfoundry.autoregressive.original import merge_shards

    by_rank = {int(file.stem.rpartition("_")[2]): file for file in files if file.stem.rpartition("_")[2].isdecimal()}
    missing = sorted(set(range(max(by_rank, default=0) + 1)) - by_rank.keys())
    if missing or len(by_rank) != len(files):
        raise CheckpointError(
            f"The {len(files)} shards in {str(folder)!r} are not ranks 0, 1, … of one checkpoint; rank {missing[:1] or [0]} is amiss.",
            "Put exactly the shards of one checkpoint, model_model_mp_0.pt and so on, into the folder.",
        )
    shards = [_read_pt(by_rank[rank]) for rank in sorted(by_rank)]
    return merge_shards([{n: t for n, t in shard.items() if not is_ignorable(n)} for shard in shards])


def is_ignorable(name: Any) -> bool:
    """What Transformer Engine leaves beside the weights."""
    return str(name).endswith("_extra_state")


def _load_pt(file: Path) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # Torch's own words would advise loading it unsafely.
        raise CheckpointError(f"{str(file)!r} cannot be read safely as torch weights.", "Copy or download it again.") from error


def _read_jit(file: Path) -> dict[str, "Tensor"]:
    """TorchScript can run code, so another process opens it and hands over the tensors alone."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "state.safetensors"
        command = [sys.executable, "-c", READ_JIT, str(file), str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=JIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(
                f"{str(file)!r} took more than {JIT_SECONDS} s to open as TorchScript.",
                "Copy it to a local disk and try again.",
            ) from error
        if done.returncode or not out.exists():
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1][:150]
            raise CheckpointError(f"{str(file)!r} cannot be read as TorchScript: {reason}")
        return load_file(out)


def guess_kind(state: Mapping[str, Any]) -> str:
    """Tokenizer, DiT or autoregressive transformer, by the names of the tensors."""
    names = {name.removeprefix("net.").removeprefix("model.") for name in state}
    if "tok_embeddings.weight" in names:
        return "autoregressive"
    if any(name.startswith(("encoder.", "decoder.", "quant_conv.")) for name in names):
        return "tokenizer"
    if any(name.startswith("x_embedder.") for name in names):
        return "dit"
    raise CheckpointError(f"These {len(names)} tensors are of no known original checkpoint, for example {sorted(names)[:2]!r}.")


def component_kind(component: Any) -> str:
    """`tokenizer`, `dit` or `autoregressive`."""
    from worldfoundry.autoregressive.transformer import Transformer

    if isinstance(component, Transformer):
        return "autoregressive"
    return "tokenizer" if hasattr(component, "spec") else "dit"


def _express(component: Any, kind: str, to: Layout) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    if kind == "tokenizer":
        from worldfoundry.tokenizers import diffusers, original

        if to == "original":
            return original.to_original(component), original.config_to_original(component.config)
        return diffusers.to_diffusers(component), diffusers.config_to_diffusers(component)
    if kind == "autoregressive":
        from worldfoundry.autoregressive import original as ar_original

        if to == "original":
            return ar_original.to_original(component), ar_original.config_to_original(component.config)
        raise CheckpointError("There is no diffusers layout for an autoregressive transformer.", "Convert it --to original.")
    from worldfoundry.diffusion import diffusers as dit_diffusers
    from worldfoundry.diffusion import original as dit_original

    if to == "original":
        return dit_original.to_original(component), dit_original.config_to_original(component.config)
    return dit_diffusers.to_diffusers(component), dit_diffusers.config_to_diffusers(component.config)


def _write(folder: Path, state: Mapping[str, "Tensor"], config: Mapping[str, Any], to: Layout, tensor_parallel: int) -> None:
    """diffusers: config.json and safetensors. Original: model.pt (a plain dict of tensors), or one per rank, and original.json."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    name = "config.json" if to == "diffusers" else "original.json"
    (folder / name).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if to == "diffusers":
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    elif tensor_parallel == 1:
        torch.save(tensors, folder / "model.pt")
    else:
        from worldfoundry.autoregressive.original import split_shards

        for rank, shard in enumerate(split_shards(tensors, tensor_parallel)):
            torch.save(shard, folder / f"model_model_mp_{rank}.pt")


def _write_mean_std(file: Path, component: Any) -> None:
    """Latent statistics as the original code reads them; nothing for a tokenizer that was never measured."""
    import torch

    mean, std = component.latent_mean.float().cpu(), component.latent_std.float().cpu()
    if mean.any() or (std != 1).any():
        torch.save((mean.clone(), std.clone()), file)
