"""Words for captions that are made from what is in a scene and what happened in it."""

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def with_article(noun: str) -> str:
    """`a red ball`, `an orange box`."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def count(number: int, noun: str) -> str:
    """`one car`, `three cars`, `two bushes`, `two beds with a red cover`."""
    word = NUMBERS[number] if number < len(NUMBERS) else str(number)
    head, *rest = noun.split(" with ", 1)
    ending = "" if number == 1 else "es" if head.endswith(("sh", "ch", "x", "s")) else "s"
    return " with ".join([f"{word} {head}{ending}", *rest])


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def sentence(text: str) -> str:
    """A capital at the start, a full stop at the end."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def story(*sentences: str) -> str:
    """Sentences in one paragraph; empty ones are left out."""
    return " ".join(sentence(text) for text in sentences if text)
