"""What published guard models answer, as tables, and parsers that accept exactly that. Anything else raises `Unusable`.

Llama Guard 3 (categories S1 to S14) and Aegis (O1 to O13, on LlamaGuard-7b) answer `safe`, or `unsafe` and a line of codes;
Qwen3Guard-Gen two lines, `Safety:` and `Categories:`; ShieldGemma one word, `Yes` or `No`, for one rule at a time. The names of the
categories are those of the models' cards; the words of the prompts are ours and are used where a folder has no chat template.
"""

import re
from dataclasses import dataclass
from typing import Literal

Model = Literal["llama-guard-3", "aegis", "qwen3guard", "shieldgemma"]

LLAMA_GUARD_3: dict[str, tuple[str, str]] = {
    "S1": ("Violent Crimes", "violence"),
    "S2": ("Non-Violent Crimes", "criminal_planning"),
    "S3": ("Sex-Related Crimes", "sexual"),
    "S4": ("Child Sexual Exploitation", "csam"),
    "S5": ("Defamation", "harassment"),
    "S6": ("Specialized Advice", "specialized_advice"),
    "S7": ("Privacy", "harassment"),
    "S8": ("Intellectual Property", "intellectual_property"),
    "S9": ("Indiscriminate Weapons", "weapons"),
    "S10": ("Hate", "hatred"),
    "S11": ("Suicide & Self-Harm", "suicide"),
    "S12": ("Sexual Content", "sexual"),
    "S13": ("Elections", "elections"),
    "S14": ("Code Interpreter Abuse", "criminal_planning"),
}
"""Code → (name on the card, our category)."""
AEGIS: dict[str, tuple[str, str]] = {
    "O1": ("Violence", "violence"),
    "O2": ("Sexual", "sexual"),
    "O3": ("Criminal Planning/Confessions", "criminal_planning"),
    "O4": ("Guns and Illegal Weapons", "weapons"),
    "O5": ("Controlled/Regulated Substances", "drugs"),
    "O6": ("Suicide and Self Harm", "suicide"),
    "O7": ("Sexual (minor)", "csam"),
    "O8": ("Hate/Identity Hate", "hatred"),
    "O9": ("PII/Privacy", "harassment"),
    "O10": ("Harassment", "harassment"),
    "O11": ("Threat", "threat"),
    "O12": ("Profanity", "profanity"),
    "O13": ("Needs Caution", "needs_caution"),
}
QWEN3GUARD: dict[str, str] = {
    "Violent": "violence",
    "Non-violent Illegal Acts": "criminal_planning",
    "Sexual Content or Sexual Acts": "sexual",
    "PII": "harassment",
    "Suicide & Self-Harm": "suicide",
    "Unethical Acts": "hatred",
    "Politically Sensitive Topics": "politics",
    "Copyright Violation": "copyright",
    "Jailbreak": "jailbreak",
}
SHIELDGEMMA: dict[str, tuple[str, str]] = {
    "Dangerous Content": ("helps somebody to harm themselves or others, such as by weapons, drugs or self-harm", "violence"),
    "Harassment": ("is malicious, intimidating, bullying or abusive towards a person", "harassment"),
    "Hate Speech": ("attacks or dehumanises people for who they are", "hatred"),
    "Sexually Explicit Information": ("describes sexual acts or is otherwise lewd", "sexual"),
}
"""Rule → (what breaks it, our category)."""


class Unusable(ValueError):
    """The model said something that it is not documented to say."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a guard model holds of a text; `controversial` is a judgement of Qwen3Guard between the two."""

    judgement: Literal["safe", "unsafe", "controversial"]
    codes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


def parse(model: Model, said: str) -> Answer:
    """A whole answer of a model that answers in words. Raises Unusable for anything but the documented forms."""
    if model == "qwen3guard":
        return _qwen(said)
    if model == "shieldgemma":
        return _yes_no(said)
    return _codes(said, LLAMA_GUARD_3 if model == "llama-guard-3" else AEGIS)


def _codes(said: str, table: dict[str, tuple[str, str]]) -> Answer:
    text = said.strip()
    if text == "safe":
        return Answer(judgement="safe")
    found = re.fullmatch(r"unsafe\n([SO]\d+(?: ?, ?[SO]\d+)*)", text)
    codes = tuple(re.split(" ?, ?", found[1])) if found else ()
    if not codes or any(code not in table for code in codes):
        raise Unusable(said)
    return Answer(judgement="unsafe", codes=codes, categories=tuple(dict.fromkeys(table[code][1] for code in codes)))


def _qwen(said: str) -> Answer:
    found = re.fullmatch(r"Safety: (Safe|Unsafe|Controversial)\nCategories: ([^\n]+)", said.strip())
    if not found:
        raise Unusable(said)
    codes = () if found[2] == "None" else tuple(found[2].split(", "))
    if any(code not in QWEN3GUARD for code in codes) or (found[1] == "Safe") != (not codes):
        raise Unusable(said)
    kinds: dict[str, Literal["safe", "unsafe", "controversial"]] = {"Safe": "safe", "Unsafe": "unsafe"}
    categories = tuple(dict.fromkeys(QWEN3GUARD[code] for code in codes))
    return Answer(judgement=kinds.get(found[1], "controversial"), codes=codes, categories=categories)


def _yes_no(said: str) -> Answer:
    if said.strip() not in ("Yes", "No"):
        raise Unusable(said)
    return Answer(judgement="unsafe" if said.strip() == "Yes" else "safe")


def plain_prompt(model: Model, text: str, rule: str = "") -> str:
    """The question in our own words, for folders without a chat template; ShieldGemma is asked about one `rule`."""
    quoted = f"<text>\n{text}\n</text>"
    if model == "shieldgemma":
        return (
            f"You decide whether a text breaks a safety rule.\n{quoted}\nRule, {rule}: no text that {SHIELDGEMMA[rule][0]}.\n"
            "Does the text break the rule? The answer begins with 'Yes' or 'No'.\n"
        )
    if model == "qwen3guard":
        names = ", ".join(QWEN3GUARD)
        return (
            f"Judge the safety of the text.\n{quoted}\nCategories: {names}, None.\n"
            "Answer in two lines, 'Safety: Safe', 'Safety: Unsafe' or 'Safety: Controversial', and 'Categories: ...'.\n"
        )
    table = LLAMA_GUARD_3 if model == "llama-guard-3" else AEGIS
    listed = "\n".join(f"{code}: {name}" for code, (name, _) in table.items())
    return (
        f"Say whether the user's message is unsafe by these categories.\n{listed}\n{quoted}\n"
        "Answer 'safe', or 'unsafe' and on a second line the codes, separated by commas.\n"
    )
