"""Objects that appear from below: what people judged, counted with intervals, and a detector that is no judge.

The failure of arXiv 2501.03575 (section 5.2, Table 18) is that objects unexpectedly appear from below; people looked at 100 videos.
Here too it is people who judge (`read_judgements`, `rates`). `lower_edge_novelty` measures something narrower by machine, and never
carries that name: how badly what stands at the lower edge is explained by any earlier frame. A picture that dissolves as a whole
is novel at its lower edge as well, and a car that truly drives into view from below is too.

Axis legend: T frames, P given frames, H height, W width, C = 3 (RGB), y x blocks by place, n blocks at the lower edge, D numbers
of a block.
"""

import csv
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from worldfoundry.core.errors import DataError, did_you_mean
from worldfoundry.evaluation.report import Clip, render

OK = "ok"
FAILURES = {
    "appears": "an object appears that nothing announced, from below or elsewhere at an edge",
    "collapses": "objects or the whole scene dissolve",
    "frozen": "nothing moves although something should",
}
CELL = 4
"""Pixels to a cell's side: finer detail is what a coarse tokenizer loses, and does not count."""
BLOCK, REACH = 4, 8
"""Cells to a block's side, and how far a block may have come from, in cells, to each side and from above."""
FLOOR, TRUE_FLAGGED = 30.0, 0.02
"""A threshold is at least this many colour levels, and such that no more than this share of true videos is above it."""


def wilson(count: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which also makes sense for none of n and all of n. (nan, nan) for n = 0."""
    if not n:
        return float("nan"), float("nan")
    share, spread = count / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def read_judgements(path: Path, videos: Sequence[str]) -> dict[str, str]:
    """A CSV with the columns `video` and `verdict` → verdict by video; a later line replaces an earlier one, empty ones are skipped.

    Raises DataError for another table, a video that is none of `videos`, and an unknown verdict.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The judgements {str(path)!r} cannot be read: {error}.") from error
    if not rows or not {"video", "verdict"} <= set(rows[0]):
        raise DataError(f"{str(path)!r} has no columns 'video' and 'verdict'.", "Export it from the labelling page.")
    known, verdicts = set(videos), (OK, *FAILURES)
    found = {row["video"]: row["verdict"] for row in rows if row["verdict"]}
    for video, verdict in found.items():
        if video not in known:
            raise DataError(f"{str(path)!r} judges {video!r}, which is no video of this run.", "Give its own judgements.")
        if verdict not in verdicts:
            raise DataError(f"{str(path)!r} calls {video!r} {verdict!r}.", did_you_mean(verdict, list(verdicts)))
    return found


def rates(verdicts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each kind of failure: count, n, rate and its 95 % interval."""
    return {kind: rate(sum(verdict == kind for verdict in verdicts), len(verdicts)) for kind in FAILURES}


def rate(count: int, n: int) -> dict[str, float]:
    """`count` of `n` as a share with its interval (`wilson`)."""
    low, high = wilson(count, n)
    return {"count": count, "n": n, "rate": count / n if n else float("nan"), "low": low, "high": high}


def lower_edge_novelty(frames_THWC: np.ndarray, prefix_frames: int) -> np.ndarray:
    """How badly each frame's lower edge is explained, (T − P,): the worst block's distance to its best match in an earlier frame.

    Frames are uint8; pictures are averaged over cells first. A block at the lower edge is looked for in all earlier frames, made
    ones too, up to `REACH` cells to the left and right and as far above. Distances are root mean square colour levels, 0 to 255.
    Raises DataError for a picture that is smaller than a block.
    """
    cells_TyxC = _cells(frames_THWC)[:, -(BLOCK + REACH) :]
    if min(cells_TyxC.shape[1:3]) < BLOCK:
        raise DataError(f"A picture of {frames_THWC.shape[1:3]!r} pixels is smaller than a block of {BLOCK * CELL}.")
    patches = sliding_window_view(cells_TyxC, (BLOCK, BLOCK), axis=(1, 2))
    patches_TyxD = patches.reshape(*patches.shape[:3], -1)
    square_Tyx, columns = np.square(patches_TyxD).sum(-1), np.arange(patches_TyxD.shape[2])
    far_xn = np.abs(columns[:, None] - columns) > REACH
    novelty = np.empty(len(frames_THWC) - prefix_frames)
    for i in range(len(novelty)):
        edge_nD, before = patches_TyxD[prefix_frames + i, -1], slice(0, prefix_frames + i)
        nearest_xn = (square_Tyx[before, :, :, None] - 2 * patches_TyxD[before] @ edge_nD.T).min((0, 1))
        nearest_n = np.where(far_xn, np.inf, nearest_xn).min(0) + square_Tyx[prefix_frames + i, -1]
        novelty[i] = np.sqrt(max(0.0, float(nearest_n.max())) / edge_nD.shape[1])
    return novelty


def _cells(frames_THWC: np.ndarray) -> np.ndarray:
    """Means over cells, counted from the lower edge, float32 [T, H / CELL, W / CELL, C]; what is left over is cut off."""
    T, H, W, C = frames_THWC.shape
    whole = frames_THWC[:, H % CELL :, : W - W % CELL].astype(np.float32)
    return whole.reshape(T, H // CELL, CELL, W // CELL, CELL, C).mean((2, 4))


def novelty_threshold(true_N: Sequence[float]) -> float:
    """Colour levels above which a video is flagged: by construction at most `TRUE_FLAGGED` of the true videos are."""
    return max(FLOOR, float(np.quantile(true_N, 1 - TRUE_FLAGGED, method="higher"))) if len(true_N) else FLOOR


# --- the page on which people judge ----------------------------------------------------------------------------------


def write_label_page(path: Path, title: str, clips: Sequence[Clip], given_s: Sequence[float]) -> Path:
    """One page, nothing loaded from anywhere: each clip loops, a key judges it, the answers leave as a CSV.

    A clip's label is all that the page says of it; its first `given_s` seconds are framed as given.
    """
    verdicts = {OK: "nothing wrong of these kinds", **FAILURES}
    videos = [{"name": clip.label, "src": clip.video_uri, "given": given} for clip, given in zip(clips, given_s, strict=True)]
    return render(path, "judge.html.jinja", title=title, videos=videos, verdicts=verdicts)
