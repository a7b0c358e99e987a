"""The options of the recipes."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional

from worldfoundry.core.config import Config, Seed
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.training.config import DiffusionLossConfig, LoopConfig, OptimConfig, TokenizerLossConfig


class WindowConfig(Config):
    """How training windows are cut from clips."""

    num_frames: int = Field(default=17, ge=1)
    """Frames of a window: 1 + t·k for a tokenizer that compresses time by t."""
    height: int = Field(default=64, ge=8)
    """Height that clips are scaled and centre-cropped to."""
    width: int = Field(default=64, ge=8)
    """Width that clips are scaled and centre-cropped to."""
    stride: int = Field(default=8, ge=1)
    """Frames between the starts of neighbouring windows of a clip."""
    held_out_fraction: float = Field(default=0.13, gt=0, lt=1)
    """Share of the source videos that no training sees."""
    split_seed: Seed = 0
    """Seed of the choice of held-out sources."""
    mirror_action: tuple[float, ...] | None = None
    """Factors on the action that make a left-right mirrored clip valid; setting it adds mirrored windows."""


class ValidationConfig(Config):
    """How a tokenizer is judged on held-out clips, while it trains and at the end."""

    every_s: float = Field(default=120.0, gt=0)
    """Seconds of training between validations (numbers in metrics.jsonl, pictures in OUT/previews)."""
    windows: int = Field(default=16, ge=1)
    """Held-out windows that a validation looks at; the one at the end takes four times as many."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of those windows; None takes the training window's."""
    preview_clips: int = Field(default=4, ge=0)
    """Held-out clips shown in a preview, original above reconstruction; 0 writes none."""


class TrainTokenizerConfig(Config):
    """Train or fine-tune a tokenizer on a folder that `worldfoundry curate` wrote.

    Packaged: --config nano-cv8x8x8, nano-dv8x16x16 (the shipped sizes), cosmos-cv8x8x8 (the published training),
    finetune (a loaded checkpoint on your clips).
    """

    packaged: ClassVar[Path | None] = Path(__file__).parent / "configs"

    data: Positional[Path]
    """A clip dataset."""
    out: Path
    """Folder of this run; the checkpoint is OUT/tokenizer. The same command resumes."""
    model: str = "debug-cv4x4x4"
    """A named tokenizer: the official ones, the nano and the debug sizes; video or image, continuous or discrete."""
    init: Path | None = None
    """What to fine-tune in place of `model`: a shipped name, or a folder, ours or diffusers' AutoencoderKLCosmos."""
    linear_start: bool = True
    """Begin as the best linear tokenizer where the network allows it, instead of at random."""
    batch_size: int = Field(default=4, ge=1)
    """Windows per step."""
    mirror: bool = True
    """Mirror half of the batches left to right."""
    window: WindowConfig = WindowConfig()
    """How windows are cut."""
    image_every: int = Field(default=0, ge=0)
    """Every so many batches one of images (frames of the clips, taken as one-frame videos); 0 for none."""
    loss: TokenizerLossConfig = TokenizerLossConfig()
    """Terms of the loss."""
    validation: ValidationConfig = ValidationConfig()
    """What is measured on held-out clips."""
    loop: LoopConfig = LoopConfig(minutes=2.0, optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.95), warmup_steps=50))
    """The training loop."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


class StageConfig(Config):
    """A stage of a progressive training before the last one: what differs from the run's own window and batch size."""

    share: float = Field(gt=0, lt=1)
    """Share of the budget."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a window; None takes the last stage's, here and below."""
    height: int | None = Field(default=None, ge=8)
    """Height of a window."""
    width: int | None = Field(default=None, ge=8)
    """Width of a window."""
    batch_size: int | None = Field(default=None, ge=1)
    """Windows per step."""


