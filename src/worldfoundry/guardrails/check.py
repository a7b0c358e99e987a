"""The contract checker for guards: run it on your own guard before you register it."""

import json
from typing import Any, get_args

import numpy as np

from worldfoundry.core.contracts import Guard, Verdict, VerdictStatus, VideoItem
from worldfoundry.core.errors import WorldFoundryError
from worldfoundry.guardrails.runner import run_guard

HARMLESS: dict[str, list[Any]] = {
    "text": ["the robot arm lifts the red cube"],
    "video": [
        VideoItem(frames=np.full((1, 32, 48, 3), 128, np.uint8), fps=0.0),
        VideoItem(frames=np.full((9, 33, 47, 3), 90, np.uint8), fps=24.0),
    ],
}
UNREADABLE: dict[str, list[Any]] = {
    "text": [None, 3.5, b"bytes", ["a", "list"]],
    "video": [
        None,
        "text",
        VideoItem(frames=np.zeros((0, 32, 32, 3), np.uint8), fps=24.0),
        VideoItem(frames=np.full((4, 32, 32, 3), np.nan), fps=24.0),
        VideoItem(frames=np.zeros((4, 32, 32), np.uint8), fps=24.0),
    ],
}


class GuardContractError(WorldFoundryError):
    """A guard breaks the contract that the runner relies on."""


def check_guard(guard: Guard) -> None:
    """Raises GuardContractError that says what is wrong: name, answers, determinism, changed input, unreadable input passed.

    Whether the guard judges well is not checked here.
    """
    name, takes = getattr(guard, "name", None), getattr(guard, "takes", None)
    if not isinstance(name, str) or not name:
        raise GuardContractError(f"A guard needs a name, got {name!r}.")
    if takes not in HARMLESS:
        raise GuardContractError(f"Guard {name!r}: takes must be 'text' or 'video', got {takes!r}.")
    for item in HARMLESS[takes]:
        _check_harmless(guard, item)
    for item in UNREADABLE[takes]:
        _check_unreadable(guard, item)


def _check_harmless(guard: Guard, item: Any) -> None:
    before = item.frames.tobytes() if isinstance(item, VideoItem) else item
    first = _answer(guard, item)
    if (item.frames.tobytes() if isinstance(item, VideoItem) else item) != before:
        raise GuardContractError(f"Guard {guard.name!r} changes what it looks at.")
    if _answer(guard, item) != first:
        raise GuardContractError(f"Guard {guard.name!r} says two different things about one item.")
    if first.status != "safe" and not first.reason:
        raise GuardContractError(f"Guard {guard.name!r} objects without a reason.")


def _check_unreadable(guard: Guard, item: Any) -> None:
    """Raising is allowed (the runner makes an `error` of it); calling it safe is not."""
    if run_guard(guard, item, timeout_s=60).status == "safe":
        raise GuardContractError(f"Guard {guard.name!r} calls {type(item).__name__} safe, which it cannot read.")


def _answer(guard: Guard, item: Any) -> Verdict:
    verdict = guard.check(item)
    if type(verdict) is not Verdict:
        raise GuardContractError(f"Guard {guard.name!r} answers with {type(verdict).__name__} instead of a Verdict.")
    if verdict.status not in get_args(VerdictStatus):
        raise GuardContractError(f"Guard {guard.name!r} answers with the unknown status {verdict.status!r}.")
    if verdict.guard != guard.name:
        raise GuardContractError(f"Guard {guard.name!r} answers in the name of {verdict.guard!r}.")
    try:
        json.dumps(dict(verdict.evidence))
    except (TypeError, ValueError) as error:
        raise GuardContractError(f"Guard {guard.name!r}: its evidence is not plain JSON ({error}).") from error
    return verdict
