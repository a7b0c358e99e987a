"""What a shot detector says: transitions, how sure it is, and the spans between them."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cut", "fade", "dissolve", "wipe"]
Judge = Literal["fast", "network"]


@dataclass(frozen=True, kw_only=True)
class Transition:
    """Frames [start, end) belong to neither shot; `end` is the first frame of the new one. A cut has start == end.

    `confidence` is the probability that `decided_by` gives it: at least 0.5 of what the fast detector found by itself.
    """

    kind: Kind
    start: int
    end: int
    confidence: float
    decided_by: Judge = "fast"

    @property
    def doubt(self) -> float:
        """1 where it is as likely as not, 0 where the detector is sure of it or of its absence."""
        return 2 * min(self.confidence, 1 - self.confidence)


def probability(strength: float) -> float:
    """Of evidence measured in its threshold: 0.5 at the threshold, towards 1 above it, towards 0 below."""
    return round(float(1 - 0.5 / strength if strength > 1 else 0.5 * max(strength, 0.0)), 4)


def spans_between(transitions: list[Transition], num_frames: int) -> list[tuple[int, int]]:
    """The shots: half-open frame spans left between transitions, empty ones dropped."""
    edges = [0, *(edge for transition in transitions for edge in (transition.start, transition.end)), num_frames]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
