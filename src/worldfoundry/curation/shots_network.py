"""Where the fast detector is in doubt, TransNet V2 decides: it sees 32 frames before and after each of them.

Axis legend: T frames, H = 27, W = 48, C = 3 (RGB).

The network costs far more than decoding, so it looks at windows around doubtful transitions alone, the most doubtful
first, and at no more than a share of the frames. Asked to look everywhere, it also adds what the fast detector overlooked.
It is not asked about wipes, which it hardly knows.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from worldfoundry.core.errors import DownloadError
from worldfoundry.core.model_store import get_model
from worldfoundry.core.progress import say
from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.shots_pictures import runs
from worldfoundry.curation.shots_types import Transition

MODEL = "transnetv2"
WINDOW, CONTEXT = 64, 14  # frames of a window, and those at its ends whose answers are not used
WHOLE_WINDOW, WHOLE_CONTEXT = 100, 25  # the same where every frame is looked at, as published
NEAR = 2  # frames beside a transition at which the network's answer counts for it

# uint8 pictures (T, 27, 48, 3) in, the probability of a transition after each frame out (float32, T).
Network = Callable[[np.ndarray], np.ndarray]


def fetch_network(config: ShotConfig) -> ShotConfig:
    """The config as it can be carried out: where the weights cannot be had, the network stays off, and a line says so.

    Raises DownloadError if it is to look everywhere, CheckpointError if what came is not that network.
    """
    if config.network == "off":
        return config
    try:
        get_model(MODEL)
    except DownloadError as error:
        if config.network == "everywhere":
            raise
        say(f"shots: the fast detector decides alone, without TransNet V2. {error}")
        return config.replace(network="off")
    return config


def doubt_network(config: ShotConfig) -> Network | None:
    """TransNet V2, loaded (and fetched, on another machine of a cluster) when it is first asked; None if it is off."""
    return None if config.network == "off" else lambda rgb_THWC: _transnet_v2()(rgb_THWC)


@cache
def _transnet_v2() -> Network:
    """Once per process. Raises DownloadError, CheckpointError."""
    from worldfoundry.core.devices import pick_device
    from worldfoundry.perception.transnet_v2 import load_transnet_v2

    return transition_probability(load_transnet_v2(get_model(MODEL)).to(pick_device()))


def transition_probability(net: Any) -> Network:
    """A loaded TransNet V2 as a function of NumPy pictures."""
    import torch

    device = next(net.parameters()).device

    def predict(rgb_THWC: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            cut_BT, _ = net(torch.from_numpy(np.ascontiguousarray(rgb_THWC))[None].to(device))
        return cut_BT[0].sigmoid().float().cpu().numpy()

    return predict


def judge(proposed: list[Transition], rgb_THWC: np.ndarray, network: Network, config: ShotConfig) -> list[Transition]:
    """The doubtful among `proposed` with the network's probability as their confidence; the others as they are.

    A network's answer of `network_threshold` becomes a confidence of 0.5. Where it looks everywhere, what it alone sees is
    added. Raises ValueError if pictures are not 27 x 48.
    """
    if rgb_THWC.shape[1:] != (27, 48, 3):
        raise ValueError(f"a network needs pictures of shape (27, 48, 3), got {rgb_THWC.shape[1:]!r}")
    answers = _Answers(rgb_THWC, network, config.network_share)
    if config.network == "everywhere":
        answers.look_everywhere()
    decided: dict[int, Transition] = {}
    doubtful = [i for i, transition in enumerate(proposed) if transition.doubt >= config.doubt and transition.kind != "wipe"]
    for i in sorted(doubtful, key=lambda i: -proposed[i].doubt):
        answer = answers.near(proposed[i])
        if answer is not None:
            confidence = _confidence(answer, config.network_threshold)
            decided[i] = replace(proposed[i], confidence=confidence, decided_by="network")
    judged = [decided.get(i, transition) for i, transition in enumerate(proposed)]
    return judged if config.network != "everywhere" else _with_overlooked(judged, answers, config.network_threshold)


class _Answers:
    """The network's answers by frame, asked for window by window.

    They are rounded to two digits, so that neither the number of threads nor the device shows in what is stored.
    """

    def __init__(self, rgb_THWC: np.ndarray, network: Network, share: float) -> None:
        self.rgb_THWC, self.network = rgb_THWC, network
        self.left = int(share * len(rgb_THWC) / WINDOW + 1)
        self.by_frame: dict[int, float] = {}

    def near(self, transition: Transition) -> float | None:
        """The largest answer within a transition and beside it; None if no more windows may be looked at."""
        frames = range(max(0, transition.start - 1 - NEAR), min(len(self.rgb_THWC), transition.end + NEAR))
        if not all(frame in self.by_frame for frame in frames):
            if self.left == 0:
                return None
            self.left -= 1
            self._look((transition.start + transition.end) // 2 - WINDOW // 2, WINDOW, CONTEXT)
        return max((self.by_frame[frame] for frame in frames if frame in self.by_frame), default=0.0)

    def look_everywhere(self) -> None:
        for first in range(0, len(self.rgb_THWC), WHOLE_WINDOW - 2 * WHOLE_CONTEXT):
            self._look(first - WHOLE_CONTEXT, WHOLE_WINDOW, WHOLE_CONTEXT)

    def _look(self, first: int, window: int, context: int) -> None:
        shown = np.clip(np.arange(first, first + window), 0, len(self.rgb_THWC) - 1)
        answers = self.network(self.rgb_THWC[shown])
        self.by_frame |= {first + k: round(float(answers[k]), 2) for k in range(context, window - context)}


def _with_overlooked(judged: list[Transition], answers: _Answers, threshold: float) -> list[Transition]:
    """With the runs of frames above the threshold that touch nothing that was found: a cut, or a dissolve if they last."""
    found = [transition for transition in judged if transition.confidence >= 0.5]
    last = len(answers.rgb_THWC) - 1  # after the last frame there is nothing
    above_T = np.array([answers.by_frame[t] for t in range(last)]) >= threshold
    for first, stop in runs(above_T):
        if any(first + 1 <= other.end + NEAR and other.start - NEAR <= stop for other in found):
            continue
        kind, start, end = "dissolve", first + 1, stop
        if stop - first <= 2 * NEAR:
            kind, start, end = "cut", (first + 1 + stop) // 2, (first + 1 + stop) // 2
        confidence = _confidence(max(answers.by_frame[t] for t in range(first, stop)), threshold)
        found.append(Transition(kind=kind, start=start, end=end, confidence=confidence, decided_by="network"))
    return sorted(found, key=lambda transition: transition.start)


def _confidence(answer: float, threshold: float) -> float:
    """0 at 0, 0.5 at the threshold, 1 at 1, straight between."""
    part = answer / threshold if answer < threshold else 1 + (answer - threshold) / (1 - threshold)
    return round(part / 2, 4)
