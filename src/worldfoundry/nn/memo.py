"""What need not be computed again while a network is asked again and again under the same conditions (one sample's steps).

A memo is a dict that the caller starts empty, hands to every call that differs in nothing but the noisy input and its noise
level, and throws away afterwards; each part of the network finds its own entry there. Entries are made where they are used,
inside the part's own forward, so weights that are moved or gathered only for that forward are at hand.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Memo = dict[Any, Any]
Value = TypeVar("Value")


def remembered(memo: Memo | None, key: Any, make: Callable[[], Value]) -> Value:
    """`make()`, or what it gave for this key before; without a memo always `make()`."""
    if memo is None:
        return make()
    if key not in memo:
        memo[key] = make()
    return memo[key]
