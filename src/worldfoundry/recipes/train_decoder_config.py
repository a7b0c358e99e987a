"""The options of `worldfoundry train decoder`."""

from pathlib import Path

from pydantic import Field
from tyro.conf import Positional

from worldfoundry.core.config import Config
from worldfoundry.training.config import LoopConfig, LoRAConfig, OptimConfig


class TrainDecoderConfig(Config):
    """Make a diffusion decoder of a world: shown a discrete tokenizer's tokens, it makes the continuous latents they stand for."""

    data: Positional[Path]
    """A clip dataset, best that of the world's own training."""
    world: Path
    """The world whose network it uses: a shipped world's name or a world folder."""
    tokenizer: Path
    """The discrete tokenizer whose tokens it reads: a shipped name or a folder."""
    out: Path
    """Folder of this run; the decoder is OUT/decoder. The same command resumes."""
    latents: Path | None = None
    """Latents that a training of the world has cached (its OUT/latents), in place of encoding the clips again."""
    stride: int | None = Field(default=None, ge=1)
    """Frames between the starts of neighbouring windows, which are else those of the world's training; None: as there."""
    batch_size: int = Field(default=16, ge=1)
    """Windows per step."""
    token_channels: int = Field(default=32, ge=1)
    """Width of a token's embedding."""
    token_dropout: float = Field(default=0.2, ge=0, le=1)
    """Share of samples whose tokens are dropped (all become token 0), so that guidance has an unconditional branch."""
    sigma_mean: float = 0.3
    """Mean of ln sigma."""
    sigma_std: float = Field(default=1.3, gt=0)
    """Deviation of ln sigma."""
    sigma_max: float = Field(default=10.0, gt=0)
    """Noise level at which the decoder starts."""
    sigma_min: float = Field(default=0.02, gt=0)
    """Its smallest noise level before 0."""
    num_inference_steps: int = Field(default=10, ge=1)
    """Steps that it takes unless asked for others."""
    guidance_scale: float = Field(default=0.0, ge=0)
    """Its guidance unless asked for another."""
    lora: LoRAConfig = LoRAConfig(
        rank=12,
        targets=(
            "blocks.*.self_attention.*", "blocks.*.mlp.*", "blocks.*.modulation_self.*", "blocks.*.modulation_mlp.*", "final.*",
        ),
    )  # fmt: skip
    """The low-rank additions to the world's network; not to its cross-attention, which without text adds nothing."""
    loop: LoopConfig = LoopConfig(
        minutes=15.0, ema_decay=0.999, optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0, warmup_steps=100)
    )
    """The training loop."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
