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


def convert(source: Path, target: Path, *, to: Layout = "worldfoundry", original_config: Path | None = None) -> Path:
    """Write `source` (a folder in any layout, or a `.pt` / `.jit` file) as a new folder `target` in layout `to`.

    Original layouts do not hold the constructor's arguments, so `original_config` (a JSON file) must.
    Raises CheckpointError for what a layout cannot express, UsageError for an existing target.
    """
    component = read_any(Path(source), original_config)
    kind = component_kind(component)
    if to == "worldfoundry":
        facts = provenance(converted_from=Path(source).name, source_layout=component.provenance.get("layout", "worldfoundry"))
        return save_component(target, component, kind=kind, provenance=facts)
    state, config = _express(component, kind, to)
    with atomic_folder(Path(target)) as temporary:
        _write(temporary, state, config, to)
    return Path(target)


def read_any(source: Path, original_config: Path | None = None) -> Any:
    """The component at `source`, whatever its layout."""
    if not source.exists():
        raise CheckpointError(f"There is no checkpoint {str(source)!r}.")
    if source.is_dir() and (source / "model_index.json").is_file():
        raise UsageError(f"{str(source)!r} is a world; convert its parts one by one.", "For example its `transformer` folder.")
    if source.is_dir() and (source / "config.json").is_file() and original_config is None:
        return load_part(source)
    state = read_original(source)
    if original_config is None:
        raise UsageError(
            f"{str(source)!r} is in an original layout, which does not say how the network was constructed.",
            "Give the constructor's arguments: --config original.json.",
        )
    return from_original(guess_kind(state), state, read_fields(original_config))


def read_original(source: Path) -> dict[str, "Tensor"]:
    """The state dict of a `.pt` (read with weights_only) or of TorchScript files (read in another process)."""
    import torch

    files = [source] if source.is_file() else [source / name for name in (*JIT_NAMES, "model.pt") if (source / name).is_file()]
    if not files:
        raise CheckpointError(f"{str(source)!r} holds none of {', '.join(JIT_NAMES)}, model.pt or config.json.")
    state: dict[str, Tensor] = {}
    for file in files[:1] if files[0].name in ("autoencoder.jit", "model.pt") else files:
        if file.suffix == ".jit":
            state |= _read_jit(file)
            continue
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            # Torch's own words would advise loading it unsafely.
            raise CheckpointError(
                f"{str(file)!r} cannot be read safely as torch weights.", "Copy or download it again."
            ) from error
        if not isinstance(loaded, Mapping):
            raise CheckpointError(f"{str(file)!r} must hold a state dict, not {type(loaded).__name__}.")
        nested = loaded.get("model")
        state |= nested if isinstance(nested, Mapping) else loaded
    return state


def _read_jit(file: Path) -> dict[str, "Tensor"]:
    """TorchScript can run code, so another process opens it and hands over the tensors alone."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "state.safetensors"
        done = subprocess.run(
            [sys.executable, "-c", READ_JIT, str(file), str(out)], capture_output=True, text=True, timeout=600
        )
        if done.returncode or not out.exists():
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1][:150]
            raise CheckpointError(f"{str(file)!r} cannot be read as TorchScript: {reason}")
        return load_file(out)


def guess_kind(state: Mapping[str, Any]) -> str:
    """Tokenizer or DiT, by the names of the tensors."""
    names = {name.removeprefix("net.") for name in state}
    if any(name.startswith(("encoder.", "decoder.", "quant_conv.")) for name in names):
        return "tokenizer"
    if any(name.startswith("x_embedder.") for name in names):
        return "dit"
    raise CheckpointError(f"These {len(names)} tensors are of no known original checkpoint, for example {sorted(names)[:2]!r}.")


def component_kind(component: Any) -> str:
    """`tokenizer` or `dit`."""
    return "tokenizer" if hasattr(component, "spec") else "dit"


def _express(component: Any, kind: str, to: Layout) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    if kind == "tokenizer":
        from worldfoundry.tokenizers import diffusers, original

        if to == "original":
            return original.to_original(component), original.config_to_original(component.config)
        return diffusers.to_diffusers(component), diffusers.config_to_diffusers(component)
    from worldfoundry.diffusion import diffusers as dit_diffusers
    from worldfoundry.diffusion import original as dit_original

    if to == "original":
        return dit_original.to_original(component), dit_original.config_to_original(component.config)
    return dit_diffusers.to_diffusers(component), dit_diffusers.config_to_diffusers(component.config)


def _write(folder: Path, state: Mapping[str, "Tensor"], config: Mapping[str, Any], to: Layout) -> None:
    """diffusers: config.json and safetensors. Original: model.pt (a plain dict of tensors) and original.json."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    name = "config.json" if to == "diffusers" else "original.json"
    (folder / name).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if to == "diffusers":
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(tensors, folder / "model.pt")
