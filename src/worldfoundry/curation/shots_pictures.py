"""How different two tiny pictures are when blocks may move a little: what every test for a shot transition is made of.

Axis legend: T frames, H height, W width, C = 3 (RGB), N blocks of the picture. Differences are in luma levels, 0 to 255.
"""

from collections.abc import Callable, Iterator

import numpy as np

HEIGHT, WIDTH = 18, 32
BLOCK = 2048  # frames that are looked at together, so that a film needs little more memory than its small pictures


def in_blocks(function: Callable[..., np.ndarray], *arrays_T: np.ndarray) -> np.ndarray:
    """A function of single frames (or pairs), applied block by block along the first axis."""
    blocks = range(0, max(1, len(arrays_T[0])), BLOCK)
    return np.concatenate([function(*(array[i : i + BLOCK] for array in arrays_T)) for i in blocks])


def blocks_with_margin(start: int, end: int, margin: int) -> Iterator[tuple[range, int, int]]:
    """(the frames of a block, first and last + 1 of what to look at for it) through [start, end)."""
    for block in range(start, end, BLOCK):
        yield range(block, min(end, block + BLOCK)), max(start, block - margin), min(end, block + BLOCK + margin)


def shrink(rgb_THWC: np.ndarray) -> np.ndarray:
    """uint8 pictures at 18 x 32 (unchanged if they are): means over the area of each pixel."""
    if rgb_THWC.shape[1:3] == (HEIGHT, WIDTH):
        return rgb_THWC
    rows, columns = _area_weights(rgb_THWC.shape[1], HEIGHT), _area_weights(rgb_THWC.shape[2], WIDTH)

    def small(rgb_THWC: np.ndarray) -> np.ndarray:
        T, H, W, C = rgb_THWC.shape
        wide = (rows @ rgb_THWC.reshape(T, H, W * C).astype(np.float32)).reshape(T * HEIGHT, W, C)
        return np.round(columns @ wide).astype(np.uint8).reshape(T, HEIGHT, WIDTH, C)

    return in_blocks(small, rgb_THWC)


def _area_weights(size: int, wanted: int) -> np.ndarray:
    """[wanted, size]: the share of each old pixel in each new one; rows sum to 1."""
    edges, pixels = np.linspace(0, size, wanted + 1), np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, 1) * wanted / size).astype(np.float32)


def to_luma(rgb_THWC: np.ndarray) -> np.ndarray:
    """float32 luma (BT.601 weights), 0 to 255."""
    return rgb_THWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def luma_change(rgb_THWC: np.ndarray) -> np.ndarray:
    """Mean absolute change of luma from frame t - 1 to t (float32, T; first 0): the amount of motion, camera included."""
    step = in_blocks(lambda a, b: np.abs(to_luma(a) - to_luma(b)).mean(axis=(1, 2)), rgb_THWC[1:], rgb_THWC[:-1])
    return np.concatenate([np.zeros(1, np.float32), step])


def scene_change(a_THWC: np.ndarray, b_THWC: np.ndarray) -> np.ndarray:
    """How different the pictures a[t] and b[t] are (float32, T): luma after block motion plus half the change of colour."""
    a_luma_THW, b_luma_THW = to_luma(a_THWC), to_luma(b_THWC)
    colour_THWC = (a_THWC - a_luma_THW[..., None]) - (b_THWC - b_luma_THW[..., None])
    return block_difference(a_luma_THW, b_luma_THW) + 0.5 * np.abs(colour_THWC).mean(axis=(1, 2, 3))


def block_difference(a_THW: np.ndarray, b_THW: np.ndarray) -> np.ndarray:
    """Mean over blocks of 6 x 8 pixels of their difference after motion."""
    return block_differences(a_THW, b_THW, 6, 8).mean(axis=1)


def block_differences(a_THW: np.ndarray, b_THW: np.ndarray, height: int, width: int) -> np.ndarray:
    """[T, N]: each block's least mean absolute difference when the block of `b` may move by (1, 2) pixels."""
    T, H, W = a_THW.shape
    padded = np.pad(b_THW, ((0, 0), (1, 1), (2, 2)), mode="edge")
    least_TYX = np.full((T, H // height, W // width), np.inf, np.float32)
    for dy in range(3):
        for dx in range(5):
            difference = np.abs(a_THW - padded[:, dy : dy + H, dx : dx + W])
            rows_TYW = difference.reshape(T, H // height, height, W).sum(axis=2)  # in two steps: several times faster
            sums_TYX = rows_TYW.reshape(T, H // height, W // width, width).sum(axis=3)
            np.minimum(least_TYX, sums_TYX, out=least_TYX)
    return least_TYX.reshape(T, -1) / (height * width)


def runs(mask_T: np.ndarray) -> list[tuple[int, int]]:
    """Half-open spans of consecutive True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask_T.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
