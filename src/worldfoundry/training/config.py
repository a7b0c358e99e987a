"""The options of the training loop and of the methods. Each sentence under a field is its `--help`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from worldfoundry.core.config import EXECUTION, Config, Seed

DecayRate = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Config):
    """AdamW or Muon, with linear warm-up and decay."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon orthogonalises the steps of matrices and kernels (vectors keep AdamW's): fewer steps for convolutional networks."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    betas: tuple[DecayRate, DecayRate] = (0.9, 0.99)
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


class ParallelConfig(Config):
    """How the processes that torchrun starts share the work. Any number of them may resume a run."""

    context: int = Field(default=1, ge=1)
    """Ranks that share the tokens of each clip (context parallelism); with N ranks, N / context share the batch."""
    context_mode: Literal["ulysses", "ring"] = "ulysses"
    """ulysses exchanges heads for tokens (`context` must divide the heads); ring passes keys and values around (any heads)."""
    tensor: int = Field(default=1, ge=1)
    """Ranks that share the matrices of each block (tensor parallelism, for autoregressive models); neighbours, best of one machine."""
    shard: bool = True
    """Split weights, gradients and optimizer among the ranks (FSDP2), where the network is made of blocks."""
    activation_checkpointing: bool = False
    """Keep only the inputs of blocks for the backward pass: less memory for a third more work. For one process too."""


class LoopConfig(Config):
    """One training run. Give a budget in steps (reproducible) or in minutes (the loop measures how many steps fit)."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Exactly one of `steps` and `minutes` is set."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget; the schedule is stretched over the steps that fit, measured while running."""
    seed: Seed = 0
    """Seed of initialisation, data order and noise."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast dtype; `auto` times one step in each and takes the faster."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the blocks; `auto` compiles where a compiler is present and the budget is long enough to pay."""
    ema: Literal["exponential", "power"] = "exponential"
    """Moving average of the weights: exponential, or as wide as a fixed share of the run so far (arXiv 2312.02696)."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the exponential average (warmed up: at step n at most (1+n)/(10+n))."""
    ema_sigma_rel: float = Field(default=0.1, gt=0, lt=0.288)
    """Width of the power average: the deviation of its profile as a share of the run (Cosmos: 0.10)."""
    save_every_s: float = Field(default=60.0, gt=0)
    """Seconds between saves of the resumable state."""
    keep: int = Field(default=2, ge=1)
    """How many resumable states to keep."""
    log_every: int = Field(default=10, ge=1)
    """Steps between rows of metrics.jsonl."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""
    parallel: Annotated[ParallelConfig, EXECUTION] = ParallelConfig()
    """Several processes (torchrun), and memory for time."""

    @model_validator(mode="after")
    def _one_budget(self) -> "LoopConfig":
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("set exactly one of steps and minutes")
        return self


Share = Annotated[float, Field(ge=0, le=1)]


class TermConfig(Config):
    """A term of the loss: how much it counts, and from when on. With weight 0 it costs nothing."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term; 0 leaves it out."""
    start: Share = 0.0
    """Share of the budget after which the term sets in."""
    ramp: Share = 0.0
    """Share of the budget over which it then grows from nothing to its weight."""

    def at(self, progress: float) -> float:
        """The weight after this share of the budget."""
        if progress < self.start:
            return 0.0
        return self.weight * min(1.0, (progress - self.start) / self.ramp) if self.ramp else self.weight


class FlowConfig(TermConfig):
    """The optical-flow term."""

    pairs: int = Field(default=4, ge=1)
    """Random pairs of neighbouring frames per clip that it looks at."""
    estimator: Literal["dis", "lucas-kanade"] = "dis"
    """How the input's flow is found: OpenCV's dense inverse search (needs OpenCV), or our own pyramid Lucas-Kanade (slower)."""


class AdversarialConfig(TermConfig):
    """The adversarial term. At weight 1 it pulls the decoder's last layer as hard as all other terms together."""

    dims: Literal[2, 3] = 3
    """2: the discriminator sees frames; 3: it sees clips."""
    channels: int = Field(default=32, ge=4, multiple_of=4)
    """Width of its first layer."""
    layers: int = Field(default=3, ge=1)
    """Its strided layers; each halves height and width."""
    lr: float = Field(default=4e-4, gt=0)
    """Its learning rate (Adam, constant)."""
    betas: tuple[DecayRate, DecayRate] = (0.5, 0.999)
    """Adam's decay rates."""
    largest_weight: float = Field(default=100.0, gt=0)
    """Limit of the factor that brings the gradients to one size."""


