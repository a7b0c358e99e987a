"""Language models that run outside this package: a transformers folder on this machine, or a server with OpenAI's interface."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from worldfoundry.conditioning.t5 import _read, _transformers
from worldfoundry.conditioning.upsampler_style import talk
from worldfoundry.core.errors import CheckpointError, DownloadError, UsageError

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
        reader = _transformers().AutoModelForCausalLM.from_pretrained
        network, told = _read(self.folder, reader, use_safetensors=True, output_loading_info=True, torch_dtype="auto")
        if told["missing_keys"]:  # transformers would go on with random ones
            raise CheckpointError(
                f"The language model {str(self.folder)!r} lacks {len(told['missing_keys'])} tensors, for example "
                f"{min(told['missing_keys'])!r}.",
                "Copy the whole folder again.",
            )
        return network.eval().requires_grad_(False)

    @cached_property
    def _pieces(self) -> Any:
        return _read(self.folder, _transformers().AutoTokenizer.from_pretrained)


class ServerChat:
    """A server with OpenAI's chat interface. `http://127.0.0.1:8000/v1` asks the first model that it lists, `…/v1#NAME` that one."""

    def __init__(self, url: str, *, timeout_s: float = 60.0) -> None:
        """Raises UsageError for an address without a host."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address of a server.", "It looks like http://127.0.0.1:8000/v1")
        self.name, self.timeout_s, self._chosen = url, timeout_s, parts.fragment
        self._base = parts._replace(fragment="", query="").geturl().rstrip("/")
        here = parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127.")
        # A proxy, which the surroundings may name, knows nothing of this machine's own servers.
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))

    def answer(self, prompt: str, *, seed: int) -> str:
        """What the server's model says. Raises DownloadError if it does not answer, refuses, or answers something else."""
        asked = {
            "model": self._chosen or self._first_model(),
            "messages": talk(prompt),
            "temperature": TEMPERATURE,
            "max_tokens": MAX_TOKENS,
            "seed": seed,
        }
        said = self._ask("/chat/completions", asked)
        try:
            text = said["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise self._error(f"answered without a message: {json.dumps(said)[:100]}")
        return text

    def _first_model(self) -> str:
        try:
            return str(self._ask("/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise self._error("lists no model") from error

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self.timeout_s) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            raise self._error(f"answered {path} with HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:  # URLError and a timeout are OSErrors
            reason = getattr(error, "reason", None) or error
            raise self._error(f"did not answer: {' '.join(str(reason).split())[:100]}") from error
        except ValueError as error:  # no JSON, or no text at all
            raise self._error(f"answered {path} with something that is not JSON") from error

    def _error(self, what: str) -> DownloadError:
        return DownloadError(f"The prompt upsampler {self.name!r} {what}.", OFFLINE_HINT)
