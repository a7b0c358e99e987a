"""The options of a world: how it samples, and what it was trained on."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from worldfoundry.core.config import Config, Seed

if TYPE_CHECKING:
    from torch import Tensor

Aspect = Literal["1x1", "3x4", "4x3", "9x16", "16x9"]
Pixels = Annotated[int, Field(ge=1)]


class SchedulerConfig(Config):
    """How a world samples; names are those of diffusers' scheduler_config.json where it has them."""

    parametrization: Literal["edm", "rectified_flow"] = "edm"
    """What the network was trained to predict: EDM's target, or the velocity of rectified flow."""
    schedule: Literal["karras", "flow"] = "karras"
    """Which noise levels are visited: Karras', or evenly spaced times of rectified flow, shifted."""
    sigma_min: float = Field(default=0.002, gt=0)
    """Smallest noise level before 0 (Karras only)."""
    sigma_max: float = Field(default=80.0, gt=0)
    """Noise level at which sampling starts."""
    sigma_data: float = Field(default=0.5, gt=0)
    """Deviation of the latents that the network was trained on."""
    rho: float = Field(default=7.0, gt=0)
    """Curvature of the Karras schedule (Karras only)."""
    shift: float = Field(default=1.0, gt=0)
    """Time shift (flow only): above 1 spends more steps on strong noise."""
    sampler: Literal["euler", "heun", "dpmpp_2m", "res_2m"] = "euler"
    """Solver of the probability-flow equation; `heun` asks the network twice per step."""
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    """Where sampling ends: on the clean estimate, or (published worlds, Karras only) on the noise level `sigma_min`."""
    augment_sigma: float = Field(default=0.001, ge=0)
    """Noise level that the network is told given frames have."""
    augment_noise: bool = False
    """Whether given frames really carry it, drawn anew at every step (published worlds do)."""
    frame_levels: bool = False
    """Whether the network is told each frame's own noise level, given frames being at augment_sigma (Cosmos-Predict2)."""
    guidance_interval: tuple[float, float] | None = None
    """Guide only where low < sigma <= high; none = everywhere."""

    @model_validator(mode="after")
    def _noise_falls(self) -> "SchedulerConfig":
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"sigma_min ({self.sigma_min:g}) must be at most sigma_max ({self.sigma_max:g})")
        return self

    @model_validator(mode="after")
    def _shift_is_used(self) -> "SchedulerConfig":
        if self.shift != 1 and self.schedule != "flow":
            raise ValueError(f"shift ({self.shift:g}) belongs to schedule 'flow', not to {self.schedule!r}")
        return self

    @model_validator(mode="after")
    def _end_is_known(self) -> "SchedulerConfig":
        if self.final_sigmas_type == "sigma_min" and self.schedule != "karras":
            raise ValueError(f"final_sigmas_type 'sigma_min' belongs to schedule 'karras', not to {self.schedule!r}")
        return self

    @model_validator(mode="after")
    def _interval_holds_something(self) -> "SchedulerConfig":
        low, high = self.guidance_interval or (0.0, 1.0)
        if not 0 <= low < high:
            raise ValueError(f"guidance_interval ({low:g}, {high:g}) must satisfy 0 <= low < high")
        return self


class ImageLatents(Config):
    """Statistics of images' latents, already normalised as a clip's first frame (arXiv 2501.03575, section 5.1.3).

    The deviation is one for all channels, as it is for clips: channels keep their relative size.
    """

    mean: tuple[float, ...]
    """Per channel."""
    std: float = Field(gt=0)
    """Of all channels together."""

    def normalize(self, z_BCTHW: "Tensor") -> "Tensor":
        """To mean 0, deviation 1: what the network sees of images."""
        return (z_BCTHW - z_BCTHW.new_tensor(self.mean).view(1, -1, 1, 1, 1)) / self.std

    def denormalize(self, z_BCTHW: "Tensor") -> "Tensor":
        """The inverse of `normalize`."""
        return z_BCTHW * self.std + z_BCTHW.new_tensor(self.mean).view(1, -1, 1, 1, 1)


class WorldDefaults(Config):
    """What `generate` takes where the request is silent, and what the world was trained on."""

    num_frames: int = Field(default=121, ge=1)
    """Frames of a generated video, prefix included."""
    trained_frames: int | None = Field(default=None, ge=1)
    """Frames that the network was trained on; longer videos are made window by window. None = `num_frames`."""
    extension: Literal["frames", "latents"] = "frames"
    """What a window of a long video is given of the one before: its last frames, encoded anew, or its last latents."""
    height: int = Field(default=704, ge=1)
    """Height in pixels."""
    width: int = Field(default=1280, ge=1)
    """Width in pixels."""
    fps: float = Field(default=24.0, gt=0)
    """Frames per second."""
    frame_rates: tuple[float, ...] = ()
    """Rates of the training clips where they had several: an input video of one of these keeps it, unless fps is given."""
    num_prefix_frames: int = Field(default=9, ge=0)
    """Most frames of an input video that condition."""
    num_inference_steps: int = Field(default=35, ge=1)
    """Steps of the sampler."""
    guidance_scale: float = Field(default=7.0, ge=0)
    """g of cond + g · (cond − uncond)."""
    negative_prompt: str = ""
    """What guidance moves away from."""
    text_encoder: Literal["minilm", "t5", "none"] = "none"
    """Encoder of prompts; `none` for a world trained without text."""
    context_rows: int = Field(default=512, ge=1)
    """Text rows that the network attends to."""
    action_names: tuple[str, ...] = ()
    """Numbers of an action, in order; empty for a world without actions."""
    action_rms: tuple[float, ...] = ()
    """Root mean square of each over the training data."""
    shapes: dict[Aspect, tuple[Pixels, Pixels]] = Field(default={})
    """Height and width that clips of each aspect were padded to in training; empty if all were cropped to one."""
    image_latents: ImageLatents | None = None
    """Statistics of single frames, for a world that was trained on images too."""


class Request(Config):
    """A resolved request to `generate`: every field has its value. Sizes are those of the output."""

    prompt: str = Field(default="", max_length=10_000)
    """What should be seen."""
    later_prompts: tuple[Annotated[str, Field(max_length=10_000)], ...] = ()
    """What should be seen afterwards: the video is shared out evenly among `prompt` and these, window by window."""
    negative_prompt: str = Field(default="", max_length=10_000)
    """What should not be seen (with guidance only)."""
    num_frames: int = Field(ge=1)
    """Frames of the output, prefix included."""
    height: int = Field(ge=1)
    """Height in pixels."""
    width: int = Field(ge=1)
    """Width in pixels."""
    fps: float = Field(gt=0)
    """Frames per second."""
    num_inference_steps: int = Field(ge=1)
    """Steps of the sampler."""
    guidance_scale: float = Field(ge=0)
    """g of cond + g · (cond − uncond); 0 takes the condition alone."""
    seed: Seed = 0
    """Seed of the noise."""
    num_prefix_frames: int = Field(ge=0)
    """Most frames of an input that condition."""
    keep_input: bool = True
    """Whether the output begins and ends with the given frames' own pixels."""
    step_cache: float = Field(default=0.0, ge=0)
    """How much the input of a step may change, relatively, before the network computes it in full; 0 = always in full."""
