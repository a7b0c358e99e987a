"""Which clips show the same: by their pictures in time (re-encoded, trimmed, sped up, mirrored, written over), and by what they show.

Axis legend: T pictures in time, N clips, D features, K blocks.

Perceptual: clips that share a quarter of some picture's hash are compared. Lines through time on which their hashes agree well
give speed and offset; along the best of them what changes in the pictures must agree, since clips of one scene before a camera
that stands still share everything but that. Where nothing changes, the pictures themselves must agree.
Semantic: clips are grouped into blocks by k-means over their embeddings, and compared by cosine within a block (SemDeDup,
arXiv 2303.09540).
Of each pair the one with more pixels stays, then the longer one; a clip goes only if what it shows is in the other one.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from worldfoundry.curation.scores.signature import Signature, distances

SPEEDS = tuple(2.0 ** (step / 12) for step in range(-12, 13))  # half to double
LEAST_PICTURES = 3
LINES = 12  # of the best by their hashes, whose pictures are compared
COVERED = 0.8  # of a clip that must be in the other one, for it to be called a duplicate
STILL = 0.7  # luma levels: less change over time than this is coding
CROWDED = 400  # clips that share a quarter of a hash: too common to mean anything


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What of a clip decides which of two stays."""

    clip_id: str
    pixels: int
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two clips that show the same. `score` is 1 for equal and falls; `covers_a` is the share of `a` that `b` has too."""

    a: str
    b: str
    kind: str
    score: float
    covers_a: float = 1.0
    covers_b: float = 1.0
    speed: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True, kw_only=True)
class PerceptualLimits:
    """What counts as the same. Tuned on half of the generated near-duplicates of `benchmarks/curate_dedup.py`."""

    bits: float = 18.0
    """Largest mean difference of hashes along the line, of 64."""
    change: float = 0.5
    """Least correlation of what changes in the pictures."""
    likeness: float = 0.95
    """Least mean correlation of the pictures, where nothing changes."""


def perceptual_matches(clips: Mapping[str, Signature], limits: PerceptualLimits | None = None) -> list[Match]:
    """All pairs whose pictures agree along a line through time, in the order of their names."""
    limits = limits or PerceptualLimits()
    found = []
    for a, b in sorted(shared_quarters(clips)):
        match = compare(clips[a], clips[b], limits)
        if match is not None:
            found.append(Match(a=a, b=b, kind="perceptual", **match))
    return found


def shared_quarters(clips: Mapping[str, Signature]) -> set[tuple[str, str]]:
    """Pairs of clips in which some picture of one and some picture of the other, mirrored or not, share 16 aligned bits."""
    places: dict[tuple[int, int], set[str]] = defaultdict(set)
    mirrors: dict[tuple[int, int], set[str]] = defaultdict(set)
    for name, clip in clips.items():
        for table, hashes in ((places, clip.hash_T), (mirrors, clip.mirrored_T)):
            for quarter in range(4):
                for value in np.unique((hashes[~clip.plain_T] >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)).tolist():
                    table[quarter, value].add(name)
    pairs: set[tuple[str, str]] = set()
    for key, names in places.items():
        if len(names) <= CROWDED:
            pairs.update(combinations(sorted(names), 2))
            pairs.update((min(a, b), max(a, b)) for a in names for b in mirrors.get(key, ()) if a != b)
    return pairs


def compare(a: Signature, b: Signature, limits: PerceptualLimits) -> dict[str, Any] | None:
    """Where two clips agree: score, coverage, speed and mirroring; None if they do not."""
    best: dict[str, Any] | None = None
    for mirrored in (False, True):
        bits = distances(a.hash_T, b.mirrored_T if mirrored else b.hash_T).astype(np.float32)
        bits[a.plain_T], bits[:, b.plain_T] = 32, 32
        luma_b = b.luma_THW[:, :, ::-1] if mirrored else b.luma_THW
        for at_a, at_b, speed in best_lines(bits, limits.bits):
            score = agreement(a.luma_THW[at_a], luma_b[at_b], limits)
            if score is not None and (best is None or score > best["score"]):
                seen_b = len(set(at_b.tolist())) * max(1.0, speed)  # at double speed a line hits every second picture of b
                covers = {"covers_a": round(len(at_a) / len(a), 4), "covers_b": round(min(1.0, seen_b / len(b)), 4)}
                best = {"score": round(score, 4), **covers, "speed": round(speed, 4), "mirrored": mirrored}
    return best


def best_lines(bits: np.ndarray, limit: float) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """The lines through a matrix of distances (pictures of a, of b) along which the mean is least and not above `limit`.

    Each is (pictures of a, pictures of b, speed: pictures of b per picture of a), over most of the shorter clip.
    """
    rows, columns = bits.shape
    shorter = bits.min(1) if rows <= columns else bits.min(0)
    if np.sort(shorter)[: max(1, int(COVERED * len(shorter)))].mean() > limit:  # no line can be better than that
        return []
    found, a = [], np.arange(rows)
    for speed in SPEEDS:
        start = np.floor(speed * (a + 0.5)).astype(int)
        offsets = np.arange(-int(start[-1]), columns)
        b = start[:, None] + offsets
        inside = (b >= 0) & (b < columns)
        count = inside.sum(0)
        total = np.where(inside, bits[a[:, None], b.clip(0, columns - 1)], 0).sum(0)
        least = max(COVERED * min(rows, columns / speed), min(LEAST_PICTURES, rows, columns))
        mean = np.where(count >= least, total / np.maximum(count, 1), np.inf)
        for i in np.argsort(mean)[:3]:
            if mean[i] <= limit:
                found.append((float(mean[i]), abs(float(np.log(speed))), a[inside[:, i]], b[inside[:, i], i], float(speed)))
    found.sort(key=lambda line: line[:2])
    return [line[2:] for line in found[:LINES]]


def agreement(a_THW: np.ndarray, b_THW: np.ndarray, limits: PerceptualLimits) -> float | None:
    """Correlation of what changes in two rows of pictures, or of the pictures where nothing does; None below the limits."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (a_THW, b_THW))
    change_a, change_b = a - a.mean(0), b - b.mean(0)
    if max(change_a.std(), change_b.std()) < STILL:
        likeness = float(np.mean([_correlation(p, q) for p, q in zip(a, b, strict=True)]))
        return likeness if likeness >= limits.likeness else None
    change = _correlation(change_a.ravel(), change_b.ravel())
    return change if change >= limits.change else None


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def semantic_matches(
    names: Sequence[str], embeddings_ND: np.ndarray, *, threshold: float, block: int = 256, seed: int = 0
) -> list[Match]:
    """All pairs within a block of k-means whose embeddings (of length 1) have a cosine of at least `threshold`."""
    if len(names) < 2:
        return []
    order = sorted(range(len(names)), key=lambda i: names[i])
    x_ND = np.asarray(embeddings_ND, np.float32)[order]
    found = []
    blocks_N = k_means(x_ND, max(1, round(len(names) / block)), seed=seed)
    for number in np.unique(blocks_N):
        inside = np.flatnonzero(blocks_N == number)
        cosine = x_ND[inside] @ x_ND[inside].T
        for i, j in zip(*np.nonzero(np.triu(cosine >= threshold, 1)), strict=True):
            a, b = names[order[inside[i]]], names[order[inside[j]]]
            found.append(Match(a=a, b=b, kind="semantic", score=round(float(cosine[i, j]), 4)))
    return found


