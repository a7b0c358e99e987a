"""`worldfoundry generate`: one video from a world, or one for each line of a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from worldfoundry.core.config import Config, Seed
from worldfoundry.guardrails.policy import GuardPolicy

if TYPE_CHECKING:
    from worldfoundry.core.contracts import WorldVideo


class GenerateConfig(Config):
    """Make a world video from a prompt, a first image or video, and actions. The guards are on.

    Size, length, rate, and how it samples are the world's own where they are not given. Some options belong to diffusion worlds,
    some to autoregressive ones; those of the other kind are refused.
    """

    world: Path
    """A shipped name or a world folder (`train diffusion` and `quickstart` write one)."""
    input: Path | None = None
    """An image or a video of any size whose last frames the output continues."""
    end: Path | None = None
    """An image or a video at whose first frames the output arrives: what lies between is interpolated."""
    prompt: str = ""
    """What should be seen."""
    actions: Path | None = None
    """A .npy array [frames, numbers], or an `.episode.parquet` whose actions drive the world."""
    action_start: int = Field(default=0, ge=0)
    """First row of the actions that is used."""
    out: Path = Path("out.mp4")
    """The video; seed, config and verdicts go into OUT.json beside it."""
    seed: Seed = 0
    """Seed of the noise."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of the output, input frames included."""
    aspect: Literal["1x1", "3x4", "4x3", "9x16", "16x9"] | None = None
    """A shape that the world was trained on, in place of height and width."""
    height: int | None = Field(default=None, ge=1)
    """Height in pixels."""
    width: int | None = Field(default=None, ge=1)
    """Width in pixels."""
    fps: float | None = Field(default=None, gt=0)
    """Frames per second."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    """Sampler steps: more are slower."""
    guidance_scale: float | None = Field(default=None, ge=0)
    """How strongly to follow the prompt: g of cond + g · (cond − uncond); 0 is fastest."""
    negative_prompt: str | None = None
    """What should not be seen (with guidance only)."""
    later_prompts: tuple[str, ...] = ()
    """What should be seen afterwards: a long video is shared out evenly among --prompt and these."""
    upsample: Literal["auto", "on", "off"] = "auto"
    """Whether a language model details the prompt first; auto does so for published worlds that are given no input."""
    upsampler: str = "smollm2"
    """That model: smollm2, a transformers folder, or a server like http://127.0.0.1:8000/v1 (#NAME chooses its model)."""
    num_prefix_frames: int | None = Field(default=None, ge=0)
    """How many of the input's last frames are looked at."""
    keep_input: bool = True
    """Begin with the input's own pixels rather than their reconstruction."""
    adapter: Path | None = None
    """An adapter of the world (a few-step student, a LoRA), by shipped name or folder; brings its own number of steps."""
    adapter_weight: float = 1.0
    """How much of the adapter is added; 1 is all of it."""
    batch: Path | None = None
    """A file of requests, one JSON object of these options a line; --out is then a folder. What is finished is kept."""
    preview_every: int = Field(default=0, ge=0)
    """Write a strip of small pictures, OUT.stepNNN.png, after every so many steps; 0 = never."""
    step_cache: float = Field(default=0.0, ge=0)
    """Skip the network's blocks in steps whose input changed less than this (try 0.1); 0 computes every step."""
    temperature: float | None = Field(default=None, ge=0)
    """Autoregressive worlds: above 1 draws more boldly, below 1 more carefully; 0 takes the likeliest token."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Autoregressive worlds: draw from the likeliest tokens that together have this probability."""
    top_k: int | None = Field(default=None, ge=0)
    """Autoregressive worlds: draw from so many of the likeliest tokens; 0 = all."""
    speculate: Literal["none", "medusa", "copy"] | None = None
    """Autoregressive worlds: guess several tokens at a time by trained heads or from the frame before; the video stays the same."""
    token_decoder: str | None = None
    """Autoregressive worlds: a diffusion decoder for the pixels, by shipped name or folder; none = the tokenizer's own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16; None keeps the stored one."""
    offload: Literal["auto", "none", "parts", "sequential"] = "auto"
    """Which weights wait in the computer's memory: none, whole parts in turn, or the network block by block."""
    weights: Literal["stored", "int8"] = "stored"
    """int8 rounds the network's weights to 8 bits for half the memory of bfloat16."""
    policy: GuardPolicy = GuardPolicy()
    """Which guards look, with which thresholds, and what happens when one objects."""


LOADING = ("world", "adapter", "adapter_weight", "device", "dtype", "offload", "weights", "policy", "out", "batch")
"""Options of a run as a whole, which a line of a batch cannot have."""
BOTH = ("prompt", "input", "num_frames", "height", "width", "fps", "seed", "num_prefix_frames", "keep_input")
AUTOREGRESSIVE = ("temperature", "top_p", "top_k", "speculate", "token_decoder")
DIFFUSION = (
    "end", "actions", "action_start", "aspect", "num_inference_steps", "guidance_scale", "negative_prompt", "later_prompts",
    "upsample", "upsampler", "adapter", "adapter_weight", "preview_every", "step_cache",
)  # fmt: skip


