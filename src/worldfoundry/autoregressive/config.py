"""The configuration of the autoregressive transformer and its named sizes."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from worldfoundry.core.config import Config
from worldfoundry.core.errors import ConfigError, did_you_mean

EMBEDDING_MULTIPLE = 64
"""Input rows are padded to a multiple of this, as in the published checkpoints (64000 tokens and <bov> → 64064 rows)."""


class YarnConfig(Config):
    """How rotary frequencies are stretched for clips longer than the first training's (YaRN, arXiv 2309.00071)."""

    scale: float = Field(default=2.0, ge=1)
    """By how much slow frequencies are slowed down."""
    beta_fast: float = Field(default=4.0, gt=0)
    """Frequencies that turn more often than this within the original length stay as they are."""
    beta_slow: float = Field(default=1.0, gt=0)
    """Frequencies that turn less often than this are slowed down fully; those between, in part."""
    original_latent_shape: tuple[int, int, int] = (3, 40, 64)
    """Latent frames, rows and columns of the original length. As published, the number of rows also serves for the columns."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.beta_fast <= self.beta_slow:
            raise ValueError(f"beta_fast {self.beta_fast} must exceed beta_slow {self.beta_slow}")
        return self


class TransformerConfig(Config):
    """Everything that decides the shape of the transformer. The defaults are Cosmos-Predict1-4B's."""

    vocab_size: int = Field(default=64000, ge=1)
    """Tokens that can be predicted: the codes of the discrete tokenizer."""
    dim: int = Field(default=4096, ge=6)
    """Width of the token stream."""
    num_layers: int = Field(default=16, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=32, ge=1)
    """Query heads."""
    num_kv_heads: int = Field(default=8, ge=1)
    """Key and value heads; each serves num_heads / num_kv_heads query heads."""
    head_dim: int = Field(default=128, ge=2, multiple_of=2)
    """Width of a head (num_heads * head_dim may differ from dim)."""
    ffn_hidden_size: int = Field(default=14336, ge=1)
    """Width of the SwiGLU's hidden layer."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in every RMS normalisation."""
    qk_norm: bool = True
    """Whether queries and keys are RMS-normalised per head, before they are rotated."""
    rope: Literal["3d", "1d"] = "3d"
    """Whether rotary angles follow latent frame, row and column, or the place in the sequence (text models)."""
    rope_theta: float = Field(default=500000.0, gt=1)
    """Base of the rotary wavelengths."""
    latent_shape: tuple[int, int, int] = (5, 40, 64)
    """Latent frames, rows and columns that the position tables are made for; tokens come in this raster order."""
    max_seq_len: int = Field(default=12800, ge=1)
    """Rows of the position tables: the longest context."""
    yarn: YarnConfig | None = None
    """Stretch of the rotary frequencies; null = none."""
    abs_pos_emb: bool = False
    """Whether sin-cos positions are added at the input of every block."""
    bov: bool = False
    """Whether sequences begin with a begin-of-video token, id `vocab_size`."""
    context_dim: int = Field(default=0, ge=0)
    """Width of the text rows for cross-attention (1024 for T5-11B); 0 = no cross-attention."""
    cross_attn_every: int = Field(default=1, ge=1)
    """Every how many blocks there is a cross-attention, from the first on."""
    medusa_heads: int = Field(default=0, ge=0)
    """Heads that guess the tokens after the next one, for speculative decoding."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if min(self.latent_shape) < 1:
            raise ValueError(f"latent_shape {self.latent_shape} must hold at least one frame, row and column")
        if self.rope == "3d":
            if self.head_dim < 6:
                raise ValueError(f"head_dim {self.head_dim} cannot be split into time, height and width; take at least 6")
            if self.max_seq_len < self.bov + self.tokens_per_clip:
                raise ValueError(
                    f"max_seq_len {self.max_seq_len} is less than the {self.bov + self.tokens_per_clip} tokens of a clip of "
                    f"latent_shape {self.latent_shape}"
                )
        elif self.yarn or self.abs_pos_emb or self.bov:
            raise ValueError("yarn, abs_pos_emb and bov belong to rope 3d")
        return self

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one latent frame."""
        return self.latent_shape[1] * self.latent_shape[2]

    @property
    def tokens_per_clip(self) -> int:
        """Tokens of a whole clip, without <bov>."""
        return math.prod(self.latent_shape)

    @property
    def embedding_rows(self) -> int:
        """Rows of the input embedding: the vocabulary and <bov>, padded."""
        return -(-(self.vocab_size + self.bov) // EMBEDDING_MULTIPLE) * EMBEDDING_MULTIPLE


_4B = TransformerConfig()
_VIDEO2WORLD = {"bov": True, "abs_pos_emb": True, "context_dim": 1024, "max_seq_len": 12864}
_12B = TransformerConfig(dim=5120, num_layers=40, yarn=YarnConfig())
_DEBUG = TransformerConfig(
    vocab_size=1000, dim=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, ffn_hidden_size=24, latent_shape=(5, 8, 8),
    max_seq_len=320, medusa_heads=2,
)  # fmt: skip
_NANO = TransformerConfig(
    vocab_size=1000, dim=256, num_layers=5, num_heads=4, num_kv_heads=2, head_dim=64, ffn_hidden_size=640,
    latent_shape=(5, 8, 8), max_seq_len=320, medusa_heads=5,
)  # fmt: skip

SIZES: dict[str, TransformerConfig] = {
    "debug": _DEBUG,
    "nano": _NANO,
    "4b": _4B,
    "5b-video2world": _4B.replace(**_VIDEO2WORLD),
    "12b": _12B,
    "13b-video2world": _12B.replace(**_VIDEO2WORLD),
}


def ar_size(name: str) -> TransformerConfig:
    """A named size. Raises ConfigError with a suggestion for an unknown name."""
    if name not in SIZES:
        raise ConfigError(f"Unknown autoregressive size {name!r}.", did_you_mean(name, list(SIZES)))
    return SIZES[name]
