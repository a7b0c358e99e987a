"""The factory that the registry names for checkpoints of kind `autoregressive`."""

from typing import Any

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer


def build_transformer(fields: dict[str, Any]) -> Transformer:
    """A transformer with freshly drawn weights from the fields of its `config.json`. Raises ConfigError for a bad field."""
    return Transformer(TransformerConfig.from_dict(fields, where="autoregressive config"))
