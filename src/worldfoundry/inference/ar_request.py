"""What an autoregressive world cannot do, said before anything is computed."""

from math import prod
from typing import Any

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import UsageError
from worldfoundry.inference.ar_config import AutoregressiveDefaults, AutoregressiveRequest
from worldfoundry.inference.frames import conditioning_length, prefix_latents

WHY_NOT = {
    "actions": "This world takes no actions; use a world that was trained with actions.",
    "camera": "This world has no camera control; use a world post-trained for cameras.",
    "num_inference_steps": "An autoregressive world has no num_inference_steps; leave it out.",
    "guidance_scale": "An autoregressive world has no guidance_scale; leave it out.",
    "negative_prompt": "An autoregressive world has no negative_prompt, as it has no guidance; leave it out.",
}


def refuse(**given: Any) -> None:
    """Raises UsageError for the first that is not None: `core.contracts.World` has them, this kind of world does not."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(WHY_NOT[name])


def check_ar_request(
    request: AutoregressiveRequest, defaults: AutoregressiveDefaults, network: TransformerConfig, spec: TokenizerSpec
) -> None:
    """Raises UsageError for a prompt that the world cannot follow, and for sizes that its tokens do not cover."""
    if request.prompt and (defaults.text_encoder == "none" or not network.context_dim):
        raise UsageError("This world was trained without text, so it cannot follow a prompt.", "Leave the prompt out.")
    for name, pixels, side in (("height", request.height, spec.h), ("width", request.width, spec.w)):
        if pixels % side:
            raise UsageError(
                f"A {name} of {pixels!r} pixels is no whole number of tokens of {side!r} pixels.",
                f"Use a multiple of {side!r}.",
            )
    _, rows, columns = network.latent_shape
    if (request.height // spec.h, request.width // spec.w) != (rows, columns):
        raise UsageError(
            f"This world makes {columns * spec.w}x{rows * spec.h} pixels, not {request.width!r}x{request.height!r}: its tokens have "
            f"{rows} rows and {columns} columns.",
            "Leave height and width out, and resize the video afterwards.",
        )


def check_prefix(request: AutoregressiveRequest, count: int, network: TransformerConfig, spec: TokenizerSpec) -> None:
    """Whether `count` given frames fit the context, and leave something to make. Raises UsageError."""
    frames, rows, columns = network.latent_shape
    if not count and not network.bov:
        raise UsageError("This world continues frames, and none were given.", "Give an input image or video.")
    if prefix_latents(count, spec.t) >= frames:
        raise UsageError(
            f"A prefix of {count!r} frames, {prefix_latents(count, spec.t) * rows * columns} tokens, leaves no room for a frame in "
            f"the context of {prod(network.latent_shape)} tokens.",
            f"Set num_prefix_frames to at most {max(0, (frames - 1) * spec.t)}.",
        )
    if count and conditioning_length(count, spec.t) >= request.num_frames:
        raise UsageError(
            f"The prefix has {count!r} frames, but the output only {request.num_frames!r}.",
            "Raise num_frames, or lower num_prefix_frames.",
        )
