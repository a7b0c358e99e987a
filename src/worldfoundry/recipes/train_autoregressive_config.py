"""The options of `worldfoundry train autoregressive`."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional

from worldfoundry.core.config import Config
from worldfoundry.recipes.config import StageConfig, WindowConfig
from worldfoundry.training.config import LoopConfig, OptimConfig, TokenLossConfig


class TokenValidationConfig(Config):
    """How an autoregressive model is judged on held-out clips, while it trains and at the end."""

    every_s: float = Field(default=120.0, gt=0)
    """Seconds of training between validations (numbers in metrics.jsonl)."""
    windows: int = Field(default=32, ge=1)
    """Held-out windows of each data set that a validation looks at."""
    data: tuple[Path, ...] = ()
    """Other clip datasets to measure on, in place of the held-out sources of the training data."""


class TrainAutoregressiveConfig(Config):
    """Train an autoregressive world model on the tokens of a discrete tokenizer.

    Packaged: --config nano-ar, nano-ar-gpu (all simulated domains), cosmos-ar-4b, cosmos-ar-12b, cosmos-ar-5b, cosmos-ar-13b (the
    published trainings, for many GPUs), cosmos-ar-4b-320x512 (its adaptation to a lower resolution, for speed).
    """

    packaged: ClassVar[Path | None] = Path(__file__).parent / "configs" / "autoregressive"

    data: Positional[Path]
    """A clip dataset."""
    out: Path
    """Folder of this run; the world is OUT/world. The same command resumes."""
    tokenizer: Path | None = None
    """Name of a shipped discrete tokenizer or a checkpoint folder; None takes that of `init`."""
    init: Path | None = None
    """A world or checkpoint to go on from; what it lacks (cross-attention, a begin-of-video token) is added and starts at zero."""
    model: str | None = None
    """A named size of the transformer; None takes that of `init`, or nano."""
    text: Literal["none", "minilm", "t5"] = "none"
    """Text encoder for captions; with one, the network has cross-attention."""
    t5: Path | None = None
    """For `text` t5: a folder with `text_encoder` and `tokenizer`, such as a published pipeline."""
    context_rows: int = Field(default=24, ge=1)
    """Text rows that the network attends to; longer captions are cut."""
    batch_size: int = Field(default=16, ge=1)
    """Windows per step."""
    window: WindowConfig = WindowConfig(num_frames=33, height=128, width=128)
    """How windows are cut."""
    stages: tuple[StageConfig, ...] = ()
    """Shorter stages before the last one, which `window` and `batch_size` describe (in a YAML file)."""
    image_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the batches that are images: clips of one frame, of which nothing is given."""
    image_batch_size: int | None = Field(default=None, ge=1)
    """Images per step; None takes as many as make a video batch's tokens."""
    validation: TokenValidationConfig = TokenValidationConfig()
    """What is measured on held-out clips."""
    loss: TokenLossConfig = TokenLossConfig()
    """What is learned of a clip's tokens."""
    loop: LoopConfig = LoopConfig(
        minutes=10.0, ema_decay=0.998, optim=OptimConfig(lr=1e-3, betas=(0.9, 0.98), warmup_steps=100)
    )
    """The training loop."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""

    @model_validator(mode="after")
    def _stages_differ_in_length(self) -> "TrainAutoregressiveConfig":
        if sum(stage.share for stage in self.stages) >= 1:
            raise ValueError("the shares of stages must sum to less than 1: the rest of the budget is the last stage's")
        for stage in self.stages:
            if (stage.height or self.window.height, stage.width or self.window.width) != (
                self.window.height,
                self.window.width,
            ):
                raise ValueError("stages differ in frames, not in size: train another size in a run of its own, with init")
            if (stage.num_frames or 1) > self.window.num_frames:
                raise ValueError(f"stages are not longer than the window's {self.window.num_frames} frames")
        return self

    @model_validator(mode="after")
    def _some_tokenizer(self) -> "TrainAutoregressiveConfig":
        if self.tokenizer is None and self.init is None:
            raise ValueError("set tokenizer (a shipped name or a folder), or init, whose tokenizer is then used")
        return self

    @model_validator(mode="after")
    def _text_has_its_encoder(self) -> "TrainAutoregressiveConfig":
        if self.text == "t5" and self.t5 is None:
            raise ValueError("text t5 needs t5, a folder with text_encoder and tokenizer")
        return self
