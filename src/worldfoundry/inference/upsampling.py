"""From the prompts that were written to the prompts that a world is told.

The published worlds were trained on long captions, so short prompts are detailed for them where nothing else is asked; ours know
short ones. The guards have seen what was written; here they see what was made of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from worldfoundry.conditioning.upsampler import PromptUpsampler
from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import BlockedError, UsageError, WorldFoundryError
from worldfoundry.core.progress import say
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.inference.config import WorldDefaults


@dataclass(frozen=True, kw_only=True)
class Told:
    """The prompts that the world is told, what the guards said of new ones, and what is recorded beside them."""

    prompts: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)


def wants_upsampling(asked: bool | None, prompts: Sequence[str], defaults: WorldDefaults, *, frames_given: bool) -> bool:
    """What was asked; else (None) yes for a published world that starts from text alone.

    Published worlds are those told by T5. An upsampler does not see given frames, and would make up what they show.
    Raises UsageError where there is nothing to detail.
    """
    if asked and not any(prompts):
        raise UsageError("There is no prompt to upsample.", "Give a prompt, or leave upsampling out.")
    return asked if asked is not None else defaults.text_encoder == "t5" and any(prompts) and not frames_given


def tell(prompts: Sequence[str], upsampler: PromptUpsampler | None, guardrails: Guardrails, *, seed: int) -> Told:
    """Detail each prompt, and let the guards look at it; no upsampler leaves all as written.

    Raises BlockedError or GuardUnavailable for what the guards object to, and what the upsampler raises: after a fault, nothing is
    generated from the prompts as written.
    """
    written = list(prompts) if len(prompts) > 1 else prompts[0]
    record = {"original_prompt": written, "upsampler": upsampler.name if upsampler else None}
    if upsampler is None:
        return Told(prompts=tuple(prompts), record=record)
    made: list[str] = []
    verdicts: list[Verdict] = []
    for prompt in prompts:
        text = upsampler.upsample(prompt, seed=seed) if prompt else prompt
        if not isinstance(text, str) or (prompt and not text.strip()):
            raise WorldFoundryError(f"The prompt upsampler {upsampler.name!r} gave {text!r}.", "Generate with --upsample off.")
        if text != prompt:
            say(f"upsampled prompt: {text}")
            verdicts += _looked_at(text, upsampler.name, guardrails)
        made.append(text)
    return Told(prompts=tuple(made), verdicts=tuple(verdicts), record=record)


def _looked_at(text: str, name: str, guardrails: Guardrails) -> tuple[Verdict, ...]:
    try:
        return guardrails.enforce_text(text)
    except BlockedError as error:
        raise BlockedError(
            f"The prompt may pass, but not what the upsampler {name!r} made of it: {error.message}",
            "Try another seed, or generate with --upsample off.",
            error.verdicts,
        ) from error
