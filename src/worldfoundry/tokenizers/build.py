"""From the fields of a `config.json` to a tokenizer: the factory that the registry names."""

from typing import Any

from worldfoundry.tokenizers.config import TokenizerConfig
from worldfoundry.tokenizers.tokenizer import ContinuousTokenizer, DiscreteTokenizer, Tokenizer


def build_tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """A tokenizer with fresh weights. Raises ConfigError for fields that do not fit together."""
    config = TokenizerConfig.from_dict(fields, where="tokenizer config")
    return DiscreteTokenizer(config) if config.levels else ContinuousTokenizer(config)