def run(config: GenerateConfig) -> int:
    from worldfoundry.core.errors import UsageError
    from worldfoundry.core.files import check_writable
    from worldfoundry.core.progress import say

    if config.batch is not None:
        return _run_batch(config, config.batch)
    if config.out.suffix.lower() != ".mp4":
        raise UsageError(f"--out must end in .mp4, not {str(config.out)!r}.")
    check_writable(config.out)
    video = _generate(_load(config), config)
    path = video.save(config.out)
    say(f"{path}: {len(video.frames)} frames at {video.fps:g} fps, seed {video.seed}, {len(video.verdicts)} guard verdicts")
    return 0


def _load(config: GenerateConfig) -> Any:
    import worldfoundry as wf
    from worldfoundry.core.devices import pick_device
    from worldfoundry.core.errors import UsageError

    device = pick_device(config.device)
    if config.adapter is None:
        placed = {"device": device, "offload": config.offload, "weights": config.weights}
        world = wf.load(config.world, dtype=config.dtype, policy=config.policy, **placed)
    else:  # which is merged before weights are rounded, and before any of them waits elsewhere
        world = wf.load(config.world, dtype=config.dtype, policy=config.policy)
    if not hasattr(world, "generate"):
        raise UsageError(f"{str(config.world)!r} is a part, not a world.", "Give the folder that holds model_index.json.")
    _check_options(world, config)
    if config.adapter is not None:
        world.load_adapter(config.adapter, config.adapter_weight)
        if config.weights == "int8":
            world.quantize()
        world.place(device, config.offload)
    return world


def _check_options(world: Any, config: GenerateConfig) -> bool:
    """Whether the world is autoregressive. Raises UsageError for options of the other kind."""
    from worldfoundry.core.errors import UsageError
    from worldfoundry.inference.ar_world import AutoregressiveWorld

    autoregressive = isinstance(world, AutoregressiveWorld)
    for name in DIFFUSION if autoregressive else AUTOREGRESSIVE:
        if getattr(config, name) != GenerateConfig.model_fields[name].default:
            own, other = ("an autoregressive", "diffusion") if autoregressive else ("a diffusion", "autoregressive")
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} is for {other} worlds, but {str(config.world)!r} is {own} one.", "Leave it out.")
    return autoregressive


def _generate(world: Any, config: GenerateConfig) -> "WorldVideo":
    """One video, with a bar over its steps or latent frames."""
    return _continue(world, config) if _check_options(world, config) else _denoise(world, config)


def _continue(world: Any, config: GenerateConfig) -> "WorldVideo":
    """An autoregressive world's video."""
    from worldfoundry.core.progress import progress

    with progress("sampling", None, "latent frames") as bar:

        def callback(frame: int, frames: int, tokens: Any) -> None:
            bar.expect(frames)
            bar.advance()

        asked = {name: getattr(config, name) for name in (*BOTH, *AUTOREGRESSIVE)}
        return world.generate(**asked, callback_on_step_end=callback)


def _denoise(world: Any, config: GenerateConfig) -> "WorldVideo":
    """A diffusion world's video."""
    from worldfoundry.conditioning.upsampler import prompt_upsampler
    from worldfoundry.core.progress import progress
    from worldfoundry.data.episodes import read_actions
    from worldfoundry.inference.preview import save_previews

    actions = None if config.actions is None else read_actions(config.actions)[config.action_start :]
    world.upsampler = prompt_upsampler(config.upsampler)
    preview = save_previews(world, config.out, config.preview_every, config.fps) if config.preview_every else None
    with progress("sampling", None, "steps") as bar:

        def callback(step: int, steps: int, x0: Any) -> None:
            bar.expect(steps)
            bar.advance()
            if preview is not None:
                preview(step, steps, x0)

        extra = {
            "prompt",
            "later_prompts",
            "actions",
            "action_start",
            "upsample",
            "upsampler",
            "preview_every",
            *LOADING,
            *AUTOREGRESSIVE,
        }
        return world.generate(
            **config.model_dump(exclude=extra),
            prompt=[config.prompt, *config.later_prompts],
            actions=actions,
            upsample_prompt={"auto": None, "on": True, "off": False}[config.upsample],
            callback_on_step_end=callback,
        )


def _run_batch(config: GenerateConfig, file: Path) -> int:
    from worldfoundry.core.errors import UsageError
    from worldfoundry.inference.batch import read_batch, run_batch

    out = config.out if config.out.suffix.lower() != ".mp4" else None
    if out is None or out.is_file():
        raise UsageError(f"With --batch, --out must be a folder, not {str(config.out)!r}.", "For example --out videos.")
    lines = read_batch(file)
    shared = config.model_dump(exclude={"batch"})
    world = _load(config)

    def make(fields: Mapping[str, Any], path: Path) -> "tuple[dict[str, Any], Callable[[], WorldVideo]]":
        fixed = sorted(set(fields) & set(LOADING))
        if fixed:
            raise UsageError(f"A line cannot set {', '.join(fixed)}: that is the same for the whole batch.", "Use the flag.")
        request = GenerateConfig.from_dict({**shared, **fields, "out": path}, where="request")
        asked = request.model_dump(mode="json", exclude={"out", "batch", "device", "offload", "preview_every"})
        return asked, lambda: _generate(world, request)

    return run_batch(lines, out, make)


CONFIG = GenerateConfig
