"""The contract checker accepts the guards that ship and rejects every kind of broken one."""

import numpy as np
import pytest

from worldfoundry.core.contracts import Verdict
from worldfoundry.guardrails.check import GuardContractError, check_guard


class Good:
    name, takes = "good", "video"

    def check(self, item):
        if not isinstance(getattr(item, "frames", None), np.ndarray) or item.frames.dtype != np.uint8 or item.frames.ndim != 4:
            raise TypeError("no frames")
        status = "safe" if item.frames.size else "error"
        return Verdict(status=status, guard=self.name, reason="looked")


def test_a_good_guard_passes():
    check_guard(Good())


def broken(**changes):
    return type("Broken", (Good,), changes)()


def say(status="safe", guard="good", **more):
    return lambda self, item: Verdict(status=status, guard=guard, **more)


def scribble(self, item):
    item.frames[:] = 1
    return Good.check(self, item)


def dice(self, item):
    self.count = getattr(self, "count", 0) + 1
    return Verdict(status="safe" if self.count % 2 else "unsafe", guard="good", reason="odd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "needs a name"),
        ({"takes": "sound"}, "must be 'text' or 'video'"),
        ({"check": lambda self, item: None}, "NoneType instead of a Verdict"),
        ({"check": lambda self, item: True}, "bool instead of a Verdict"),
        ({"check": say("fine")}, "unknown status 'fine'"),
        ({"check": say(guard="else")}, "in the name of 'else'"),
        ({"check": say(evidence={"frames": np.zeros(3)})}, "not plain JSON"),
        ({"check": say("unsafe")}, "without a reason"),
        ({"check": scribble}, "changes what it looks at"),
        ({"check": dice}, "two different things"),
        ({"check": say()}, "safe, which it cannot read"),
    ],
)
def test_broken_guards_are_named(changes, words):
    with pytest.raises(GuardContractError, match=words):
        check_guard(broken(**changes))
