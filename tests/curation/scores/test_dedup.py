"""Copies of one clip are found however they were changed in time or written over; other clips of the same scene are not copies."""

import sys

import numpy as np
import pytest
from PIL import Image

from worldfoundry.curation.scores.dedup import (
    Candidate,
    Match,
    PerceptualLimits,
    best_lines,
    compare,
    duplicates,
    k_means,
    nearest,
    perceptual_matches,
    semantic_matches,
)
from worldfoundry.curation.scores.signature import distances, frequencies, hash_of, sample_times, signature

LIMITS = PerceptualLimits()


def film(seed: int = 0, count: int = 16, speed: float = 1.0, start: float = 0.0, background: int | None = None) -> np.ndarray:
    """Tiny pictures of a clip: a background that passes, or (`background`) one that stays, and two blobs on paths of their own."""
    random = np.random.default_rng(seed if background is None else background)
    coarse = random.integers(0, 256, (9, 60, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((240, 18), Image.Resampling.BICUBIC))
    phases = np.random.default_rng(seed).uniform(0, 6, 4)
    y, x = np.mgrid[:18, :32]
    frames = []
    for time in start + speed * np.arange(count):
        left = int(2 * time) % 200 if background is None else 0
        picture = wide[:, left : left + 32].astype(np.float32)
        for k in (0, 2):
            cy, cx = 9 + 7 * np.sin(0.5 * time + phases[k]), 16 + 13 * np.cos(0.37 * time + phases[k + 1])
            picture = picture + 150 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8)[..., None]
        frames.append(picture)
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def noisy(frames: np.ndarray) -> np.ndarray:
    return np.clip(frames + np.random.default_rng(9).normal(0, 6, frames.shape), 0, 255).astype(np.uint8)


def written_over(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    frames[:, 15:17, 6:26] = 250
    return frames


@pytest.mark.parametrize(
    ("copy", "speed", "mirrored", "covered"),
    [
        (film(), 1, False, 1.0),
        (noisy(film()), 1, False, 1.0),
        (written_over(film()), 1, False, 1.0),
        (film()[:, :, ::-1], 1, True, 1.0),
        (film()[4:], 1, False, 0.75),
        (film(count=8, speed=2.0, start=0.5), 0.5, False, None),
    ],
    ids=["same", "noise", "overlay", "mirror", "trim", "double speed"],
)
@pytest.mark.parametrize("background", [None])
def test_copies_are_found(copy: np.ndarray, speed: float, mirrored: bool, covered: float | None, background: None) -> None:
    match = compare(signature(film()), signature(copy), LIMITS)
    assert match is not None
    assert (match["speed"], match["mirrored"]) == (speed, mirrored)
    assert match["covers_b"] >= 0.99
    if covered:
        assert match["covers_a"] == pytest.approx(covered)


def test_other_clips_are_no_copies_even_of_the_same_scene() -> None:
    assert compare(signature(film(0)), signature(film(1)), LIMITS) is None
    a, b = (signature(film(seed, background=5)) for seed in (0, 1))
    assert distances(a.hash_T, b.hash_T).mean() < 32  # the hashes alone see one scene
    assert compare(a, b, LIMITS) is None
    assert compare(a, signature(noisy(film(0, background=5))), LIMITS) is not None


def test_plain_pictures_match_nothing() -> None:
    black = signature(np.zeros((6, 18, 32, 3), np.uint8))
    assert perceptual_matches({"a": black, "b": black}) == []


def test_pairs_are_found_among_many() -> None:
    clips = {f"{i:02}": signature(film(i)) for i in range(12)}
    clips["copy"], clips["mirror"] = signature(noisy(film(3))), signature(film(7)[:, :, ::-1])
    assert [(m.a, m.b, m.mirrored) for m in perceptual_matches(clips)] == [("03", "copy", False), ("07", "mirror", True)]


def test_the_hash_of_a_mirror_image_needs_no_mirror_image() -> None:
    frames = film()
    assert (signature(frames).mirrored_T == signature(frames[:, :, ::-1]).hash_T).all()
    wave = np.cos(np.pi * 3 * (2 * np.arange(32) + 1) / 64)[None, None].repeat(18, 1)
    assert np.argmax(np.abs(frequencies(wave)[0])) == 3  # row 0, column 3: three half periods across
    assert hash_of(np.eye(64)[:1].reshape(1, 8, 8)).tolist() == [1 << 63]


def test_lines_are_read_off_a_matrix() -> None:
    bits = np.full((12, 9), 30.0)
    bits[np.arange(9), np.arange(9)] = 2
    at_a, at_b, speed = best_lines(bits, 10)[0]
    assert (at_a.tolist(), at_b.tolist(), speed) == (list(range(9)), list(range(9)), 1.0)
    assert best_lines(np.full((10, 10), 30.0), 10) == []


def test_signatures_are_taken_at_the_middles_of_quarter_seconds() -> None:
    assert sample_times(1.0).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert sample_times(0.1).tolist() == [0.05]


def test_the_sharpest_then_the_longest_stays_and_nothing_goes_for_what_is_gone() -> None:
    clips = [Candidate(clip_id=name, pixels=size, duration_s=t) for name, size, t in [("a", 1, 5), ("b", 4, 5), ("c", 4, 9)]]
    chain = [Match(a="a", b="b", kind="perceptual", score=0.9), Match(a="b", b="c", kind="perceptual", score=0.95)]
    gone = duplicates(clips, chain)
    assert {name: match.b for name, match in gone.items()} == {"b": "c"}  # `a` is like `b` alone, and `b` is gone
    part = [Match(a="b", b="c", kind="perceptual", score=1.0, covers_a=0.5, covers_b=0.4)]
    assert duplicates(clips, part) == {}
    longer = [Match(a="c", b="a", kind="perceptual", score=1.0, covers_a=0.3, covers_b=1.0, speed=2.0)]
    assert duplicates(clips, longer)["a"] == Match(
        a="a", b="c", kind="perceptual", score=1.0, covers_a=1.0, covers_b=0.3, speed=0.5
    )


def test_embeddings_are_compared_within_their_block() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(8)[:4]
    x = np.concatenate([centre + random.normal(0, 0.05, (30, 8)) for centre in centres])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    blocks = k_means(x, 4, seed=1)
    assert all(len(set(blocks[i : i + 30].tolist())) == 1 for i in range(0, 120, 30)) or len(set(blocks.tolist())) <= 4
    names = [f"{i:03}" for i in range(120)]
    x[77] = x[12]
    found = semantic_matches(names, x, threshold=0.99999, block=1000)
    assert [(m.a, m.b, m.score) for m in found] == [("012", "077", 1.0)]
    back = semantic_matches(names[::-1], x[::-1], threshold=0.99999, block=1000)
    assert back == found


def test_the_nearest_centroid_is_the_same_by_any_library() -> None:
    random = np.random.default_rng(0)
    x, c = random.normal(size=(50, 16)).astype(np.float32), random.normal(size=(5, 16)).astype(np.float32)
    assert nearest(x, c).tolist() == (x @ c.T).argmax(1).tolist()


def test_faiss_finds_the_pairs_that_numpy_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    random = np.random.default_rng(3)
    x = np.repeat(random.normal(size=(60, 16)), 3, axis=0) + random.normal(0, 0.02, (180, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    names = [f"{i:03}" for i in range(180)]
    found = semantic_matches(names, x, threshold=0.98, block=30)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert semantic_matches(names, x, threshold=0.98, block=30) == found
    assert len(found) > 100
