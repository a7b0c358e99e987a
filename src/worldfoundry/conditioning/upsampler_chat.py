"""Language models that run outside this package: a transformers folder on this machine, or a server with OpenAI's interface."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from worldfoundry.conditioning.upsampler_style import talk
from worldfoundry.core.chat_server import ChatServer
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.transformers_folder import read_folder, read_network, transformers_library

MAX_TOKENS = 320
TEMPERATURE = 0.2
OFFLINE_HINT = "Start it, give another upsampler, or generate without one (--upsample off)."


class TransformersChat:
    """A causal language model in a folder of transformers; nothing is read before the first prompt."""

    def __init__(self, folder: Path, *, max_tokens: int = MAX_TOKENS) -> None:
        """Raises CheckpointError for a folder without config.json."""
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{str(folder)!r} holds no language model.", "Give a transformers folder with config.json.")
        self.folder, self.max_tokens, self.name = folder, max_tokens, str(folder)

    @torch.inference_mode()
    def answer(self, prompt: str, *, seed: int) -> str:
        """What the model says. Raises MissingExtraError without transformers, CheckpointError for a folder it cannot read."""
        pieces, network = self._pieces, self._network
        if pieces.chat_template:
            text = pieces.apply_chat_template(talk(prompt), tokenize=False, add_generation_prompt=True)
        else:
            text = "".join(f"{message['role']}: {message['content']}\n" for message in talk(prompt)) + "assistant:"
        ids_BL = pieces(text, return_tensors="pt", add_special_tokens=not pieces.chat_template).input_ids
        with torch.random.fork_rng(devices=[]):  # `generate` draws from the global generator
            torch.manual_seed(seed)
            made_BL = network.generate(
                ids_BL,
                attention_mask=torch.ones_like(ids_BL),
                max_new_tokens=self.max_tokens,
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=0.9,
                pad_token_id=pieces.pad_token_id if pieces.pad_token_id is not None else pieces.eos_token_id,
            )
        return pieces.decode(made_BL[0, ids_BL.shape[1] :], skip_special_tokens=True)

    @cached_property
    def _network(self) -> Any:
        return read_network(self.folder, transformers_library().AutoModelForCausalLM.from_pretrained, what="language model")

    @cached_property
    def _pieces(self) -> Any:
        return read_folder(self.folder, transformers_library().AutoTokenizer.from_pretrained)


class ServerChat:
    """A server with OpenAI's chat interface. `http://127.0.0.1:8000/v1` asks the first model that it lists, `…/v1#NAME` that one."""

    def __init__(self, url: str, *, timeout_s: float = 60.0) -> None:
        """Raises UsageError for an address without a host."""
        self.name = url
        self._server = ChatServer(url, what="prompt upsampler", hint=OFFLINE_HINT, timeout_s=timeout_s)

    def answer(self, prompt: str, *, seed: int) -> str:
        """What the server's model says. Raises DownloadError if it does not answer, refuses, or answers something else."""
        return self._server.complete(talk(prompt), temperature=TEMPERATURE, max_tokens=MAX_TOKENS, seed=seed)[0]