class TrainDiffusionConfig(Config):
    """Train a diffusion world model in the latent space of a tokenizer.

    Packaged: --config nano-diffusion, nano-diffusion-gpu (all simulated domains), cosmos-7b-text2world,
    cosmos-7b-video2world (the published trainings, for many GPUs).
    """

    packaged: ClassVar[Path | None] = Path(__file__).parent / "configs" / "diffusion"

    data: Positional[Path]
    """A clip dataset."""
    out: Path
    """Folder of this run; the world is OUT/world. The same command resumes."""
    tokenizer: Path | None = None
    """Name of a shipped tokenizer or a checkpoint folder (the `vae` folder of a world is one); None takes that of `init`."""
    init: Path | None = None
    """A world to go on from, by shipped name or folder. What is left at its default (size, text, noise levels) follows it."""
    model: str | None = None
    """A named size of the diffusion transformer; None takes that of `init`, or nano."""
    patch_spatial: int | None = Field(default=None, ge=1)
    """Latent rows and columns in one token; None takes the named size's."""
    actions: Literal["auto", "on", "off", "optional"] = "auto"
    """Whether actions condition. `auto` and `on` leave out clips without; `optional` keeps them, with actions of zero."""
    prefix_context: bool | None = None
    """Show the last given latent frame to all frames (an adapter that the official sizes lack); None: as `init` does, or yes."""
    skip_gates: bool | None = None
    """Gates that let the noisy input and the last given frame through (an adapter the official sizes lack); None: as above."""
    text: Literal["auto", "minilm", "t5", "none"] = "auto"
    """Text encoder for captions; `auto` takes that of `init`, or MiniLM if it can be had, and says so if not."""
    t5: Path | None = None
    """For `text` t5: a folder with `text_encoder` and `tokenizer`, such as a published pipeline; None takes that of `init`."""
    context_rows: int = Field(default=24, ge=1)
    """Text rows that the network attends to; longer captions are cut."""
    batch_size: int = Field(default=16, ge=1)
    """Windows per step."""
    window: WindowConfig = WindowConfig()
    """How windows are cut."""
    stages: tuple[StageConfig, ...] = ()
    """Smaller or shorter stages before the last one, which `window` and `batch_size` describe (in a YAML file)."""
    aspects: tuple[Literal["1x1", "3x4", "4x3", "9x16", "16x9"], ...] = ()
    """Shapes that clips are padded to, each to the nearest; sizes hold as many pixels as the window. None given: crop to it."""
    image_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the batches that are images: clips of one frame, normalised by statistics of their own."""
    image_batch_size: int | None = Field(default=None, ge=1)
    """Images per step; None takes as many as make a video batch's tokens."""
    latents: Literal["cache", "online"] = "cache"
    """Encode every window once and keep the latents on disk and in memory, or encode each batch when it is needed."""
    scheduler: SchedulerConfig = SchedulerConfig(sigma_min=0.01, sigma_max=10.0, rho=5.0)
    """How the trained world samples."""
    num_inference_steps: int = Field(default=10, ge=1)
    """The trained world's default number of sampling steps."""
    loss: DiffusionLossConfig = DiffusionLossConfig(sigma_mean=-0.4, sigma_std=1.3)
    """Noise levels and weights of the loss."""
    loop: LoopConfig = LoopConfig(
        minutes=10.0, ema_decay=0.998, optim=OptimConfig(lr=1e-3, betas=(0.9, 0.98), warmup_steps=100)
    )
    """The training loop."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""

    @model_validator(mode="after")
    def _last_stage_has_a_share(self) -> "TrainDiffusionConfig":
        if sum(stage.share for stage in self.stages) >= 1:
            raise ValueError("the shares of stages must sum to less than 1: the rest of the budget is the last stage's")
        return self

    @model_validator(mode="after")
    def _some_tokenizer(self) -> "TrainDiffusionConfig":
        if self.tokenizer is None and self.init is None:
            raise ValueError("set tokenizer (a shipped name or a folder), or init, whose tokenizer is then used")
        return self

    @model_validator(mode="after")
    def _optional_actions_are_cached(self) -> "TrainDiffusionConfig":
        if self.actions == "optional" and self.latents == "online":
            raise ValueError("actions optional needs latents cache")
        return self

    @model_validator(mode="after")
    def _one_parametrization(self) -> "TrainDiffusionConfig":
        asked = self.scheduler.parametrization
        if asked not in ("edm", self.loss.parametrization):
            raise ValueError(f"scheduler.parametrization follows loss.parametrization: set that to {asked!r}")
        return self


class QuickstartConfig(Config):
    """The whole road on sample footage: curate, tokenize, train, generate, guard, evaluate, with a report.

    About ten minutes on two CPU cores. Everything it writes stays in OUT; the same command resumes.
    """

    out: Path = Path("quickstart")
    """Folder for everything: clips, checkpoints, generated videos, results.json, report.html."""
    base: str = "nano-diffusion"
    """World to train on, a shipped name or a folder; `none` begins from nothing, with a tokenizer of its own."""
    minutes: float = Field(default=4.0, gt=0)
    """Minutes of training in all, on the machine at hand; the rest of the road takes about three more."""
    data: Path | None = None
    """Your own folder of videos, in place of the sample footage."""
    tokenizer_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the training minutes for the tokenizer, where one is trained."""
    text: Literal["auto", "minilm", "none"] = "auto"
    """Text encoder for captions, as in `train diffusion`."""
    evaluate_clips: int = Field(default=32, ge=2)
    """Held-out windows to generate and score."""
    seed: Seed = 0
    """Seed of training and sampling."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
