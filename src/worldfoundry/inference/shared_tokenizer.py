"""A world's tokenizer by name: worlds that ship with the package share its tokenizers instead of carrying a copy each.

In `model_index.json`, `"vae": ["worldfoundry", "tokenizer"]` means the folder `vae`, and a third entry
`{"shipped": NAME, "sha256": …}` means the shipped tokenizer of that name with exactly those weights.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.shipped import WEIGHTS, shipped_models
from worldfoundry.inference.load import load_part


def shared_entry(name: str) -> list[Any]:
    """The `vae` entry of a world that uses the shipped tokenizer `name`."""
    return ["worldfoundry", "tokenizer", {"shipped": name, "sha256": _weights_hash(WEIGHTS / name)}]


def read_world_tokenizer(
    folder: Path, index: Mapping[str, Any], *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Any:
    """The tokenizer of a world folder: its `vae`, or the shipped one that the index names.

    Raises CheckpointError if that one is not in this version of the package, or has other weights.
    """
    shared = shared_with(index)
    if shared is None:
        return load_part(folder / "vae", dtype=dtype, device=device)
    name = str(shared.get("shipped"))
    known = shipped_models()
    if name not in known or _weights_hash(known[name].folder) != shared.get("sha256"):
        state = "has other weights" if name in known else "is not part"
        raise CheckpointError(
            f"The world {str(folder)!r} decodes with the shipped tokenizer {name!r}, which {state} in this version.",
            "Install the version that the world came with.",
        )
    return load_part(known[name].folder, dtype=dtype, device=device)


def shared_with(index: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the index says of a shared tokenizer; None where the world has its own."""
    entry = index.get("vae")
    named = entry[2] if isinstance(entry, list) and len(entry) > 2 else None
    return named if isinstance(named, dict) else None


def _weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
