"""`worldfoundry convert SRC DST`."""

from pathlib import Path
from typing import Literal

import tyro

from worldfoundry.core.config import Config


class ConvertConfig(Config):
    """Translate a checkpoint (a tokenizer or a diffusion transformer) between layouts; nothing is overwritten."""

    source: tyro.conf.Positional[Path]
    """A folder in our or diffusers' layout, a folder with `encoder.jit` and `decoder.jit`, or a `.pt` / `.jit` file."""
    target: tyro.conf.Positional[Path]
    """The folder to write."""
    to: Literal["worldfoundry", "diffusers", "original"] = "worldfoundry"
    """Layout to write."""
    config: str | None = None
    """For sources in an original layout: a JSON file with the constructor's arguments, or the published name of a tokenizer
    (not needed where the folder bears it)."""


def run(config: ConvertConfig) -> int:
    from worldfoundry.core.progress import say
    from worldfoundry.inference.convert import convert

    say(f"wrote {convert(config.source, config.target, to=config.to, original_config=config.config)} ({config.to} layout)")
    return 0


CONFIG = ConvertConfig
