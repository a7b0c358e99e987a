"""The options of `worldfoundry train student`."""

from pathlib import Path

from pydantic import Field
from tyro.conf import Positional

from worldfoundry.core.config import Config
from worldfoundry.training.config import DistillationConfig, LoopConfig, LoRAConfig, OptimConfig


class TrainStudentConfig(Config):
    """Distil a diffusion world into a student that samples in one to four steps: an adapter (LoRA) of the same world."""

    data: Positional[Path]
    """A clip dataset, best that of the world's own training."""
    world: Path
    """The teacher: a shipped world's name or a world folder."""
    out: Path
    """Folder of this run; the adapter is OUT/adapter. The same command resumes."""
    latents: Path | None = None
    """Latents that a training of the world has cached (its OUT/latents), in place of encoding the clips again."""
    stride: int | None = Field(default=None, ge=1)
    """Frames between the starts of neighbouring windows, which are else those of the world's training; None: as there."""
    batch_size: int = Field(default=16, ge=1)
    """Windows per step."""
    distillation: DistillationConfig = DistillationConfig()
    """Steps of student and teacher."""
    guidance_scale: float | None = Field(default=None, ge=0)
    """Guidance of the teacher, which the student then has in it; None takes the world's own."""
    lora: LoRAConfig = LoRAConfig()
    """The adapter."""
    compare: int = Field(default=32, ge=1)
    """Windows on which student and teacher are compared at the end."""
    loop: LoopConfig = LoopConfig(
        minutes=15.0, ema_decay=0.99, optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0, warmup_steps=50)
    )
    """The training loop."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
