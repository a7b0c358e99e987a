"""What a model has to beat: predictions that know nothing of dynamics, and one that knows too much.

All take the true clips uint8 (N, T, H, W, 3), keep the prefix frames, and return clips of the same shape. The tokenizer's
ceiling (true clips encoded and decoded) and copy-last-frame through the tokenizer are made by whoever holds the tokenizer.
Axis legend: N clips, M training clips, T frames, P prefix frames, D values of a flattened prefix.
"""

from collections.abc import Iterable

import numpy as np

from worldfoundry.core.errors import DataError

COPY_LAST = "copy last frame"
BACKGROUND = "background control (oracle)"
NEAREST = "nearest training clip"


def copy_last_frame(reference: np.ndarray, prefix_frames: int) -> np.ndarray:
    """The last prefix frame, for ever. Near unbeatable on clips that stop moving."""
    return _with_future(reference, prefix_frames, reference[:, prefix_frames - 1 : prefix_frames])


def background_control(reference: np.ndarray, prefix_frames: int) -> np.ndarray:
    """The per-pixel median over time of the TRUE clip: an oracle control, since it has seen the future.

    What a model scores by erasing everything that moves; a model that does not beat it has not shown that it knows dynamics.
    """
    median = np.stack([np.median(clip, axis=0).round().astype(np.uint8) for clip in reference])
    return _with_future(reference, prefix_frames, median[:, None])


def nearest_training_clip(reference: np.ndarray, prefix_frames: int, training: Iterable[np.ndarray]) -> np.ndarray:
    """The future of the training clip whose prefix frames are nearest (mean squared error): what memory alone would give.

    training: stacks of clips uint8 (M, T, H, W, 3) with at least as many frames, one stack in memory at a time. Raises DataError
    on another size, fewer frames, or no clip.
    """
    wanted_ND = reference[:, :prefix_frames].reshape(len(reference), -1).astype(np.float32)
    best_N, future = np.full(len(reference), np.inf), np.empty_like(reference[:, prefix_frames:])
    for stack in training:
        if stack.ndim != 5 or stack.shape[2:] != reference.shape[2:] or stack.shape[1] < reference.shape[1]:
            raise DataError(
                f"The training clips have shape {stack.shape}, the reference {reference.shape}.",
                "They need the same size and at least as many frames.",
            )
        known_MD = stack[:, :prefix_frames].reshape(len(stack), -1).astype(np.float32)
        # |a - b|² without |a|², which is the same for every b.
        distance_NM = np.square(known_MD).sum(1) - 2 * wanted_ND @ known_MD.T
        closer = distance_NM.min(1) < best_N
        future[closer] = stack[distance_NM.argmin(1)[closer], prefix_frames : reference.shape[1]]
        best_N = np.minimum(best_N, distance_NM.min(1))
    if np.isinf(best_N).any():
        raise DataError("There is no training clip to compare with.")
    return _with_future(reference, prefix_frames, future)


def _with_future(reference: np.ndarray, prefix_frames: int, future: np.ndarray) -> np.ndarray:
    """The true prefix followed by `future` (repeated over time where it has one frame)."""
    clips = reference.copy()
    clips[:, prefix_frames:] = future
    return clips
