"""Other people's scores: a function named by its place, `package.module:function`."""

from collections.abc import Callable
from typing import Any

from worldfoundry.core.errors import UsageError
from worldfoundry.core.registry import resolve


def load_plugin(place: str) -> Callable[..., Any]:
    """The function at `package.module:function`. Raises UsageError if there is none, with what Python says."""
    if place.count(":") != 1 or not all(place.split(":")):
        raise UsageError(f"{place!r} names no function.", "Write it as package.module:function.")
    try:
        found = resolve(place)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"The plug-in {place!r} cannot be loaded: {error}.", "It must be importable from here.") from error
    if not callable(found):
        raise UsageError(f"The plug-in {place!r} is a {type(found).__name__}, not a function.")
    return found


def plugin_number(place: str, result: object) -> float:
    """What a scoring plug-in gave, as a float. Raises UsageError if it is no finite number."""
    try:
        value = float(result)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UsageError(f"The plug-in {place!r} gave {result!r}, not a number.") from error
    if value != value or abs(value) == float("inf"):
        raise UsageError(f"The plug-in {place!r} gave {value!r}.", "A score must be finite.")
    return value
