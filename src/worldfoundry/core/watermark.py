"""An invisible mark in the pixels of a video: 32 bits and their checksum, spread over every frame, found again after re-encoding.

Spread spectrum in luma (Cox et al. 1997, "Secure spread spectrum watermarking for multimedia"). A square tile of small blocks, each
raised or lowered a little, is laid over every frame, and its strength swings with time as a cosine. A part of the blocks is a fixed
pattern by which the tile is found again wherever a crop put it; every payload bit is repeated in several blocks of every tile of
every frame. Reading takes away what is smooth in space and what stands still in time (only things that flicker at the mark's own
rate are left to disturb it), adds up all tiles of all frames, looks for the pattern at every shift, and lets a bit's blocks vote.

Lost with the mark's rate in time: a video with other frames per second (dropped or doubled frames) is not read.
Axis legend: T frames, H height, W width, S side of a tile, B bits.
"""

import zlib
from dataclasses import dataclass
from itertools import product

import numpy as np

TILE, BLOCK, PERIOD = 64, 4, 8  # pixels, pixels, frames
SIDE = TILE // BLOCK
ID_BITS, CHECK_BITS = 32, 16
BITS = ID_BITS + CHECK_BITS
SYNC_BLOCKS = SIDE * SIDE // 4
STRENGTH = 2.5  # levels of 255 by which a block is raised or lowered at most
CLIP = 4.0  # levels; what moves in the picture must not outvote the mark
MIN_CLARITY = 3.8  # match of the pattern at the best shift over its root mean square at all; unmarked clips stay about 3
DOUBTFUL = 6  # weakest bits that are tried both ways until the checksum agrees
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SCALES = (1.0, 0.5, 2.0, 0.75, 4 / 3, 1.5, 2 / 3, 0.8, 1.25)
"""Sizes at which the mark is looked for, as shares of the size it was written at."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was read: the id (None: no mark), how clearly the pattern stood out, and the scale it was found at."""

    id: int | None
    clarity: float
    scale: float


def can_mark(frames_THWC: np.ndarray) -> bool:
    """Whether frames are large enough for a tile and last a period."""
    return len(frames_THWC) >= PERIOD and min(frames_THWC.shape[1:3]) >= TILE


