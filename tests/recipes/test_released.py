"""What a page shows of generated clips: as guards let it out."""

import numpy as np

from worldfoundry.core.contracts import Verdict
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.recipes.released import shown_together


class NoWhite:
    name, takes = "no-white", "video"

    def check(self, item):
        return Verdict(status="unsafe" if (item.frames == 255).all() else "safe", guard=self.name, reason="white")


class HidesCorner:
    name = "corner"

    def apply(self, item):
        frames = item.frames.copy()
        frames[:, 0, 0] = 7
        return frames, Verdict(status="safe", guard=self.name)


def test_a_row_with_a_stopped_clip_is_left_out_and_the_others_are_hidden_in():
    truth = np.full((4, 2, 4, 4, 3), 90, np.uint8)
    made = truth.copy()
    made[1] = 255
    guardrails = Guardrails(GuardPolicy(), (), [NoWhite()])
    rows, stacks = shown_together(guardrails, {"truth": truth, "made": made}, [0, 1, 3], 12.0)
    assert rows == [0, 3]
    assert {name: clips.shape for name, clips in stacks.items()} == {"truth": (2, 2, 4, 4, 3), "made": (2, 2, 4, 4, 3)}
    _, hidden = shown_together(Guardrails(GuardPolicy(), (), [NoWhite()], [HidesCorner()]), {"truth": truth}, [0], 12.0)
    assert (hidden["truth"][:, :, 0, 0] == 7).all()
    assert (truth == 90).all()
    none, empty = shown_together(Guardrails(GuardPolicy()), {"truth": truth}, [0, 1], 12.0)
    assert (none, empty["truth"].shape[0]) == ([], 0)
