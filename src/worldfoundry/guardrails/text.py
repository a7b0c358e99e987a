"""The text guard that needs no download: a list of words and phrases, matched on text that was read as a person reads it.

It reads English in Latin letters. Three decisions:
- An empty text is safe: a world may be generated without a prompt, and there is nothing in it to judge.
- Letters of other scripts cannot be judged, so the verdict is `skipped`, which blocks like everything but `safe`.
  `unread_scripts="allow"` makes it `safe` for those who guard otherwise; the verdict then says how many letters went unread.
- Other languages in Latin letters are not detected: the list does not know their words, and says nothing about them.

Disguises are undone first (`normalize`). Not caught: meaning that no single phrase carries. This guard is a floor, and the learned
one (`classifier`) belongs beside it; docs/results/guardrails_text.md says what each of them stops.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict
from worldfoundry.guardrails.lexicon import packaged_lexicon
from worldfoundry.guardrails.normalize import fold, not_plain, reading, tokens, unread
from worldfoundry.guardrails.wordlist import Entry, packaged_list


class BlocklistConfig(Config):
    """Options of the blocklist text guard."""

    unread_scripts: Literal["block", "allow"] = "block"
    """What to do with letters that are not Latin, which the list cannot read."""
    max_chars: int = Field(default=20_000, ge=1)
    """Longer texts are refused unread."""


class BlocklistGuard:
    """`check(text) -> Verdict`; a `Guard` for text."""

    name = "blocklist"
    takes: Literal["text"] = "text"

    def __init__(self, config: BlocklistConfig) -> None:
        self.config = config
        self.words = packaged_list()

    def check(self, item: str) -> Verdict:
        """`unsafe` if an entry matches, `skipped` if letters went unread, `error` if this is no readable text, else `safe`."""
        problem = not_plain(item, self.config.max_chars)
        if problem:
            return self._verdict("error", reason=problem, fix="Give a prompt in plain text.")
        words = tokens(fold(item))
        hits = self.words.matches(words)
        hits += self.words.matches(reading(item, packaged_lexicon()))
        if hits:
            return self._unsafe(hits)
        missed = unread(item)
        if missed and self.config.unread_scripts == "block":
            reason = f"{len(missed)} letters are in a script that the word list cannot read ({missed[:12]!r})"
            fix = "Write the prompt in English, or set blocklist.unread_scripts to allow."
            return self._verdict("skipped", reason=reason, fix=fix, unread_letters=len(missed))
        reason = "nothing to judge in an empty text" if not item.strip() else f"{len(words)} words, no entry matches"
        reason += f"; {len(missed)} letters went unread, as the policy allows" if missed else ""
        return self._verdict("safe", reason=reason, unread_letters=len(missed))

    def _unsafe(self, hits: list[tuple[Entry, str]]) -> Verdict:
        matches = {found: entry.category for entry, found in hits}
        longest = max(matches, key=len)
        return self._verdict("unsafe", category=matches[longest], reason=f"matches {longest!r}", matches=matches)

    def _verdict(self, status: Any, *, category: str = "", reason: str, **evidence: Any) -> Verdict:
        facts: Mapping[str, Any] = {"list": self.words.hash, **evidence}
        return Verdict(status=status, guard=self.name, category=category, reason=reason, evidence=facts)
