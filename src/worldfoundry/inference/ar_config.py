"""The options of an autoregressive world: how it samples, and what it was trained on."""

from typing import Literal

from pydantic import Field

from worldfoundry.autoregressive.sampling import Sampling
from worldfoundry.core.config import Config, Seed

Speculation = Literal["none", "medusa", "copy"]
OWN_DECODER = "none"
"""As `token_decoder`: the tokenizer's own."""


class Drawing(Sampling):
    """How tokens are drawn and turned into pixels."""

    speculate: Speculation = "none"
    """What guesses several tokens at a time: trained heads, or the frame before. Faster or slower; the same video up to rounding."""
    draft_length: int = Field(default=8, ge=1)
    """Most tokens that are guessed at a time."""
    token_decoder: str = OWN_DECODER
    """A diffusion decoder that draws the pixels, by shipped name or folder; `none` = the tokenizer's own decoder."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)


class AutoregressiveDefaults(Drawing):
    """What `generate` takes where the request is silent, and what the world was trained on."""

    num_frames: int = Field(default=33, ge=1)
    """Frames of a generated video, prefix included."""
    height: int = Field(default=640, ge=1)
    """Height in pixels."""
    width: int = Field(default=1024, ge=1)
    """Width in pixels."""
    fps: float = Field(default=25.0, gt=0)
    """Frames per second."""
    frame_rates: tuple[float, ...] = ()
    """Rates of the training clips where they had several: an input video of one of these keeps it, unless fps is given."""
    num_prefix_frames: int = Field(default=9, ge=0)
    """Most frames of an input video that condition."""
    kept_latent_frames: int | None = Field(default=None, ge=1)
    """Latent frames that a video longer than the context goes on from, whenever the context is full; none = half of it."""
    text_encoder: Literal["minilm", "t5", "none"] = "none"
    """Encoder of prompts; `none` for a world trained without text."""
    context_rows: int = Field(default=512, ge=1)
    """Text rows that the network attends to."""

    @property
    def action_names(self) -> tuple[str, ...]:
        """This kind of world takes no actions."""
        return ()


class AutoregressiveRequest(Drawing):
    """A resolved request to `generate`: every field has its value."""

    prompt: str = Field(default="", max_length=10_000)
    """What should be seen."""
    num_frames: int = Field(ge=1)
    """Frames of the output, prefix included."""
    height: int = Field(ge=1)
    """Height in pixels."""
    width: int = Field(ge=1)
    """Width in pixels."""
    fps: float = Field(gt=0)
    """Frames per second."""
    seed: Seed = 0
    """Seed of the draws."""
    num_prefix_frames: int = Field(ge=0)
    """Most frames of an input that condition."""
    keep_input: bool = True
    """Whether the output begins with the given frames' own pixels."""


def complete_ar_request(defaults: AutoregressiveDefaults, asked: dict[str, object]) -> AutoregressiveRequest:
    """What was not asked (None) is the world's default. Raises ConfigError that names the field."""
    filled = {name: value for name, value in defaults.to_dict().items() if name in AutoregressiveRequest.model_fields}
    given = {name: value for name, value in asked.items() if value is not None}
    return AutoregressiveRequest.from_dict({**filled, **given}, where="request")


class TokensIdentity(Config):
    """Which tokenizer a world's tokens are of: its levels, and hashes of its weights (`adapters.base_hashes`)."""

    levels: tuple[int, ...]
    """Levels of its codebook."""
    weights: tuple[str, ...]
    """Hashes of its weights, in whichever precision they are stored."""
