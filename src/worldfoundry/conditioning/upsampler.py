"""Short prompt → detailed prompt in the manner of training captions (arXiv 2501.03575, on its prompt upsampler).

Three roads to a language model: the embedded SmolLM2, a transformers folder, a server. `upsampler_style.py` says what all are
told and what is kept of their answers. An answer that is of no use (a refusal, an echo) gives the prompt as it was written, and
says so; a model that fails raises. Guarding prompt and result is the caller's (inference).
"""

from pathlib import Path
from typing import Protocol

from worldfoundry.conditioning.upsampler_chat import ServerChat, TransformersChat
from worldfoundry.conditioning.upsampler_smollm2 import EmbeddedChat
from worldfoundry.conditioning.upsampler_style import cleaned, fault, is_detailed
from worldfoundry.core.errors import UsageError, did_you_mean
from worldfoundry.core.progress import say

EMBEDDED = "smollm2"


class PromptUpsampler(Protocol):
    """`name` tells who detailed a prompt; it is recorded with the video."""

    name: str

    def upsample(self, prompt: str, *, seed: int) -> str:
        """A detailed prompt, the same for the same prompt and seed; or the prompt itself."""
        ...


class ChatModel(Protocol):
    """A language model that was told the task and is given the prompt."""

    name: str

    def answer(self, prompt: str, *, seed: int) -> str: ...


class ChatUpsampler:
    """What a language model makes of a prompt, cleaned and checked."""

    def __init__(self, model: ChatModel) -> None:
        self.model, self.name = model, model.name

    def upsample(self, prompt: str, *, seed: int) -> str:
        """Raises what the model raises: DownloadError, CheckpointError, MissingExtraError."""
        if is_detailed(prompt):
            say("upsampler: the prompt is long already and is used as written")
            return prompt
        text = cleaned(self.model.answer(prompt, seed=seed))
        if why := fault(text, prompt):
            say(f"upsampler: the answer of {self.name} is of no use ({why}); the prompt is used as written")
            return prompt
        return text


def prompt_upsampler(which: str = EMBEDDED, *, download: bool = True) -> ChatUpsampler:
    """The upsampler called `smollm2` (fetched on first use), in a transformers folder, or behind an http(s) address.

    Nothing is read or asked before the first prompt. Raises UsageError for a name that is none of these.
    """
    if which == EMBEDDED:
        return ChatUpsampler(EmbeddedChat(download=download))
    if which.startswith(("http://", "https://")):
        return ChatUpsampler(ServerChat(which))
    folder = Path(which).expanduser()
    if folder.is_dir():
        return ChatUpsampler(TransformersChat(folder))
    hint = did_you_mean(which, [EMBEDDED])
    raise UsageError(
        f"There is no prompt upsampler {which!r}.",
        f"{hint if hint.startswith('Did') else ''} Give {EMBEDDED}, a transformers folder, or an address like http://127.0.0.1:8000/v1".strip(),
    )
