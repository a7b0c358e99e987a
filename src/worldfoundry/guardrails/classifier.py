"""The learned text guard: a small head on the features of the default text encoder, all-MiniLM-L6-v2.

Legend: N pieces of text, L tokens, D = 768 features, H hidden units, C outputs (`safe`, then the categories).

A text is read as a person would (`normalize.reading`), and judged as a whole, sentence by sentence, and in short windows of
long sentences, so that a harmful sentence inside a harmless page counts as if it stood alone. Each piece's score is the
probability that it is not safe; its category is the likeliest one, and each category has a threshold of its own, chosen on
families of sentences that the head had not seen (`scripts/train_guard_head.py`). The head ships; the encoder is fetched once.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import CheckpointError, WorldFoundryError
from worldfoundry.core.model_store import file_sha256, get_model
from worldfoundry.core.model_table import MODELS
from worldfoundry.guardrails.categories import CATEGORIES
from worldfoundry.guardrails.lexicon import packaged_lexicon
from worldfoundry.guardrails.normalize import fold, not_plain, reading, tokens, unread

SAFE = "safe"
OUTPUTS = (SAFE, *CATEGORIES)
WINDOW, OVERLAP = 126, 32  # word pieces that are read at a time, and how many of them twice
LONG_SENTENCE, SHORT_WINDOW, SHORT_STEP = 16, 12, 6  # words
BATCH_TOKENS = 4096
LAYERS = (-1, 3)  # whose means are the features: meaning from the last layer, wording from a middle one


class ClassifierConfig(Config):
    """Options of the learned text guard."""

    thresholds: dict[str, float] = Field(default_factory=dict)
    """Score from which a category blocks, in place of the packaged one; 1 switches a category off."""
    unread_scripts: Literal["block", "allow"] = "block"
    """What to do with letters that are not Latin, of which the encoder knows little."""
    max_chars: int = Field(default=20_000, ge=1)
    """Longer texts are refused unread."""
    download: bool = True
    """Fetch the encoder's weights on first use; if not, a text without them in the cache is blocked."""


def clear_text(text: str) -> str:
    """What the encoder is given: folded, and in place of disguised words what they spell."""
    folded = fold(text)
    words = reading(text, packaged_lexicon())
    return folded if words == tokens(folded) else " ".join(words).replace(" .", ".")


