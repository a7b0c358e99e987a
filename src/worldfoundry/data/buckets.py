"""Bucket names: clips of like resolution, aspect and length share shards, and never mix with others in a batch."""

from collections.abc import Iterable
from math import log, sqrt

ASPECTS: dict[str, float] = {"1x1": 1.0, "3x4": 3 / 4, "4x3": 4 / 3, "9x16": 9 / 16, "16x9": 16 / 9}
SHORT_SIDES = (64, 128, 240, 360, 480, 720, 1080, 2160)
LENGTHS = (1, 16, 32, 64, 128, 256, 512, 1024)


def bucket_name(width: int, height: int, num_frames: int, *, image: bool = False) -> str:
    """E.g. `480p_16x9_f064`: largest standard short side, nearest aspect in log ratio, largest standard length reached.

    Images have buckets of their own: `image_480p_16x9`. Raises ValueError for a side or a length below 1.
    """
    if min(width, height, num_frames) < 1:
        raise ValueError(f"a clip has at least one pixel and one frame, got {width} x {height} x {num_frames}")
    short = _largest_reached(min(width, height), SHORT_SIDES)
    shape = f"{short:03d}p_{nearest_aspect(width, height)}"
    return f"image_{shape}" if image else f"{shape}_f{_largest_reached(num_frames, LENGTHS):03d}"


def nearest_aspect(width: int, height: int, among: Iterable[str] = ASPECTS) -> str:
    """The name of the aspect whose ratio is nearest in logarithm, so that 2:1 and 1:2 are equally far from square."""
    return min(among, key=lambda name: abs(log(width / height) - log(ASPECTS[name])))


def bucket_size(aspect: str, height: int, width: int, multiple: int) -> tuple[int, int]:
    """(height, width) of an aspect with about as many pixels as height x width, each side a multiple of `multiple`.

    Clips of all aspects then cost about the same. Raises KeyError for an unknown aspect.
    """
    area, ratio = height * width, ASPECTS[aspect]
    sides = sqrt(area / ratio), sqrt(area * ratio)
    down, across = (max(1, round(side / multiple)) * multiple for side in sides)
    return down, across


def _largest_reached(value: int, steps: tuple[int, ...]) -> int:
    return max((step for step in steps if step <= value), default=0)