class TokenizerLossConfig(Config):
    """The terms of the tokenizer's loss. The paper's schedule is pixels and perceptual first, flow and Gram later."""

    l1: float = Field(default=1.0, ge=0)
    """Weight of the mean absolute error (pixels in [-1, 1])."""
    l2: float = Field(default=4.0, ge=0)
    """Weight of the mean squared error."""
    moving: float = Field(default=3.0, ge=0)
    """Extra weight of pixels that differ from the clip's median over time by more than `moving_threshold`."""
    moving_threshold: float = Field(default=0.15, gt=0)
    """Threshold for that, largest over the colour channels, in the [-1, 1] scale."""
    perceptual: TermConfig = TermConfig()
    """L1 between features of a VGG (Cosmos: weight 0.1)."""
    gram: TermConfig = TermConfig()
    """Squared differences of the features' Gram matrices over time and space (Cosmos: weight 0.062, from half of the run on)."""
    flow: FlowConfig = FlowConfig()
    """Neighbouring reconstructed frames, warped onto each other by the input's flow (Cosmos: weight 0.01, from a quarter on)."""
    adversarial: AdversarialConfig = AdversarialConfig()
    """A discriminator that tells reconstructions from clips (Cosmos: in fine-tuning; try weight 0.1)."""
    perceptual_frames: int = Field(default=1, ge=1)
    """Random frames per clip that the perceptual and Gram terms look at; a VGG costs as much as a small tokenizer."""
    vgg: Path | None = None
    """torchvision's VGG16 or VGG19 weights (a .pth or .safetensors file), in place of the packaged VGG16-like ones."""


class DiffusionLossConfig(Config):
    """Noise levels, prefixes and weights of the diffusion objective."""

    parametrization: Literal["edm", "rectified_flow"] = "edm"
    """What the network predicts: EDM's target, or the velocity of rectified flow (then ln sigma is the logit of the time)."""
    sigma_mean: float = 0.0
    """Mean of ln sigma (latents have deviation `sigma_data`); for rectified flow with a time shift s, add ln s."""
    sigma_std: float = Field(default=1.0, gt=0)
    """Deviation of ln sigma."""
    sigma_data: float = Field(default=0.5, gt=0)
    """Deviation that normalised latents are scaled to."""
    adjust_video_noise: bool = False
    """Multiply the noise levels of clips by the root of their latent frames, to bring them level with those of images."""
    prefix_weights: tuple[float, ...] = (0.0, 0.15, 0.85)
    """Relative frequency of 0, 1, 2, … given latent frames (at most all but one of a short clip; none of an image)."""
    suffix_share: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that are given their last latent frame too, so that the world learns to arrive at an end."""
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples whose text is dropped, so that guidance has an unconditional branch."""
    change_weight: float = Field(default=2.0, ge=0)
    """Extra weight where the latent differs from the last given one (saturates at half a deviation)."""
    uncertainty: bool = False
    """Weigh noise levels by the network's own uncertainty head."""

    @model_validator(mode="after")
    def _some_prefix(self) -> "DiffusionLossConfig":
        if not self.prefix_weights or min(self.prefix_weights) < 0 or sum(self.prefix_weights) <= 0:
            raise ValueError("prefix_weights must hold at least one positive number and no negative one")
        return self


class TokenLossConfig(Config):
    """What of a clip's tokens an autoregressive model learns to predict, and how."""

    prefix_latents: int = Field(default=1, ge=0)
    """Latent frames of a clip that are given and not learned (none of an image)."""
    z_weight: float = Field(default=1e-4, ge=0)
    """Weight of the squared log normaliser, which keeps logits small (as in the released code)."""
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples whose text is dropped, so that the model also goes on without."""
    text_start: Share = 0.0
    """Share of the budget after which captions are seen."""


class MedusaConfig(Config):
    """Heads that guess the tokens after the next one, for speculative decoding."""

    heads: int | None = Field(default=None, ge=1)
    """How many tokens ahead are guessed; None: as many as the network has heads for."""
    decay: float = Field(default=0.8, gt=0, le=1)
    """Each head counts this much of the one before it."""
    last_layers: int = Field(default=0, ge=0)
    """Last blocks that learn along, with the unembedding (the paper: 2); 0 leaves what the model generates as it is."""


class LoRAConfig(Config):
    """Which layers of a network get low-rank additions, and how large these are."""

    rank: int = Field(default=16, ge=1)
    """Rank of the additions."""
    alpha: float | None = Field(default=None, gt=0)
    """They count alpha / rank times; None: once."""
    targets: tuple[str, ...] = ("blocks.*",)
    """Names of linear layers, `*` standing for anything: blocks.* are all of the transformer blocks, final.linear the output."""


class DistillationConfig(Config):
    """How a student is made to do in a few steps what its teacher does in many."""

    steps: int = Field(default=2, ge=1, le=4)
    """Sampling steps of the student."""
    teacher_steps: int | None = Field(default=None, ge=1)
    """Steps of the teacher's path, a multiple of the student's; None takes the world's own number, rounded up to one."""
    hops: int | None = Field(default=None, ge=1)
    """Steps of that path walked for a target; None walks to where the student's step ends, fewer leave the rest to the student."""
