"""The configuration of the diffusion transformer and its named sizes."""

from typing import Literal, Self

from pydantic import Field, model_validator

from worldfoundry.core.config import Config
from worldfoundry.core.errors import ConfigError, did_you_mean


class DiTConfig(Config):
    """Everything that decides the shape of a DiT. The defaults are Cosmos-Predict1-7B-Text2World's."""

    in_channels: int = Field(default=16, ge=1)
    """Channels of the latents alone; the network appends its mask channels itself."""
    out_channels: int = Field(default=16, ge=1)
    """Channels of the prediction."""
    patch_spatial: int = Field(default=2, ge=1)
    """Latent rows and columns in one token."""
    patch_temporal: int = Field(default=1, ge=1)
    """Latent frames in one token."""
    model_channels: int = Field(default=4096, ge=12)
    """Width of the token stream."""
    num_blocks: int = Field(default=28, ge=1)
    """Transformer blocks (self-attention, cross-attention, MLP each)."""
    num_heads: int = Field(default=32, ge=1)
    """Attention heads."""
    mlp_ratio: float = Field(default=4.0, gt=0)
    """Width of the MLP's hidden layer over `model_channels`."""
    crossattn_emb_channels: int = Field(default=1024, ge=1)
    """Width of the context rows (1024 for T5-11B, 384 for MiniLM)."""
    adaln_lora_dim: int = Field(default=256, ge=1)
    """Rank of the per-sub-block correction to the shared modulation."""
    max_frames: int = Field(default=128, ge=1)
    """Latent frames that the learnable position table covers."""
    max_h: int = Field(default=240, ge=1)
    """Latent rows that the learnable position table covers."""
    max_w: int = Field(default=240, ge=1)
    """Latent columns that the learnable position table covers."""
    rope_ratio_t: float = Field(default=2.0, gt=0)
    """NTK stretch of the rotary wavelengths in time."""
    rope_ratio_h: float = Field(default=1.0, gt=0)
    """The same in height."""
    rope_ratio_w: float = Field(default=1.0, gt=0)
    """The same in width."""
    extra_pos_emb: Literal["learnable", "none"] = "learnable"
    """Whether a learnable position table is added at the input of every block."""
    concat_padding_mask: bool = True
    """Whether the network appends a channel that marks padding (1 = padded)."""
    condition_mask: bool = False
    """Whether the network appends a channel that marks given frames (video-to-world)."""
    uncertainty: bool = False
    """Whether the network carries the head that predicts its own log loss per noise level (used in training only)."""
    action_dim: int = Field(default=0, ge=0)
    """Action features per latent frame; 0 = no action adapter."""
    prefix_context: bool = False
    """Whether the last given frame is shown to all frames through a zero-initialised adapter."""
    skip_gates: bool = False
    """Adapter: gates per latent position let the noisy input and the last given frame through to the output (zero at the start)."""
    token_codes: int = Field(default=0, ge=0)
    """Diffusion decoder: codes of the discrete tokenizer whose tokens the network is shown; 0 = it is shown none."""
    token_channels: int = Field(default=32, ge=1)
    """Width of a token's embedding (diffusion decoder only)."""
    latent_condition: bool = False
    """Diffusion decoder of another kind: the network is shown coarse latents and a map of their noise level in place of tokens."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.model_channels % self.num_heads:
            raise ValueError(f"model_channels {self.model_channels} is not a multiple of num_heads {self.num_heads}")
        if self.head_dim % 2 or self.head_dim < 12:
            raise ValueError(f"model_channels / num_heads must be an even number of at least 12, not {self.head_dim}")
        if (self.action_dim or self.prefix_context) and self.patch_temporal != 1:
            raise ValueError("action_dim and prefix_context need patch_temporal 1: they speak to single latent frames")
        if self.token_codes and self.latent_condition:
            raise ValueError("token_codes and latent_condition exclude each other: a decoder is shown tokens or latents")
        return self

    @property
    def head_dim(self) -> int:
        return self.model_channels // self.num_heads

    @property
    def network_in_channels(self) -> int:
        """Latent channels and mask channels together."""
        return self.in_channels + self.condition_mask + self.concat_padding_mask

    @property
    def coarse_channels(self) -> int:
        """Channels of what a diffusion decoder refines; 0 for a world."""
        return self.token_channels if self.token_codes else self.in_channels + 1 if self.latent_condition else 0

    @property
    def position_sizes(self) -> tuple[int, int, int]:
        """Rows of the learnable position tables for time, height, width."""
        p = self.patch_spatial
        return self.max_frames // self.patch_temporal, self.max_h // p, self.max_w // p

    @property
    def rope_ratios(self) -> tuple[float, float, float]:
        return self.rope_ratio_t, self.rope_ratio_h, self.rope_ratio_w


_7B = DiTConfig()
_14B = DiTConfig(model_channels=5120, num_blocks=36, num_heads=40, rope_ratio_h=2.0, rope_ratio_w=2.0)
_7B_DECODER = _7B.replace(token_codes=64000, extra_pos_emb="none", rope_ratio_t=1.0, rope_ratio_h=1.5, rope_ratio_w=1.5)
# Cosmos-Predict2: the same network without the position table, with other rotary stretches; it predicts a flow's velocity.
_PREDICT2_2B = DiTConfig(
    model_channels=2048, num_heads=16, extra_pos_emb="none", rope_ratio_t=1.0, rope_ratio_h=4.0, rope_ratio_w=4.0
)
_PREDICT2_14B = _14B.replace(extra_pos_emb="none", rope_ratio_t=1.0, rope_ratio_h=4.0, rope_ratio_w=4.0)
_DEBUG = DiTConfig(
    model_channels=64, num_blocks=2, num_heads=2, crossattn_emb_channels=384, adaln_lora_dim=8,
    max_frames=16, max_h=32, max_w=32, rope_ratio_t=1.0, condition_mask=True,
)  # fmt: skip
_NANO = DiTConfig(
    in_channels=16, out_channels=16, patch_spatial=4, model_channels=256, num_blocks=6, num_heads=8, mlp_ratio=2.5,
    crossattn_emb_channels=384, adaln_lora_dim=32, max_frames=16, max_h=32, max_w=32, rope_ratio_t=1.0, condition_mask=True,
)  # fmt: skip
_QUICKSTART = DiTConfig(
    in_channels=12, out_channels=12, patch_spatial=4, model_channels=192, num_blocks=6, num_heads=6, crossattn_emb_channels=384,
    adaln_lora_dim=32, max_frames=16, max_h=32, max_w=32, rope_ratio_t=1.0, condition_mask=True,
)  # fmt: skip

SIZES: dict[str, DiTConfig] = {
    "debug": _DEBUG,
    "quickstart": _QUICKSTART,
    "nano": _NANO,
    "7b-text2world": _7B,
    "7b-video2world": _7B.replace(condition_mask=True),
    "7b-decoder": _7B_DECODER,
    "14b-text2world": _14B,
    "14b-video2world": _14B.replace(condition_mask=True),
    "predict2-2b-text2image": _PREDICT2_2B,
    "predict2-14b-text2image": _PREDICT2_14B,
    "predict2-2b-video2world": _PREDICT2_2B.replace(condition_mask=True, rope_ratio_h=3.0, rope_ratio_w=3.0),
    "predict2-14b-video2world": _PREDICT2_14B.replace(
        condition_mask=True, rope_ratio_t=20 / 24, rope_ratio_h=2.0, rope_ratio_w=2.0
    ),
}


def dit_size(name: str) -> DiTConfig:
    """A named size. Raises ConfigError with a suggestion for an unknown name."""
    if name not in SIZES:
        raise ConfigError(f"Unknown diffusion size {name!r}.", did_you_mean(name, list(SIZES)))
    return SIZES[name]
