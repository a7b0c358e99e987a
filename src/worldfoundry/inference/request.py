"""What is asked of a world: defaults filled in, and what cannot be met refused before anything is computed.

Axis legend: T frames, A numbers of an action.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.inference.canvas import natural_size
from worldfoundry.inference.config import Request, SchedulerConfig, WorldDefaults
from worldfoundry.inference.frames import conditioning_length, end_latents, prefix_latents
from worldfoundry.inference.windows import Window, prompt_at


def complete_request(defaults: WorldDefaults, asked: dict[str, Any]) -> Request:
    """What was not asked (None) is the world's default. Several prompts follow one another. Raises ConfigError or UsageError."""
    given = {name: value for name, value in asked.items() if value is not None}
    if not isinstance(given.get("prompt", ""), str):
        if not isinstance(prompts := given.pop("prompt"), Sequence):
            raise UsageError(f"A prompt is text, or several texts in a list, not {prompts!r}.")
        given |= {"prompt": prompts[0] if prompts else "", "later_prompts": tuple(prompts[1:])}
    filled = {name: value for name, value in defaults.to_dict().items() if name in Request.model_fields}
    return Request.from_dict({**filled, **given}, where="request")


def prompts_of(request: Request) -> tuple[str, ...]:
    """The prompts in their order; one empty one where there is none."""
    return (request.prompt, *request.later_prompts)


def check_request(request: Request, defaults: WorldDefaults, scheduler: SchedulerConfig) -> None:
    """Raises UsageError for text that the world cannot follow, and for too few steps."""
    if any((*prompts_of(request), request.negative_prompt)) and defaults.text_encoder == "none":
        raise UsageError("This world was trained without text, so it cannot follow a prompt.", "Leave the prompt out.")
    if request.num_inference_steps < 2 and scheduler.final_sigmas_type == "sigma_min":
        raise UsageError(
            f"This world needs num_inference_steps of at least 2, not {request.num_inference_steps!r}: its last one only "
            "arrives at sigma_min."
        )


def settle_size(
    request: Request, defaults: WorldDefaults, aspect: str | None, frames: np.ndarray | None, *, sized: bool
) -> Request:
    """The size where none was asked for (`sized`): that of an aspect or, in a world of several shapes, of given frames.

    Raises UsageError for an aspect beside a size, and for one that the world was not trained on.
    """
    shapes = defaults.shapes
    if aspect is not None:
        if sized:
            raise UsageError("Both an aspect and a size were asked for.", "Give one of them.")
        if aspect not in shapes:
            has = ", ".join(shapes) or f"one shape, {defaults.width}x{defaults.height}"
            raise UsageError(f"This world was not trained on the aspect {aspect!r}.", f"It has {has}.")
        height, width = shapes[aspect]
    elif shapes and frames is not None and not sized:
        height, width = natural_size(shapes, *frames.shape[1:3])
    else:
        return request
    return request.replace(height=height, width=width)


def check_takes_frames(request: Request, network: DiTConfig, name: str) -> None:
    """Whether a world can be given frames at all. Raises UsageError."""
    if not network.condition_mask:
        raise UsageError("This world starts from text alone.", f"Leave the {name} out, or use a video-to-world model.")
    if not request.num_prefix_frames:
        raise UsageError(f"With num_prefix_frames 0 the {name} would not be used.", f"Raise it, or leave the {name} out.")


def check_prompts(prompts: Sequence[str], windows: Sequence[Window], latent_frames: int) -> None:
    """Whether every prompt holds in some window. Raises UsageError."""
    held = {prompt_at(window, len(prompts), latent_frames) for window in windows}
    if unused := [prompt for number, prompt in enumerate(prompts) if number not in held]:
        many = f"{len(windows)} windows" if len(windows) > 1 else "one window"
        raise UsageError(
            f"{len(prompts)} prompts cannot share a video that is made in {many}: {unused[0]!r} would not be used.",
            "Give fewer prompts, or raise num_frames.",
        )


def check_lengths(
    request: Request,
    start: np.ndarray | None,
    end: np.ndarray | None,
    temporal_compression: int,
    latent_frames: int,
    window: int,
) -> None:
    """Whether the given frames leave something to generate in a clip of `latent_frames` and in each `window` of it.

    Raises UsageError.
    """
    tc, starts, ends = temporal_compression, *(0 if frames is None else len(frames) for frames in (start, end))
    if starts and conditioning_length(starts, tc) >= request.num_frames:
        raise UsageError(
            f"The prefix has {starts} frames, but the output only {request.num_frames!r}.",
            "Raise num_frames, or lower num_prefix_frames.",
        )
    given, taken = prefix_latents(starts, tc), end_latents(ends, request.num_frames, tc)
    if taken and given + taken >= latent_frames:
        raise UsageError(
            f"Nothing is left between the given frames: the output has {latent_frames!r} latent frames, of which the input "
            f"takes {given!r} and the end {taken!r}.",
            "Raise num_frames, or lower num_prefix_frames.",
        )
    if latent_frames <= window:
        return
    beyond = -(request.num_frames - 1) % tc
    # The first window is given the prefix, the last one the end and a latent frame of the window before.
    most = {"prefix": (window - 1) * tc, "end": (window - 2) * tc - beyond}
    for name, latents, count in (("prefix", given + 1, starts), ("end", taken + 2, ends)):
        if count and latents > window:
            fits = f"at most {most[name]} fit beside what it makes" if most[name] > 0 else "none fits beside what it makes"
            raise UsageError(
                f"The {name} has {count!r} frames, but a video of {request.num_frames} frames is made in windows of "
                f"{1 + (window - 1) * tc}, of which {fits}.",
                "Lower num_prefix_frames." if most[name] > 0 else "Lower num_frames to that of one window.",
            )


def check_actions(actions: np.ndarray | None, names: Sequence[str], num_frames: int) -> np.ndarray | None:
    """Actions as float32 [T = num_frames, A]; a world with actions gets zeros where none are given. Raises UsageError."""
    if not names:
        if actions is not None:
            raise UsageError("This world takes no actions.", "Use a world that was trained with actions.")
        return None
    if actions is None:
        return np.zeros((num_frames, len(names)), np.float32)
    try:
        actions = np.asarray(actions, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Actions must be numbers [frames, {len(names)}] ({', '.join(names)}): {error}.") from error
    if actions.ndim != 2 or actions.shape[1] != len(names) or not np.isfinite(actions).all():
        raise UsageError(
            f"Actions must be finite numbers [frames, {len(names)}] ({', '.join(names)}), not {list(actions.shape)!r}."
        )
    if len(actions) < num_frames - 1:
        raise UsageError(
            f"{num_frames} frames need {num_frames - 1} actions, but {len(actions)!r} were given.",
            "Give more actions, or ask for fewer frames.",
        )
    return np.concatenate([actions, np.zeros((1, len(names)), np.float32)])[:num_frames]
