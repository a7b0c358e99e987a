"""The factory that the registry names for checkpoints of kind `dit`."""

from typing import Any

from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT


def build_dit(fields: dict[str, Any]) -> DiT:
    """A DiT with freshly drawn weights from the fields of its `config.json`. Raises ConfigError for a bad field."""
    return DiT(DiTConfig.from_dict(fields, where="dit config"))
