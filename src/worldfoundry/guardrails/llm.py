"""Guards that are language models of others: Llama Guard 3, Aegis, Qwen3Guard, ShieldGemma, or a moderation endpoint.

You bring the model: a transformers folder on this machine (never fetched), or a server. Its answer is parsed strictly
(`llm_formats`): what is not exactly a documented answer, an answer that was cut off, a server that fails or takes too long, all block.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from worldfoundry.core.chat_server import ChatServer
from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import WorldFoundryError
from worldfoundry.guardrails.categories import CATEGORIES
from worldfoundry.guardrails.llm_formats import Answer, Unusable, parse
from worldfoundry.guardrails.normalize import not_plain

MODERATION: dict[str, str] = {
    "harassment": "harassment",
    "harassment/threatening": "threat",
    "hate": "hatred",
    "hate/threatening": "hatred",
    "illicit": "criminal_planning",
    "illicit/violent": "weapons",
    "self-harm": "suicide",
    "self-harm/intent": "suicide",
    "self-harm/instructions": "suicide",
    "sexual": "sexual",
    "sexual/minors": "csam",
    "violence": "violence",
    "violence/graphic": "violence",
}
"""Categories of OpenAI's moderation endpoint → ours; others keep their name."""


class LlmConfig(Config):
    """Options of the guard that asks a language model."""

    model: Literal["llama-guard-3", "aegis", "qwen3guard", "shieldgemma", "moderation"] = "qwen3guard"
    """Whose answers to expect. moderation: a server with OpenAI's /moderations."""
    folder: Path | None = None
    """A transformers folder of the model (for aegis that of LlamaGuard-7b)."""
    adapter: Path | None = None
    """A PEFT LoRA folder that is added to the model (for aegis NVIDIA's Aegis-AI-Content-Safety-LlamaGuard)."""
    url: str = ""
    """In place of a folder, a server such as http://127.0.0.1:8000/v1#NAME."""
    controversial: Literal["block", "allow"] = "block"
    """What to do with what Qwen3Guard calls controversial."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Probability of `Yes` from which ShieldGemma blocks."""
    max_chars: int = Field(default=8_000, ge=1)
    """Longer texts are refused unread."""
    max_new_tokens: int = Field(default=64, ge=1)
    """An answer that is not complete by then counts as none."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Of a server."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.folder is not None and self.url:
            raise ValueError("give the model's folder or the server's url, not both")
        if self.model == "moderation" and self.folder is not None:
            raise ValueError("moderation is a server: give its url")
        if self.model == "shieldgemma" and self.url:
            raise ValueError("shieldgemma is read by its probabilities: give its folder")
        return self


class LlmGuard:
    """`check(text) -> Verdict`; a `Guard` for text. The model is read when the first text that is not empty comes."""

    name = "llm"
    takes: Literal["text"] = "text"

    def __init__(self, config: LlmConfig) -> None:
        self.config = config
        self._model: Any = None

    def check(self, item: str) -> Verdict:
        """`unsafe` if the model says so, `error` if it cannot be asked or does not answer as documented."""
        if problem := not_plain(item, self.config.max_chars):
            return self._verdict("error", reason=problem, fix="Give a prompt in plain text.")
        if not item.strip():
            return self._verdict("safe", reason="nothing to judge in an empty text")
        if self.config.folder is None and not self.config.url:
            return self._verdict("error", reason=f"no place of {self.config.model} is configured", fix=_PLACE)
        try:
            answer, facts = self._ask(item)
        except Unusable as error:
            reason = f"{self.config.model} answered {str(error)[:60]!r}, which it is not documented to say"
            return self._verdict("error", reason=reason, fix="Check that folder or url and llm.model belong together.")
        except WorldFoundryError as error:
            return self._verdict("error", reason=error.message, fix=error.hint or _PLACE)
        return self._judge(answer, facts)

    def _ask(self, text: str) -> tuple[Answer, Mapping[str, Any]]:
        if self.config.url:
            return _ask_server(self.config, text)
        if self._model is None:
            from worldfoundry.guardrails.llm_folder import FolderModel

            self._model = FolderModel(self.config)
        return self._model.ask(text)

    def _judge(self, answer: Answer, facts: Mapping[str, Any]) -> Verdict:
        facts = {**facts, "judgement": answer.judgement, "codes": list(answer.codes)}
        allowed = answer.judgement == "controversial" and self.config.controversial == "allow"
        if answer.judgement == "safe" or allowed:
            return self._verdict("safe", reason=f"{self.config.model} says {answer.judgement}", **facts)
        named = next((name for name in CATEGORIES if name in answer.categories), "") or next(iter(answer.categories), "")
        said = f"{answer.judgement} ({', '.join(answer.codes)})" if answer.codes else answer.judgement
        return self._verdict("unsafe", category=named, reason=f"{self.config.model} says {said}", **facts)

    def _verdict(self, status: Any, *, category: str = "", reason: str, **evidence: Any) -> Verdict:
        facts = {"model": self.config.model, **evidence}
        return Verdict(status=status, guard=self.name, category=category, reason=reason, evidence=facts)


_PLACE = "Set llm.folder to a transformers folder of the model, or llm.url to a server."


def _ask_server(config: LlmConfig, text: str) -> tuple[Answer, Mapping[str, Any]]:
    """Raises DownloadError if the server fails, Unusable if it answers something else."""
    server = ChatServer(config.url, what="guard server", hint="Start it, or raise llm.timeout_s.", timeout_s=config.timeout_s)
    if config.model == "moderation":
        return _moderated(server.post("/moderations", {"model": server.model(), "input": text})), {"url": config.url}
    messages = [{"role": "user", "content": text}]
    said, _ = server.complete(messages, temperature=0, max_tokens=config.max_new_tokens)
    return parse(config.model, said), {"url": config.url}


def _moderated(said: Any) -> Answer:
    """Of `{"results": [{"flagged": bool, "categories": {name: bool}}]}`, all of it well formed."""
    results = said.get("results") if isinstance(said, dict) else None
    one = results[0] if isinstance(results, list) and len(results) == 1 else None
    if not isinstance(one, dict) or not isinstance(one.get("flagged"), bool) or not isinstance(one.get("categories"), dict):
        raise Unusable(str(said))
    flags: dict[str, Any] = one["categories"]
    if not flags:
        raise Unusable(str(said))
    if not all(isinstance(flag, bool) for flag in flags.values()) or (any(flags.values()) and not one["flagged"]):
        raise Unusable(str(said))
    codes = tuple(sorted(str(name) for name, flag in flags.items() if flag))
    categories = tuple(dict.fromkeys(MODERATION.get(code, code) for code in codes))
    return Answer(judgement="unsafe" if one["flagged"] else "safe", codes=codes, categories=categories)
