"""How a detailed prompt looks: what a language model is told, and what is kept of its answer.

World models are trained on long captions (arXiv 2501.03575, on annotation), so a short prompt is far from what they know. The target is
the manner of our simulators' captions and of the published ones: one paragraph of plain present tense that says what happens,
where, what is behind it, how the light falls, how things move, and what the camera does.
"""

import re

MAX_WORDS = 250
"""Longest answer that is kept; a prompt longer than this is detailed already (the published upsampler's limit)."""
MAX_CHARACTERS = 2000
"""The same limit for writing without spaces."""

SYSTEM = (
    "You describe videos. Given a short caption, write one long caption in plain present tense, as a single paragraph. Keep "
    "what the short caption says, then say where it happens, what is in the background, how the light falls, how things move, "
    "and what the camera does. Describe only what is visible. Write nothing but the caption."
)
STEMS = ("The scene is set", "In the background, there", "The light is", "The motion is", "The camera")
"""How the sentences after the first one begin in the examples; small models need them to stay with the matter."""
EXAMPLES = (
    (
        "driving on a country road at dusk",
        "Driving on a country road at dusk. The scene is set on dark asphalt with a white line in the middle and low hedges on both "
        "sides. In the background, there are open fields and a row of trees under a dark blue sky. The light is dim, with an orange "
        "glow near the horizon. The motion is smooth and straight at a constant speed. The camera is mounted behind the windscreen "
        "and looks ahead.",
    ),
    (
        "a ball rolls down a ramp",
        "A ball rolls down a ramp. The scene is set on a dark wooden table, where a plain board leans against two red bricks. In the "
        "background, there is a white wall, slightly out of focus. The light is soft and falls from the left, so that the ball has a "
        "short shadow. The motion is slow at first and becomes faster towards the end of the board. The camera does not move "
        "and looks down a little.",
    ),
    (
        "a forklift drives through a warehouse",
        "A forklift drives through a warehouse. The scene is set in an aisle between tall blue shelves, on a smooth grey concrete "
        "floor. In the background, there are stacked wooden pallets and cardboard boxes. The light is even and comes from rows of "
        "white lamps under the roof. The motion is steady and even. The camera stands still and looks at the scene from "
        "the side.",
    ),
)  # fmt: skip

_THOUGHT = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_BULLET = re.compile(r"^\s*(#+|[-*•]|\d+[.)])\s+", re.MULTILINE)
_TALK = re.compile(r"^(sure|certainly|of course|okay|ok|here(?:'s|’s| is| are))\b[^.:!\n]*[.:!]\s*", re.IGNORECASE)
_LABEL = re.compile(r"^((long|detailed|upsampled|short)\s+)?(caption|prompt|description|answer|output)\s*:\s*", re.IGNORECASE)
_REFUSAL = re.compile(
    r"^(i'm|i’m|i am) (sorry|unable|not able)|\bi (can't|can’t|cannot|won't) \w+|\bas an ai\b|^sorry\b|\bi apologi[sz]e\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"[^.!?]*[.!?]+[\"'”’)]*")


def talk(prompt: str) -> list[dict[str, str]]:
    """The talk that asks for a detailed prompt: instructions, examples, the prompt."""
    messages = [{"role": "system", "content": SYSTEM}]
    for short, long in EXAMPLES:
        messages += [{"role": "user", "content": short}, {"role": "assistant", "content": long}]
    return [*messages, {"role": "user", "content": prompt}]


def as_sentence(prompt: str) -> str:
    """The prompt on one line, with a capital and a full stop."""
    text = " ".join(prompt.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "。")) else ".")


def is_detailed(prompt: str) -> bool:
    """Whether a prompt is as long as an answer may be."""
    return len(prompt.split()) > MAX_WORDS or len(prompt) > MAX_CHARACTERS


def cleaned(answer: str) -> str:
    """One paragraph of whole sentences, without thoughts, greetings, labels, markup and quotes around it; at most MAX_WORDS."""
    text = _BULLET.sub("", _THOUGHT.sub("", answer)).replace("**", "").replace("__", "")
    text = " ".join(text.split()).strip("\"'“”‘’` ")
    for pattern in (_TALK, _LABEL):
        text = pattern.sub("", text).strip("\"'“”‘’` ")
    kept: list[str] = []
    for sentence in (found.strip() for found in _SENTENCES.findall(text)):
        if sum(len(one.split()) for one in (*kept, sentence)) > MAX_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept)


def fault(text: str, prompt: str) -> str:
    """Why a cleaned answer cannot stand for the prompt; empty where it can."""
    if _REFUSAL.search(text):
        return "it is a refusal"
    if len(text.split()) < len(prompt.split()) + 5:
        return "it says no more than the prompt"
    sentences = [sentence.strip().lower() for sentence in _SENTENCES.findall(text)]
    if _share_a_run(text, SYSTEM, 7) or any(is_copied(sentence) for sentence in sentences):
        return "it repeats its instructions"
    if len(set(sentences)) < 0.7 * len(sentences):
        return "it repeats itself"
    wanted = {word[:4] for word in _words(prompt) if len(word) > 3}
    if wanted and len(wanted & {word[:4] for word in _words(text)}) < 0.5 * len(wanted):
        return "it is about something else"
    return ""


def is_copied(sentence: str) -> bool:
    """Whether a sentence is one of the examples', all but a few words."""
    return any(_share_a_run(sentence, long, 12) for _, long in EXAMPLES)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _share_a_run(text: str, source: str, length: int) -> bool:
    """Whether `length` words in a row of `text` are in `source` too."""
    words, inside = _words(text), f" {' '.join(_words(source))} "
    return any(f" {' '.join(words[i : i + length])} " in inside for i in range(len(words) - length + 1))
