"""Where the fast detector is in doubt, TransNet V2 decides: it sees 32 frames before and after each of them.

Axis legend: T frames, H = 27, W = 48, C = 3 (RGB).

The network costs far more than decoding, so it looks at windows around doubtful transitions alone, the most doubtful
first, and at no more than a share of the frames. It is not asked about wipes, which it does not know (measured: answers
of 0.05 to 0.16 for true ones).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.shots_types import Transition

MODEL = "transnetv2"
WINDOW, CONTEXT = 64, 14  # frames of a window, and those at its ends whose answers are not used
NEAR = 2  # frames beside a transition at which the network's answer counts for it

# uint8 pictures (T, 27, 48, 3) in, the probability of a transition after each frame out (float32, T).
Network = Callable[[np.ndarray], np.ndarray]


def doubt_network(config: ShotConfig) -> Network | None:
    """TransNet V2 from the store of fetched models; None if it is not there, or not wanted. Never goes online."""
    if config.network_share == 0 or not is_fetched(MODEL):
        return None
    from worldfoundry.perception.transnet_v2 import load_transnet_v2

    return transition_probability(load_transnet_v2(model_folder(MODEL)))


def transition_probability(net: Any) -> Network:
    """A loaded TransNet V2 as a function of NumPy pictures."""
    import torch

    def predict(rgb_THWC: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            cut_BT, _ = net(torch.from_numpy(np.ascontiguousarray(rgb_THWC))[None])
        return cut_BT[0].sigmoid().float().numpy()

    return predict


def judge(proposed: list[Transition], rgb_THWC: np.ndarray, network: Network, config: ShotConfig) -> list[Transition]:
    """The doubtful among `proposed` with the network's probability as their confidence; the others as they are.

    A network's answer of `network_threshold` becomes a confidence of 0.5. Raises ValueError if pictures are not 27 x 48.
    """
    if rgb_THWC.shape[1:] != (27, 48, 3):
        raise ValueError(f"a network needs pictures of shape (27, 48, 3), got {rgb_THWC.shape[1:]!r}")
    left = int(config.network_share * len(rgb_THWC) / WINDOW + 1)
    seen: dict[int, float] = {}  # the network's answers by frame
    decided: dict[int, Transition] = {}
    doubtful = [i for i, transition in enumerate(proposed) if transition.doubt >= config.doubt and transition.kind != "wipe"]
    for i in sorted(doubtful, key=lambda i: -proposed[i].doubt):
        transition = proposed[i]
        frames = range(max(0, transition.start - 1 - NEAR), min(len(rgb_THWC), transition.end + NEAR))
        if not all(frame in seen for frame in frames):
            if left == 0:
                continue
            left -= 1
            first = (transition.start + transition.end) // 2 - WINDOW // 2
            answers = network(rgb_THWC[np.clip(np.arange(first, first + WINDOW), 0, len(rgb_THWC) - 1)])
            seen |= {first + k: float(answers[k]) for k in range(CONTEXT, WINDOW - CONTEXT)}
        answer = max((seen[frame] for frame in frames if frame in seen), default=0.0)
        decided[i] = replace(transition, confidence=_confidence(answer, config.network_threshold), decided_by=MODEL)
    return [decided.get(i, transition) for i, transition in enumerate(proposed)]


def _confidence(answer: float, threshold: float) -> float:
    """0 at 0, 0.5 at the threshold, 1 at 1, straight between."""
    part = answer / threshold if answer < threshold else 1 + (answer - threshold) / (1 - threshold)
    return round(part / 2, 4)
