"""What a clip looks like over time, small enough to compare with all others: a row of tiny pictures and their hashes.

Axis legend: T pictures in time, H = 18, W = 32, C = 3 (RGB). A hash is 64 bits: whether each of the 64 lowest cosine
frequencies of a picture (without its mean) lies above their median (the perceptual hash of Zauner 2010). A mirrored picture has
the same frequencies, every second column with the other sign, so its hash costs nothing more.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from worldfoundry.curation.shots import to_luma

RATE_HZ = 4.0  # pictures per second that are kept
SIDE = 8  # frequencies per direction
PLAIN = 3.0  # luma levels of contrast below which a picture has no hash worth comparing


@dataclass(frozen=True, kw_only=True)
class Signature:
    """`luma_THW` uint8 pictures at `RATE_HZ`, their hashes and those of their mirror images (uint64), and which are plain."""

    luma_THW: np.ndarray
    hash_T: np.ndarray
    mirrored_T: np.ndarray
    plain_T: np.ndarray

    def __len__(self) -> int:
        return len(self.luma_THW)


def sample_times(duration_s: float) -> np.ndarray:
    """The times of a signature's pictures: the middles of quarter seconds; at least one."""
    count = max(1, round(duration_s * RATE_HZ))
    return (np.arange(count) + 0.5) * duration_s / count


def signature(rgb_THWC: np.ndarray) -> Signature:
    """The signature of a clip from tiny pictures (uint8 T, 18, 32, 3), taken at `sample_times`."""
    return signature_of_luma(np.clip(to_luma(rgb_THWC).round(), 0, 255).astype(np.uint8))


def signature_of_luma(luma_THW: np.ndarray) -> Signature:
    """The same from what was stored of it."""
    waves = frequencies(luma_THW)
    flipped = waves.copy()
    flipped[:, :, 1::2] *= -1
    return Signature(
        luma_THW=luma_THW,
        hash_T=hash_of(waves),
        mirrored_T=hash_of(flipped),
        plain_T=luma_THW.std(axis=(1, 2)) < PLAIN,
    )


def frequencies(luma_THW: np.ndarray) -> np.ndarray:
    """The lowest 8 x 8 coefficients of the cosine transform (type II) of each picture; the mean (0, 0) is set to 0."""
    H, W = luma_THW.shape[1:]
    waves = _cosines(H) @ luma_THW.astype(np.float32) @ _cosines(W).T
    waves[:, 0, 0] = 0
    return waves


def hash_of(waves_TFF: np.ndarray) -> np.ndarray:
    """uint64 of each picture's frequencies."""
    flat = waves_TFF.reshape(len(waves_TFF), -1)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def distances(a_T: np.ndarray, b_T: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ, for all pairs: (len a, len b), 0 to 64. Unrelated pictures differ in about 32."""
    different = a_T[:, None] ^ b_T[None]
    return np.unpackbits(different[..., None].view(np.uint8), axis=-1).sum(-1)


@cache
def _cosines(size: int) -> np.ndarray:
    k, x = np.arange(SIDE)[:, None], np.arange(size)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * size)).astype(np.float32)
