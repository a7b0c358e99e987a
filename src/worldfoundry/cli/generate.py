"""`worldfoundry generate`: one video from a world."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from worldfoundry.core.config import Config, Seed


class GenerateConfig(Config):
    """Make a world video from a prompt, a first image or video, and actions. The guards are on."""

    world: Path
    """A world folder (`train diffusion` and `quickstart` write one)."""
    out: Path = Path("out.mp4")
    """The video; seed, config and verdicts go into OUT.json beside it."""
    input: Path | None = None
    """An image or a video of any size whose last frames the output continues."""
    prompt: str = ""
    """What should be seen."""
    upsample: Literal["auto", "on", "off"] = "auto"
    """Whether a language model details the prompt first; auto does so for published worlds that are given no input."""
    upsampler: str = "smollm2"
    """Which one: smollm2, a transformers folder, or a server like http://127.0.0.1:8000/v1 (#NAME chooses its model)."""
    negative_prompt: str | None = None
    """What should not be seen (with guidance only)."""
    actions: Path | None = None
    """A .npy array [frames, numbers], or an `.episode.parquet` whose actions drive the world."""
    action_start: int = Field(default=0, ge=0)
    """First row of the actions that is used."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of the output, input frames included; None takes the world's own."""
    num_prefix_frames: int | None = Field(default=None, ge=0)
    """How many of the input's last frames condition; None takes the world's own."""
    height: int | None = Field(default=None, ge=1)
    """Height in pixels; None takes the world's own."""
    width: int | None = Field(default=None, ge=1)
    """Width in pixels; None takes the world's own."""
    fps: float | None = Field(default=None, gt=0)
    """Frames per second; None takes the world's own."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    """Sampler steps; None takes the world's own."""
    guidance_scale: float | None = Field(default=None, ge=0)
    """Guidance g of cond + g · (cond − uncond); None takes the world's own."""
    seed: Seed = 0
    """Seed of the noise."""
    keep_input: bool = True
    """Begin with the input's own pixels rather than their reconstruction."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16; None keeps the stored one."""


def run(config: GenerateConfig) -> int:
    import worldfoundry as wf
    from worldfoundry.conditioning.upsampler import prompt_upsampler
    from worldfoundry.core.errors import UsageError
    from worldfoundry.core.files import check_writable
    from worldfoundry.core.progress import progress, say
    from worldfoundry.data.episodes import read_actions

    if config.out.suffix.lower() != ".mp4":
        raise UsageError(f"--out must end in .mp4, not {str(config.out)!r}.")
    check_writable(config.out)
    world = wf.load(config.world, dtype=config.dtype, device=config.device)
    if not hasattr(world, "generate"):
        raise UsageError(f"{str(config.world)!r} is a part, not a world.", "Give the folder that holds model_index.json.")
    actions = None if config.actions is None else read_actions(config.actions)[config.action_start :]
    world.upsampler = prompt_upsampler(config.upsampler)
    steps = config.num_inference_steps or world.config.num_inference_steps
    with progress("sampling", steps, "steps") as bar:
        video = world.generate(
            **config.model_dump(
                exclude={"world", "out", "actions", "action_start", "device", "dtype", "upsample", "upsampler"}
            ),
            actions=actions,
            upsample_prompt={"auto": None, "on": True, "off": False}[config.upsample],
            callback_on_step_end=lambda *_: bar.advance(),
        )
    path = video.save(config.out)
    say(f"{path}: {len(video.frames)} frames at {video.fps:g} fps, seed {video.seed}, {len(video.verdicts)} guard verdicts")
    return 0


CONFIG = GenerateConfig
