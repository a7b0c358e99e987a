"""The options of `worldfoundry train medusa`."""

from pathlib import Path

from pydantic import Field
from tyro.conf import Positional

from worldfoundry.core.config import Config
from worldfoundry.recipes.train_autoregressive_config import TokenValidationConfig
from worldfoundry.training.config import LoopConfig, MedusaConfig, OptimConfig, TokenLossConfig


class TrainMedusaConfig(Config):
    """Teach an autoregressive world to guess several tokens at a time, which generating then confirms: the same videos, sooner."""

    data: Positional[Path]
    """A clip dataset, best that of the world's own training."""
    world: Path
    """The world: a shipped name or a world folder."""
    out: Path
    """Folder of this run; the world with heads is OUT/world. The same command resumes."""
    tokens: Path | None = None
    """Tokens that a training of the world has cached (its OUT/tokens), in place of encoding the clips again."""
    batch_size: int = Field(default=16, ge=1)
    """Windows per step."""
    medusa: MedusaConfig = MedusaConfig()
    """The heads, and how much of the network learns along."""
    loss: TokenLossConfig = TokenLossConfig()
    """What of a clip is given; for a network that learns along, its own loss."""
    validation: TokenValidationConfig = TokenValidationConfig(every_s=60.0)
    """What is measured on held-out clips."""
    loop: LoopConfig = LoopConfig(
        minutes=8.0, ema_decay=0.99, optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0, warmup_steps=20)
    )
    """The training loop."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
