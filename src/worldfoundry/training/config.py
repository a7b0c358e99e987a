"""The options of the training loop. Each sentence under a field is its `--help`."""

from typing import Literal

from pydantic import Field, model_validator

from worldfoundry.core.config import Config


class OptimConfig(Config):
    """AdamW with linear warm-up and decay."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay, on matrices only."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps of linear warm-up."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after warm-up."""
    final_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    clip_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled so that their global norm is at most this."""


class LoopConfig(Config):
    """One training run. Give a budget in steps (reproducible) or in minutes (the loop measures how many steps fit)."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Exactly one of `steps` and `minutes` is set."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget; the schedule is stretched over the steps that fit, measured while running."""
    seed: int = Field(default=0, ge=0)
    """Seed of initialisation, data order and noise."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast dtype; `auto` times one step in each and takes the faster."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the blocks; `auto` compiles where a compiler is present and the budget is long enough to pay."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the exponential moving average of the weights (warmed up: at step n at most (1+n)/(10+n))."""
    save_every_s: float = Field(default=60.0, gt=0)
    """Seconds between saves of the resumable state."""
    keep: int = Field(default=2, ge=1)
    """How many resumable states to keep."""
    log_every: int = Field(default=10, ge=1)
    """Steps between rows of metrics.jsonl."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""

    @model_validator(mode="after")
    def _one_budget(self) -> "LoopConfig":
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("set exactly one of steps and minutes")
        return self