def k_means(x_ND: np.ndarray, k: int, *, seed: int = 0, rounds: int = 20) -> np.ndarray:
    """The block of each row, by cosine; with faiss installed the nearest centroids are found by it, with the same answer."""
    if k == 1:
        return np.zeros(len(x_ND), dtype=np.int64)
    centroids_KD = x_ND[np.random.default_rng(seed).choice(len(x_ND), k, replace=False)]
    nearest_N = np.full(len(x_ND), -1)
    for _ in range(rounds):
        new_N = nearest(x_ND, centroids_KD)
        if (new_N == nearest_N).all():
            break
        nearest_N = new_N
        for block in range(k):
            if (nearest_N == block).any():
                centre = x_ND[nearest_N == block].mean(0)
                centroids_KD[block] = centre / max(float(np.linalg.norm(centre)), 1e-9)
    return nearest_N


def nearest(x_ND: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """The centroid with the largest product for each row, in pieces of bounded size."""
    try:
        import faiss
    except ImportError:
        return np.concatenate([(x_ND[i : i + 4096] @ centroids_KD.T).argmax(1) for i in range(0, len(x_ND), 4096)])
    index = faiss.IndexFlatIP(centroids_KD.shape[1])
    index.add(np.ascontiguousarray(centroids_KD, np.float32))
    return index.search(np.ascontiguousarray(x_ND, np.float32), 1)[1][:, 0]


def duplicates(clips: Iterable[Candidate], matches: Iterable[Match]) -> dict[str, Match]:
    """The clips that go, each with the pair that decided: its `a` goes and its `b`, which stays, has what it shows.

    The best clips are looked at first, and only clips that stay can send another away; so nothing goes for the sake of
    something that goes itself.
    """
    ranked = sorted(clips, key=lambda clip: (-clip.pixels, -clip.duration_s, clip.clip_id))
    partners: dict[str, list[Match]] = defaultdict(list)
    for match in matches:
        partners[match.a].append(match)
        partners[match.b].append(_turned(match))
    stay: set[str] = set()
    gone: dict[str, Match] = {}
    for clip in ranked:
        reasons = [m for m in partners[clip.clip_id] if m.b in stay and m.covers_a >= COVERED]
        if reasons:
            gone[clip.clip_id] = max(reasons, key=lambda match: (match.score, match.b))
        else:
            stay.add(clip.clip_id)
    return gone


def _turned(match: Match) -> Match:
    return Match(
        a=match.b,
        b=match.a,
        kind=match.kind,
        score=match.score,
        covers_a=match.covers_b,
        covers_b=match.covers_a,
        speed=round(1 / match.speed, 4),
        mirrored=match.mirrored,
    )
