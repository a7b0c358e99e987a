"""An autoregressive world on disk: `model_index.json`, `transformer/`, and `vae/` or the name of a shipped tokenizer.

The index says which tokenizer the tokens are of (levels and hashes of its weights): with another one the same numbers would mean
other pictures, and nobody would notice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.conditioning.t5 import T5TextEncoder
from worldfoundry.core.checkpoint import FORMAT, write_component
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import atomic_folder, read_fields, write_json
from worldfoundry.inference.adapters import base_hashes
from worldfoundry.inference.ar_config import AutoregressiveDefaults, TokensIdentity
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.load import load_part
from worldfoundry.inference.offload import Level
from worldfoundry.inference.shared_tokenizer import read_world_tokenizer, shared_entry
from worldfoundry.nn.int8 import Int8Linear
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer

CLASS = "WorldFoundryAutoregressiveWorld"


def save_ar_world(
    folder: Path,
    world: AutoregressiveWorld,
    *,
    provenance: Mapping[str, Any],
    card: str,
    overwrite: bool = False,
    shipped_tokenizer: str | None = None,
) -> Path:
    """Write a world folder, atomically; a tokenizer that ships with the package may be named instead of copied.

    Raises CheckpointError for int8 weights, which are not the world's own.
    """
    if any(isinstance(module, Int8Linear) for module in world.network.modules()):
        raise CheckpointError("A world with int8 weights is for generating, not for saving.", "Load it again without.")
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        parts = (("transformer", "autoregressive", world.network), ("vae", "tokenizer", world.tokenizer))
        for name, kind, part in parts[:1] if shipped_tokenizer else parts:
            state = {k: v.detach().cpu().contiguous() for k, v in part.state_dict().items()}
            write_component(temporary / name, part.config.to_dict(), state, kind=kind, provenance=provenance)
        tokens = TokensIdentity(levels=world.tokenizer.spec.levels, weights=tuple(base_hashes(world.tokenizer)))
        index = {
            "_class_name": CLASS,
            "format": FORMAT,
            "transformer": ["worldfoundry", "autoregressive"],
            "vae": shared_entry(shipped_tokenizer) if shipped_tokenizer else ["worldfoundry", "tokenizer"],
            "tokens": tokens.to_dict(),
            "text_encoder": ["worldfoundry", world.config.text_encoder],
            "defaults": world.config.to_dict(),
        }
        write_json(temporary / "model_index.json", index)
        write_json(temporary / "provenance.json", dict(provenance))
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return folder


def load_ar_world(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    offload: Level | Literal["auto"] = "auto",
    weights: Literal["stored", "int8"] = "stored",
) -> AutoregressiveWorld:
    """Read a world folder. Raises CheckpointError for a missing part, and for another tokenizer than the world's tokens are of."""
    index = read_fields(folder / "model_index.json")
    if index.get("format") != FORMAT:
        raise CheckpointError(f"{str(folder)!r} has world format {index.get('format')!r}; this version reads {FORMAT!r}.")
    where = str(folder / "model_index.json")
    defaults = AutoregressiveDefaults.from_dict(index.get("defaults", ""), where=f"{where}: defaults")
    tokens = TokensIdentity.from_dict(index.get("tokens", ""), where=f"{where}: tokens")
    network = load_part(folder / "transformer", dtype=dtype)
    if not isinstance(network, Transformer):
        raise CheckpointError(
            f"{str(folder / 'transformer')!r} holds no autoregressive transformer.", "Copy the whole world folder again."
        )
    tokenizer = read_world_tokenizer(folder, index, dtype=dtype)
    check_tokenizer(tokenizer, tokens, folder)
    encoder = None
    if defaults.text_encoder == "t5":
        encoder = T5TextEncoder(folder / "text_encoder", folder / "tokenizer", defaults.context_rows, dtype=dtype)
    provenance = read_fields(folder / "provenance.json") if (folder / "provenance.json").exists() else {}
    provenance = {**provenance, "folder": str(folder)}
    world = AutoregressiveWorld(network, tokenizer, defaults, encoder=encoder, provenance=provenance)
    if weights == "int8":
        world.quantize()
    world.place(device or torch.device("cpu"), offload)
    return world


def check_tokenizer(tokenizer: Any, tokens: TokensIdentity, folder: Path) -> None:
    """Whether a tokenizer is the one that a world's tokens are of. Raises CheckpointError."""
    problem = None
    if not isinstance(tokenizer, DiscreteTokenizer):
        problem = "is not discrete"
    elif tokenizer.spec.levels != tokens.levels:
        problem = f"has the levels {tokenizer.spec.levels!r}, not {tokens.levels!r}"
    elif not set(base_hashes(tokenizer)) & set(tokens.weights):
        problem = "has other weights"
    if problem:
        raise CheckpointError(
            f"The tokenizer of the world {str(folder)!r} {problem}, so it is not the one whose tokens the world predicts.",
            "Put the tokenizer that the world was trained with into its `vae` folder.",
        )
