"""SmolLM2-135M-Instruct, the embedded language model: a Llama of 30 layers and width 576 (arXiv 2502.02737, 2307.09288).

Legend: L tokens, S tokens seen before them, D width, h heads (g of them for keys and values), d head width, V vocabulary.
Notable: grouped keys and values; rotary embedding of neighbouring pairs (the order in which GGUF stores queries and keys); one
embedding for input and output. The weights come as GGUF (`models get smollm2`), and are float32 here: its fields say the sizes,
vocabulary and merges lie beside the tensors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.conditioning.upsampler_gguf import GGUF, read_gguf
from worldfoundry.conditioning.upsampler_style import STEMS, as_sentence, is_copied, talk
from worldfoundry.core.checkpoint import fill, weightless
from worldfoundry.core.errors import CheckpointError, DownloadError
from worldfoundry.core.model_store import get_model

SENTENCE_TOKENS = 40
TEMPERATURE, TOP_P, PENALTY = 0.3, 0.9, 1.1
_TO_THE_READER = re.compile(r"\b(you|your|yours|I|we|our)\b")

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values [g, S, d] of every layer."""


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The sizes of a Llama."""

    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    rope_base: float = 100_000.0
    norm_eps: float = 1e-5


class LlamaLayer(nn.Module):
    """Attention to all tokens up to one's own, then a gated MLP, each added to its input."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        D, d = config.width, config.width // config.num_heads
        self.head_width = d
        self.attn_norm, self.ffn_norm = (nn.RMSNorm(D, config.norm_eps) for _ in range(2))
        self.attn_q = nn.Linear(D, config.num_heads * d, bias=False)
        self.attn_k, self.attn_v = (nn.Linear(D, config.num_kv_heads * d, bias=False) for _ in range(2))
        self.attn_output = nn.Linear(config.num_heads * d, D, bias=False)
        self.ffn_gate, self.ffn_up = (nn.Linear(D, config.mlp_width, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(config.mlp_width, D, bias=False)

    def forward(
        self, x_LD: Tensor, turn_Ld: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h_LD = self.attn_norm(x_LD)
        q, k, v = (
            f(h_LD).unflatten(-1, (-1, self.head_width)).transpose(0, 1) for f in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = rotate(q, turn_Ld), rotate(k, turn_Ld)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
        mask_LS = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask_LS, enable_gqa=True)[0]
        x_LD = x_LD + self.attn_output(mixed.transpose(0, 1).flatten(1))
        h_LD = self.ffn_norm(x_LD)
        return x_LD + self.ffn_down(F.silu(self.ffn_gate(h_LD)) * self.ffn_up(h_LD)), (k, v)


def rotate(x_hLd: Tensor, turn_Ld: Tensor) -> Tensor:
    """Turn each neighbouring pair of numbers by its token's angle; `turn_Ld` is complex, [L, d/2]."""
    pairs = torch.view_as_complex(x_hLd.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn_Ld).flatten(-2).to(x_hLd.dtype)


class Llama(nn.Module):
    """Token ids in, numbers for the next token out. Names of parameters are GGUF's."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab_size, config.width)
        self.blk = nn.ModuleList(LlamaLayer(config) for _ in range(config.num_layers))
        self.output_norm = nn.RMSNorm(config.width, config.norm_eps)

    def forward(self, ids_L: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """[L] ids that follow the cached ones → logits of what comes after the last one [V], and the longer cache."""
        d, seen = self.config.width // self.config.num_heads, cache[0][0].shape[1] if cache else 0
        rates = self.config.rope_base ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
        angles = torch.outer(torch.arange(seen, seen + len(ids_L), dtype=torch.float64), rates)
        turn_Ld = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        x_LD, longer = self.token_embd(ids_L), []
        for i, layer in enumerate(self.blk):
            x_LD, kept = layer(x_LD, turn_Ld, cache[i] if cache else None)
            longer.append(kept)
        return F.linear(self.output_norm(x_LD[-1]), self.token_embd.weight).float(), longer


def llama_from_gguf(file: GGUF) -> Llama:
    """An eval-mode Llama without gradients. Raises CheckpointError for another architecture, or tensors that do not fit."""
    fields, architecture = file.fields, file.fields.get("general.architecture")
    if architecture != "llama" or "output.weight" in file.tensors:
        raise CheckpointError(f"The GGUF file holds a {architecture!r}; only a 'llama' with shared embedding is known.")
    try:
        config = LlamaConfig(
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            width=fields["llama.embedding_length"],
            mlp_width=fields["llama.feed_forward_length"],
            num_layers=fields["llama.block_count"],
            num_heads=fields["llama.attention.head_count"],
            num_kv_heads=fields["llama.attention.head_count_kv"],
            rope_base=fields["llama.rope.freq_base"],
            norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        )
    except KeyError as error:
        raise CheckpointError(f"The GGUF file lacks the field {error.args[0]!r}.", "Get it again.") from error
    with weightless():
        network = Llama(config)
    fill(network, {name: torch.from_numpy(np.ascontiguousarray(t)) for name, t in file.tensors.items()}, where="the GGUF file")
    return network.eval().requires_grad_(False)


class Vocabulary:
    """Byte-level pieces of text as the GGUF file lists them, and the marks around the turns of a talk."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        pieces = fields["tokenizer.ggml.tokens"]
        vocabulary = {piece: i for i, piece in enumerate(pieces)}
        merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
        self._tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        self._tokenizer.decoder = decoders.ByteLevel()
        self.start, self.end = vocabulary["<|im_start|>"], vocabulary["<|im_end|>"]
        self.stops = {self.end, vocabulary["<|endoftext|>"]}

    def ids(self, text: str) -> list[int]:
        """Pieces of a text; marks written in it are plain text."""
        return self._tokenizer.encode(text).ids

    def text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def turn(self, messages: Sequence[Mapping[str, str]], opening: str) -> list[int]:
        """Messages (`role`, `content`) in the model's template, and its next turn, which begins with `opening`."""
        ids = []
        for message in messages:
            ids += [self.start, *self.ids(f"{message['role']}\n{message['content']}"), self.end, *self.ids("\n")]
        return [*ids, self.start, *self.ids(f"assistant\n{opening}")]


class SmolLM2:
    """Details a prompt, sentence by sentence."""

    def __init__(self, network: Llama, vocabulary: Vocabulary) -> None:
        self.network, self.vocabulary = network, vocabulary

    @classmethod
    def from_file(cls, path: Path) -> "SmolLM2":
        """From a GGUF file. Raises CheckpointError."""
        file = read_gguf(path)
        return cls(llama_from_gguf(file), Vocabulary(file.fields))

    @torch.inference_mode()
    def detail(self, prompt: str, *, seed: int) -> str:
        """The prompt as a sentence, and one sentence after each stem.

        Left alone, a model of this size soon talks of something else; so its own words only ever end a sentence that was
        begun for it. Sentences that do not end, speak to the reader or are an example's are left out.
        """
        generator = torch.Generator().manual_seed(seed)
        sentences = [as_sentence(prompt)]
        logits_V, cache = self.network(torch.tensor(self.vocabulary.turn(talk(prompt), sentences[0])))
        for stem in STEMS:
            logits_V, cache = self.network(torch.tensor(self.vocabulary.ids(f" {stem}")), cache)
            said: list[int] = []
            text = ""
            while not text.endswith(".") and len(said) < SENTENCE_TOKENS:
                said.append(draw(logits_V, said, generator))
                if said[-1] in self.vocabulary.stops:
                    break
                text = self.vocabulary.text(said).rstrip()
                logits_V, cache = self.network(torch.tensor(said[-1:]), cache)
            if text.endswith(".") and not _TO_THE_READER.search(text) and not is_copied(stem + text):
                sentences.append(stem + text)
        return " ".join(sentences)


def draw(logits_V: Tensor, said: Sequence[int], generator: torch.Generator) -> int:
    """The next token: words said before are less likely, and only the likeliest TOP_P of what remains is drawn from."""
    used = torch.tensor(sorted(set(said)), dtype=torch.long)
    before = logits_V[used]
    logits_V = logits_V.index_put((used,), torch.where(before > 0, before / PENALTY, before * PENALTY))
    chances, order = (logits_V / TEMPERATURE).softmax(-1).sort(descending=True, stable=True)
    chances = torch.where(chances.cumsum(-1) - chances < TOP_P, chances, 0)
    return int(order[torch.multinomial(chances, 1, generator=generator)])


class EmbeddedChat:
    """SmolLM2 from the cache of fetched models; nothing is fetched or read before the first prompt."""

    name = "smollm2"

    def __init__(self, *, download: bool = True) -> None:
        self.download = download

    def answer(self, prompt: str, *, seed: int) -> str:
        """Raises DownloadError where the weights are neither in the cache nor to be had, CheckpointError for damaged ones."""
        return self._model.detail(prompt, seed=seed)

    @cached_property
    def _model(self) -> SmolLM2:
        try:
            folder = get_model(self.name, download=self.download)
        except DownloadError as error:
            raise DownloadError(error.message, f"{error.hint}. Or generate with --upsample off.") from error
        return SmolLM2.from_file(folder / "model.gguf")