def mark(frames_THWC: np.ndarray, id: int, strength: float = STRENGTH) -> np.ndarray:
    """A marked copy of uint8 RGB frames; `id` has 32 bits. Raises ValueError for frames that `can_mark` refuses."""
    if not can_mark(frames_THWC):
        raise ValueError(f"a mark needs {PERIOD} frames of {TILE}x{TILE} pixels or more, got {frames_THWC.shape}")
    height, width = frames_THWC.shape[1:3]
    pattern_HW = np.tile(_tile(id), (-(-height // TILE), -(-width // TILE)))[:height, :width]
    out = np.empty_like(frames_THWC)
    for t, frame in enumerate(frames_THWC):
        swing = strength * np.cos(2 * np.pi * (t + 0.5) / PERIOD)
        out[t] = np.clip(np.rint(frame + (swing * pattern_HW)[..., None]), 0, 255)
    return out


def read(frames_THWC: np.ndarray) -> Found:
    """The mark in uint8 RGB frames, cropped or of another size than it was written at."""
    best = Found(id=None, clarity=0.0, scale=1.0)
    if len(frames_THWC) < PERIOD:
        return best
    swung_HW = _swung(frames_THWC)
    for scale in SCALES:
        sized_HW = _resized(swung_HW, 1 / scale)
        if min(sized_HW.shape) < TILE:
            continue
        clarity, votes_B = _votes(sized_HW, len(frames_THWC))
        id = _decoded(votes_B) if clarity >= MIN_CLARITY else None
        best = max(best, Found(id=id, clarity=round(clarity, 2), scale=scale), key=lambda f: (f.id is not None, f.clarity))
        if id is not None:
            break
    return best


def votes(frames_THWC: np.ndarray) -> tuple[float, np.ndarray]:
    """How clearly the pattern stands out at its best shift, and what each bit's blocks say there, float [B]: above 0 is 1."""
    return _votes(_swung(frames_THWC), len(frames_THWC))


def _votes(swung_HW: np.ndarray, frames: int) -> tuple[float, np.ndarray]:
    tile_SS = _folded(swung_HW, CLIP * frames / 2)
    match_SS = np.fft.ifft2(np.fft.fft2(tile_SS) * np.conj(np.fft.fft2(_sync())))
    size_SS = np.abs(match_SS)
    row, column = np.unravel_index(int(size_SS.argmax()), size_SS.shape)
    peak = match_SS[row, column]
    clarity = float(abs(peak) / (np.sqrt(np.mean(size_SS**2)) + 1e-12))
    upright_SS = np.roll((tile_SS * np.conj(peak)).real, (-int(row), -int(column)), (0, 1))  # the swing begins anywhere
    blocks = upright_SS.reshape(SIDE, BLOCK, SIDE, BLOCK).mean(axis=(1, 3)).reshape(-1) * _signs()
    data = _order()[SYNC_BLOCKS:]
    return clarity, np.bincount(np.arange(len(data)) % BITS, weights=blocks[data], minlength=BITS)


def payload_bits(id: int) -> np.ndarray:
    """The id and its checksum as 0 and 1, [B]."""
    value = (id << CHECK_BITS) | (zlib.crc32(id.to_bytes(ID_BITS // 8, "big")) & 0xFFFF)
    return np.array([(value >> (BITS - 1 - i)) & 1 for i in range(BITS)])


def _decoded(votes_B: np.ndarray) -> int | None:
    """The id whose checksum agrees, with the fewest of the most doubtful bits turned; None if there is none."""
    bits_B, doubtful = votes_B > 0, np.argsort(np.abs(votes_B))[:DOUBTFUL]
    for turned in sorted(product((False, True), repeat=DOUBTFUL), key=sum):
        tried_B = bits_B.copy()
        tried_B[doubtful] ^= np.array(turned)
        id = int("".join("1" if bit else "0" for bit in tried_B[:ID_BITS]), 2)
        if np.array_equal(payload_bits(id), tried_B):
            return id
    return None


def _order() -> np.ndarray:
    """The blocks of a tile in the order in which pattern and bits take them. Fixed: it is part of the format."""
    return np.random.default_rng(1).permutation(SIDE * SIDE)


def _signs() -> np.ndarray:
    """Each block's own sign, so that equal bits make no flat area."""
    return np.random.default_rng(2).integers(0, 2, SIDE * SIDE) * 2.0 - 1.0


def _tile(id: int) -> np.ndarray:
    """Pattern and payload, values -1 and 1, [S, S]."""
    blocks, data = _signs(), _order()[SYNC_BLOCKS:]
    blocks[data] *= payload_bits(id)[np.arange(len(data)) % BITS] * 2 - 1
    return _grown(blocks)


def _sync() -> np.ndarray:
    """The part of the tile that is always the same; 0 where bits are."""
    blocks, fixed = np.zeros(SIDE * SIDE), _order()[:SYNC_BLOCKS]
    blocks[fixed] = _signs()[fixed]
    return _grown(blocks)


def _grown(blocks: np.ndarray) -> np.ndarray:
    return blocks.reshape(SIDE, SIDE).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1).astype(np.float32)


def _swung(frames_THWC: np.ndarray) -> np.ndarray:
    """What swings at the mark's rate: luma of all frames, each turned back by its place in the swing, complex [H, W]."""
    turn_T = np.exp(-2j * np.pi * np.arange(len(frames_THWC)) / PERIOD)
    turn_T -= turn_T.mean()  # what stands still cancels
    total_HW = np.zeros(frames_THWC.shape[1:3], np.complex64)
    for turn, frame in zip(turn_T, frames_THWC, strict=True):
        total_HW += np.complex64(turn) * (frame @ LUMA)
    return total_HW


def _folded(swung_HW: np.ndarray, most: float) -> np.ndarray:
    """All tiles added up: complex [S, S]. What is smooth is taken away, and no pixel counts more than `most`."""
    sharp_HW = swung_HW - _smooth(swung_HW)
    sharp_HW *= np.minimum(1, most / (np.abs(sharp_HW) + 1e-9))
    padded = np.pad(sharp_HW, [(0, -n % TILE) for n in sharp_HW.shape])
    return padded.reshape(-1, TILE, padded.shape[1] // TILE, TILE).sum(axis=(0, 2))


def _smooth(values_HW: np.ndarray) -> np.ndarray:
    """The mean over a square of about three blocks' side."""
    side = 3 * BLOCK - 1
    for axis in (0, 1):
        count = values_HW.shape[axis]
        widths = [(side // 2 + 1, side // 2) if a == axis else (0, 0) for a in (0, 1)]
        sums = np.cumsum(np.pad(values_HW, widths, mode="reflect"), axis=axis, dtype=np.complex128)
        upper, lower = (np.take(sums, np.arange(start, start + count), axis) for start in (side, 0))
        values_HW = (upper - lower) / side
    return values_HW


def _resized(swung_HW: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return swung_HW
    from PIL import Image

    size = tuple(round(n * factor) for n in swung_HW.shape[::-1])
    parts = (Image.fromarray(part.astype(np.float32)) for part in (np.real(swung_HW), np.imag(swung_HW)))
    real, imaginary = (np.asarray(part.resize(size, Image.Resampling.BILINEAR)) for part in parts)
    return real + 1j * imaginary
