"""From a checkpoint's `kind` to the code that builds it, by lazy import, so any floor can load a component by name.

A factory takes the fields of `config.json` (without `format` and `kind`) and returns an `nn.Module` with a `.config`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from worldfoundry.core.errors import CheckpointError, did_you_mean

KINDS: dict[str, str] = {
    "tokenizer": "worldfoundry.tokenizers.build:build_tokenizer",
    "dit": "worldfoundry.diffusion.build:build_dit",
    "autoregressive": "worldfoundry.autoregressive.build:build_transformer",
}


def resolve(target: str) -> Any:
    """Import `module:attribute`."""
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


def factory_for(kind: str) -> Callable[[dict[str, Any]], Any]:
    """The factory of a checkpoint kind. Raises CheckpointError with a suggestion for an unknown kind."""
    if kind not in KINDS:
        raise CheckpointError(f"Unknown checkpoint kind {kind!r}.", did_you_mean(str(kind), list(KINDS)))
    return resolve(KINDS[kind])
