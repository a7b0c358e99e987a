"""`worldfoundry convert SRC DST`."""

from pathlib import Path
from typing import Literal

import tyro
from pydantic import Field

from worldfoundry.core.config import Config


class ConvertConfig(Config):
    """Translate a checkpoint (a tokenizer, a diffusion or an autoregressive transformer) between layouts; nothing is overwritten."""

    source: tyro.conf.Positional[Path]
    """A folder in our or diffusers' layout, a folder with `encoder.jit` and `decoder.jit` or with the shards of a tensor-parallel
    training (`model_model_mp_0.pt`, …), or a `.pt` / `.jit` file."""
    target: tyro.conf.Positional[Path]
    """The folder to write."""
    to: Literal["worldfoundry", "diffusers", "original"] = "worldfoundry"
    """Layout to write."""
    config: str | None = None
    """For sources in an original layout: a JSON file with the constructor's arguments, or the published name of a tokenizer
    or of an autoregressive transformer (not needed where the folder bears it)."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Into how many shards to write an autoregressive transformer in the original layout."""


def run(config: ConvertConfig) -> int:
    from worldfoundry.core.progress import say
    from worldfoundry.inference.convert import convert

    written = convert(
        config.source,
        config.target,
        to=config.to,
        original_config=config.config,
        tensor_parallel=config.tensor_parallel,
    )
    say(f"wrote {written} ({config.to} layout)")
    return 0


CONFIG = ConvertConfig