def pieces(text: str) -> list[str]:
    """The text, its sentences if there are several, and overlapping windows of long sentences."""
    found = [text]
    sentences: list[str] = []
    for sentence in re.split(r"(?<=[.!?;:])\s+|\n+", text.strip()):
        if sentences and len(sentence.split()) < 3:
            sentences[-1] += f" {sentence}"
        else:
            sentences.append(sentence)
    found += sentences if len(sentences) > 1 else []
    for sentence in sentences:
        words = sentence.split()
        if len(words) > LONG_SENTENCE:
            starts = range(0, len(words) - SHORT_WINDOW + SHORT_STEP, SHORT_STEP)
            found += [" ".join(words[start : start + SHORT_WINDOW]) for start in starts]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class SentenceEncoder:
    """The means of MiniLM's hidden states after the last and after a middle layer, of length 1; a row per window of a text."""

    network: Any
    tokenizer: Any
    hash: str = ""

    @classmethod
    def fetched(cls, *, download: bool = True) -> "SentenceEncoder":
        """From the cache, fetched on first use. Raises DownloadError where it is neither there nor to be had."""
        from tokenizers import Tokenizer
        from worldfoundry.perception.minilm import load_minilm

        folder = get_model("minilm", download=download)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        published = {file.name: file.sha256 for file in MODELS["minilm"].source.files}["model.safetensors"]
        return cls(network=load_minilm(folder), tokenizer=tokenizer, hash=published[:12])

    def windows(self, text: str) -> list[list[int]]:
        """Token ids in windows that overlap, each between the first and the last special token; nothing is cut."""
        first, *inner, last = self.tokenizer.encode(text).ids
        starts = range(0, max(len(inner) - OVERLAP, 1), WINDOW - OVERLAP)
        return [[first, *inner[start : start + WINDOW], last] for start in starts]

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, list[int]]:
        """([N, D] float32, index of the text that each row belongs to); N ≥ len(texts)."""
        import torch
        from torch.nn.functional import normalize

        rows = [(i, ids) for i, text in enumerate(texts) for ids in self.windows(text)]
        order = sorted(range(len(rows)), key=lambda n: len(rows[n][1]))
        vectors_ND = np.zeros((len(rows), len(LAYERS) * self.network.config.hidden_size), np.float32)
        while order:
            longest = len(rows[order[-1]][1])
            batch = [order.pop() for _ in range(min(len(order), max(1, BATCH_TOKENS // longest)))]
            ids_BL = torch.zeros(len(batch), longest, dtype=torch.long)
            for b, n in enumerate(batch):
                ids_BL[b, : len(rows[n][1])] = torch.tensor(rows[n][1])
            mask_BL = (torch.arange(longest) < torch.tensor([len(rows[n][1]) for n in batch])[:, None]).long()
            with torch.inference_mode():
                layers = self.network.states(ids_BL, mask_BL)
                means = [(layers[at] * mask_BL[..., None]).sum(1) / mask_BL.sum(1, keepdim=True) for at in LAYERS]
                vectors_ND[batch] = (
                    torch.cat([normalize(mean_BD, dim=-1) for mean_BD in means], 1) / len(LAYERS) ** 0.5
                ).numpy()
        return vectors_ND, [i for i, _ in rows]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Linear, ReLU, linear, softmax, and the thresholds; `hash` is the file's."""

    w1_HD: np.ndarray
    b1_H: np.ndarray
    w2_CH: np.ndarray
    b2_C: np.ndarray
    thresholds: Mapping[str, float]
    hash: str = ""

    def __call__(self, x_ND: np.ndarray) -> np.ndarray:
        """[N, D] → [N, C] probabilities, in the order of `OUTPUTS`."""
        hidden_NH = np.maximum(x_ND @ self.w1_HD.T + self.b1_H, 0)
        logits_NC = hidden_NH @ self.w2_CH.T + self.b2_C
        raised_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
        return raised_NC / raised_NC.sum(1, keepdims=True)


HEAD_FILE = Path(str(files("worldfoundry.guardrails").joinpath("text_head.safetensors")))


def load_head(path: Path = HEAD_FILE) -> Head:
    """Read a head. Raises CheckpointError if it is absent, damaged, or made for other categories."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get("worldfoundry", "{}"))
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The head of the text classifier {str(path)!r} cannot be read: {error}.", _AGAIN) from error
    if about.get("outputs") != list(OUTPUTS) or set(about.get("thresholds", ())) != set(CATEGORIES):
        raise CheckpointError(f"The head {str(path)!r} was made for other categories: {about.get('outputs')!r}.", _AGAIN)
    if set(tensors) != {"w1_HD", "b1_H", "w2_CH", "b2_C"} or not all(np.isfinite(t).all() for t in tensors.values()):
        raise CheckpointError(f"The head {str(path)!r} is damaged: tensors {sorted(tensors)!r}.", _AGAIN)
    return Head(**tensors, thresholds=about["thresholds"], hash=file_sha256(path)[:12])


_AGAIN = "Install worldfoundry again, or train it again: scripts/train_guard_head.py"


@cache
def _packaged(download: bool) -> tuple[SentenceEncoder, Head]:
    return SentenceEncoder.fetched(download=download), load_head()


class ClassifierGuard:
    """`check(text) -> Verdict`; a `Guard` for text. Reads the head and the encoder when the first text that is not empty comes."""

    name = "classifier"
    takes: Literal["text"] = "text"

    def __init__(self, config: ClassifierConfig) -> None:
        """Raises ValueError for a threshold of an unknown category."""
        unknown = set(config.thresholds) - set(CATEGORIES)
        if unknown:
            raise ValueError(f"thresholds for unknown categories {sorted(unknown)!r}; known are {list(CATEGORIES)!r}")
        self.config = config

    def check(self, item: str) -> Verdict:
        """`unsafe` if a piece reaches its category's threshold, `skipped` if letters went unread, `error` if it cannot look."""
        if problem := not_plain(item, self.config.max_chars):
            return self._verdict("error", reason=problem, fix="Give a prompt in plain text.")
        if not item.strip():
            return self._verdict("safe", reason="nothing to judge in an empty text")
        missed = unread(item)
        if missed and self.config.unread_scripts == "block":
            reason = f"{len(missed)} letters are in a script that the classifier does not know ({missed[:12]!r})"
            fix = "Write the prompt in English, or set classifier.unread_scripts to allow."
            return self._verdict("skipped", reason=reason, fix=fix, unread_letters=len(missed))
        try:
            encoder, head = _packaged(self.config.download)
        except WorldFoundryError as error:
            return self._verdict("error", reason=error.message, fix=error.hint)
        return self._judge(item, encoder, head)

    def _judge(self, item: str, encoder: SentenceEncoder, head: Head) -> Verdict:
        parts = pieces(clear_text(item))
        vectors_ND, owner = encoder(parts)
        found = worst(head(vectors_ND), {**head.thresholds, **self.config.thresholds})
        said = parts[owner[found.row]]
        facts = {
            "score": round(found.score, 4),
            "threshold": found.threshold,
            "part": said if len(said) <= 80 else f"{said[:77]}...",
            "pieces": len(vectors_ND),
            "head": head.hash,
            "encoder": encoder.hash,
        }
        if found.score >= found.threshold:
            reason = f"reads like {CATEGORIES[found.category]} (score {found.score:.2f}, blocks from {found.threshold:.2f})"
            return self._verdict("unsafe", category=found.category, reason=reason, **facts)
        reason = f"closest to {found.category} with {found.score:.2f} of {found.threshold:.2f}"
        return self._verdict("safe", reason=reason, **facts)

    def _verdict(self, status: Any, *, category: str = "", reason: str, **evidence: Any) -> Verdict:
        return Verdict(status=status, guard=self.name, category=category, reason=reason, evidence=evidence)


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The piece that comes closest to being blocked, or goes furthest beyond."""

    row: int
    category: str
    score: float
    threshold: float


def worst(p_NC: np.ndarray, thresholds: Mapping[str, float]) -> Worst:
    """Of N pieces' probabilities, the piece whose score exceeds its category's threshold most."""
    score_N = np.clip(1 - p_NC[:, 0], 0, 1 - 1e-6)  # a threshold of 1 is never reached
    likeliest_N = p_NC[:, 1:].argmax(1)
    limits_N = np.array([thresholds[name] for name in CATEGORIES])[likeliest_N]
    row = int((score_N - limits_N).argmax())
    category = OUTPUTS[1 + int(likeliest_N[row])]
    return Worst(row=row, category=category, score=float(score_N[row]), threshold=float(thresholds[category]))
