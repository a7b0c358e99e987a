"""Prompts → context rows for cross-attention.

Legend: B prompts, L rows (fixed per encoder), D width. A network attends to all L rows, zero rows too (as the published
models do with T5's 512), so a world must always be given the L that it was trained with.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from worldfoundry.core.errors import ConfigError, did_you_mean
from worldfoundry.core.model_store import get_model
from worldfoundry.perception.minilm import MiniLM, load_minilm


class TextEncoder(Protocol):
    """`name` tells what made the rows, `width` is D, `max_length` is L."""

    name: str
    width: int
    max_length: int

    def encode(self, prompts: list[str]) -> Tensor:
        """[B, L, D] in float32, zero past each prompt's length; longer prompts are cut."""
        ...

    def count_tokens(self, prompt: str) -> int:
        """How many rows the whole prompt would need."""
        ...


class NullTextEncoder:
    """All rows zero whatever the prompt: what a world is given when there is no text encoder, or no text."""

    name = "none"

    def __init__(self, width: int, max_length: int) -> None:
        self.width, self.max_length = width, max_length

    def encode(self, prompts: list[str]) -> Tensor:
        return torch.zeros(len(prompts), self.max_length, self.width)

    def count_tokens(self, prompt: str) -> int:
        return 0


class MiniLMTextEncoder:
    """Last hidden states of all-MiniLM-L6-v2, one row per word piece, [CLS] and [SEP] included."""

    name = "minilm"

    def __init__(self, network: MiniLM, tokenizer_file: Path, max_length: int = 64) -> None:
        """Raises ConfigError for a max_length that the network has no positions for."""
        from tokenizers import Tokenizer

        if not 2 <= max_length <= network.config.max_position_embeddings:
            raise ConfigError(f"max_length must be 2 to {network.config.max_position_embeddings}, not {max_length!r}.")
        self.network, self.width, self.max_length = network, network.config.hidden_size, max_length
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_truncation()  # the published file cuts at 128 and pads to 128
        self._tokenizer.no_padding()

    @classmethod
    def from_folder(cls, folder: Path, max_length: int = 64) -> "MiniLMTextEncoder":
        """From a folder with config.json, model.safetensors and tokenizer.json."""
        return cls(load_minilm(folder), folder / "tokenizer.json", max_length)

    @classmethod
    def fetched(cls, *, download: bool = True, max_length: int = 64) -> "MiniLMTextEncoder":
        """From the cache, fetched on first use. Raises DownloadError where it is neither there nor to be had."""
        return cls.from_folder(get_model("minilm", download=download), max_length)

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        rows = [self._ids(prompt) for prompt in prompts]
        device = self.network.words.weight.device
        ids_BL = torch.zeros(len(rows), max(map(len, rows), default=0), dtype=torch.long, device=device)
        mask_BL = torch.zeros_like(ids_BL)
        for i, row in enumerate(rows):
            ids_BL[i, : len(row)] = torch.tensor(row)
            mask_BL[i, : len(row)] = 1
        result = torch.zeros(len(rows), self.max_length, self.width, device=device)
        if rows:
            result[:, : ids_BL.shape[1]] = self.network(ids_BL, mask_BL).float() * mask_BL[..., None]
        return result

    def count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer.encode(prompt).ids)

    def _ids(self, prompt: str) -> list[int]:
        """Word pieces of a prompt; a long one is cut, its closing [SEP] kept."""
        ids = self._tokenizer.encode(prompt).ids
        return ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]]


def text_encoder(name: str, max_length: int, *, width: int = 384, download: bool = True) -> TextEncoder:
    """The encoder called `name`: `minilm` (fetched on first use), or `none` (zero rows of `width`).

    Raises ConfigError for another name, DownloadError where weights are neither in the cache nor to be had.
    """
    if name == "t5":
        raise ConfigError(
            "T5 is read from folders, not by its name.", "Pass T5TextEncoder(text_encoder folder, tokenizer folder)."
        )
    if name == "minilm":
        return MiniLMTextEncoder.fetched(download=download, max_length=max_length)
    if name == "none":
        return NullTextEncoder(width, max_length)
    raise ConfigError(f"Unknown text encoder {name!r}.", did_you_mean(name, ["minilm", "none"]))
