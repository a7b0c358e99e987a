"""Generated clips for a page: as they may be shown, and none that a guard stops.

Axis legend: N clips, T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from worldfoundry.core.errors import GuardError
from worldfoundry.guardrails.runner import Guardrails


def shown(guardrails: Guardrails, clips_NTHWC: np.ndarray, fps: float) -> list[np.ndarray | None]:
    """Clips as they may be shown; None for those that a guard stops."""
    out: list[np.ndarray | None] = []
    for clip in clips_NTHWC:
        try:
            out.append(guardrails.release(clip, fps)[0])
        except GuardError:
            out.append(None)
    return out


def shown_together(
    guardrails: Guardrails, stacks: Mapping[str, np.ndarray], rows: Sequence[int], fps: float
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Of `rows` those that may be shown in every stack, and the stacks of them alone, as they may be shown."""
    looks = {name: shown(guardrails, clips[list(rows)], fps) for name, clips in stacks.items()}
    kept = [i for i in range(len(rows)) if all(clips[i] is not None for clips in looks.values())]
    empty = next(iter(stacks.values()))[:0]
    return [rows[i] for i in kept], {
        name: np.stack([clip for i in kept if (clip := clips[i]) is not None]) if kept else empty
        for name, clips in looks.items()
    }
