"""Shot detection on composites with known transitions: where they are, and what must not be taken for one.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worldfoundry.curation import shots_pictures
from worldfoundry.curation.config import ShotConfig
from worldfoundry.curation.lowres import Look, Pictures, watch_frames
from worldfoundry.curation.shots import Transition, find_transitions, spans_between
from worldfoundry.curation.shots_network import judge
from worldfoundry.curation.shots_types import probability

FPS = 24.0
CONFIG = ShotConfig()


def shot(seed: int, num_frames: int, drift: float = 0.2, noise: float = 1.5) -> np.ndarray:
    """float32 (T, 18, 32, 3): a smooth random picture under a slowly panning camera, with sensor noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 24, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((160, 18), Image.Resampling.BICUBIC), dtype=np.float32)
    frames = []
    for t in range(num_frames):
        x = (drift * t) % 120
        left = scene[:, int(x) : int(x) + 32] * (1 - x % 1) + scene[:, int(x) + 1 : int(x) + 33] * (x % 1)
        frames.append(left + random.normal(0, noise, left.shape))
    return np.stack(frames).astype(np.float32)


def as_bytes(frames: np.ndarray) -> np.ndarray:
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def find(frames: np.ndarray) -> list[Transition]:
    return find_transitions(as_bytes(frames), FPS, CONFIG)


def dissolved(a: np.ndarray, b: np.ndarray, length: int) -> np.ndarray:
    """The last `length` frames of a mixed into the first of b."""
    weight = ((np.arange(length) + 1) / (length + 1))[:, None, None, None]
    return np.concatenate([a[:-length], a[-length:] * (1 - weight) + b[:length] * weight, b[length:]])


def faded(a: np.ndarray, b: np.ndarray, length: int, hold: int, level: float = 0.0) -> np.ndarray:
    """a sinks to `level`, stays there, b rises from it."""
    weight = ((np.arange(length) + 1) / length)[:, None, None, None]
    sinking = a[-length:] * (1 - weight) + level * weight
    rising = b[:length] * weight[::1] + level * (1 - weight)
    return np.concatenate([a[:-length], sinking, np.full((hold, *a.shape[1:]), level, np.float32), rising, b[length:]])


@pytest.mark.parametrize("seed", range(6))
def test_cuts_are_found_at_their_frame(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(10, 60, 6)
    frames = np.concatenate([shot(100 * seed + i, n) for i, n in enumerate(lengths)])
    found = find(frames)
    assert [(t.kind, t.start, t.end) for t in found] == [("cut", int(c), int(c)) for c in np.cumsum(lengths)[:-1]]
    assert all(0.5 <= t.confidence <= 1 for t in found)


def test_cuts_of_the_reversed_video_are_the_reversed_cuts() -> None:
    frames = np.concatenate([shot(i, 30) for i in range(4)])
    forward = [t.start for t in find(frames)]
    assert [len(frames) - t for t in reversed(forward)] == [t.start for t in find(frames[::-1])]


@pytest.mark.parametrize("drift", [0.0, 0.3, 0.5, 1.0, 2.0])
def test_one_shot_has_no_transition_however_the_camera_moves(drift: float) -> None:
    for seed in range(6):
        assert find(shot(seed, 60, drift)) == []


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("gain", [1.8, 4.0])
def test_flashes_are_not_cuts(length: int, gain: float) -> None:
    frames = shot(3, 60)
    frames[30 : 30 + length] = frames[30 : 30 + length] * gain + 60
    assert find(frames) == []


@pytest.mark.parametrize("hold", [0, 10])
@pytest.mark.parametrize("level", [0.0, 255.0, 140.0])
def test_fades_are_found_with_their_ramps(hold: int, level: float) -> None:
    frames = faded(shot(1, 40), shot(2, 40), 10, hold, level)
    (fade,) = find(frames)
    assert fade.kind == "fade"
    assert abs(fade.start - 30) <= 2
    assert abs(fade.end - (50 + hold)) <= 2


def test_black_around_a_shot_is_left_out() -> None:
    black = np.zeros((20, 18, 32, 3), np.float32)
    found = find(np.concatenate([black, shot(1, 40), black]))
    assert spans_between(found, 80) == [(20, 60)]
    assert spans_between(find(black), 20) == []


@pytest.mark.parametrize("length", [8, 16, 30])
def test_dissolves_are_found_with_their_span(length: int) -> None:
    hits = 0
    for seed in range(5):
        frames = dissolved(shot(2 * seed, 60), shot(2 * seed + 1, 60), length)
        found = find(frames)
        hits += (
            [t.kind for t in found] == ["dissolve"] and abs(found[0].start - (60 - length)) <= 4 and abs(found[0].end - 60) <= 4
        )
    assert hits >= 4


def wiped(a: np.ndarray, b: np.ndarray, length: int, direction: str) -> np.ndarray:
    """b's first frames push in over a's last ones."""
    y, x = np.meshgrid(np.linspace(0, 1, 18), np.linspace(0, 1, 32), indexing="ij")
    order = {"right": x, "up": 1 - y, "diagonal": (x + y) / 2, "iris": np.hypot(x - 0.5, y - 0.5) / 0.7072}[direction]
    new = order[None, :, :, None] < ((np.arange(length) + 1) / (length + 1))[:, None, None, None]
    return np.concatenate([a[:-length], np.where(new, b[:length], a[-length:]), b[length:]])


@pytest.mark.parametrize("direction", ["right", "up", "diagonal", "iris"])
@pytest.mark.parametrize("length", [8, 16])
def test_wipes_are_found_with_their_span(direction: str, length: int) -> None:
    hits = 0
    for seed in range(4):
        found = find(wiped(shot(2 * seed, 60), shot(2 * seed + 1, 60), length, direction))
        hits += [t.kind for t in found] == ["wipe"] and abs(found[0].start - (60 - length)) <= 5 and abs(found[0].end - 60) <= 5
    assert hits >= 3


def test_something_that_crosses_the_picture_is_no_wipe() -> None:
    frames = shot(5, 80)
    for t in range(20, 62):
        left = t - 28
        frames[t, 2:16, max(0, left) : max(0, left + 8)] = 30
    assert all(transition.kind != "wipe" for transition in find(frames))


@pytest.mark.parametrize("seed", range(3))
def test_a_tiny_clip_that_drifts_holds_no_wipe(zoo: Any, seed: int) -> None:
    """A block that is near to the frames on both sides of the middle is not evidence for one of them."""
    path = zoo.encoded("a.mp4", zoo.frames(60, seed=seed), pixel_format="yuv444p", time_base=Fraction(1, 24))
    pictures = Pictures()
    watch_frames(path, [Look(size=(18, 32), add=pictures.add)])
    assert find_transitions(np.stack(pictures.rgb), FPS, CONFIG) == []


def test_larger_pictures_are_shrunk_to_the_means_of_areas() -> None:
    small = as_bytes(np.concatenate([shot(1, 30), shot(2, 30)]))
    assert find_transitions(small.repeat(3, axis=1).repeat(2, axis=2), FPS, CONFIG) == find_transitions(small, FPS, CONFIG)
    picture = np.random.default_rng(0).integers(0, 256, (1, 27, 48, 3), dtype=np.uint8)
    sixfold = picture.repeat(2, axis=1).repeat(2, axis=2)  # 54 x 96: exactly 3 x 3 pixels for each
    want = sixfold.reshape(1, 18, 3, 32, 3, 3).mean(axis=(2, 4))
    assert np.abs(shots_pictures.shrink(picture) - want).max() <= 0.51


class TestDoubt:
    """What lies near a threshold is the network's to decide, most doubtful first, within its share of frames."""

    pictures = np.zeros((1000, 27, 48, 3), np.uint8)
    proposed = tuple(
        Transition(kind="cut", start=at, end=at, confidence=probability(strength))
        for at, strength in ((100, 3.0), (300, 1.05), (500, 0.97), (505, 0.93), (800, 0.5))
    )

    @staticmethod
    def network(answer: float, asked: list[int] | None = None):
        def predict(rgb_THWC: np.ndarray) -> np.ndarray:
            if asked is not None:
                asked.append(len(rgb_THWC))
            return np.full(len(rgb_THWC), answer, np.float32)

        return predict

    def test_the_sure_stay_and_the_doubtful_take_the_answer(self) -> None:
        config = ShotConfig(network_share=1.0)
        judged = judge([*self.proposed], self.pictures, self.network(0.7), config)
        assert [t.decided_by for t in judged] == ["fast", "network", "network", "network", "fast"]
        assert [t.confidence for t in judged[1:4]] == [0.75] * 3
        assert judged[0] == self.proposed[0]
        assert judged[4] == self.proposed[4]
        answer = config.network_threshold
        assert [t.confidence for t in judge([*self.proposed], self.pictures, self.network(answer), config)[1:4]] == [0.5] * 3
        assert [t.confidence for t in judge([*self.proposed], self.pictures, self.network(0.0), config)[1:4]] == [0.0] * 3

    def test_one_window_serves_neighbours_and_the_share_is_kept(self) -> None:
        asked: list[int] = []
        judge([*self.proposed], self.pictures, self.network(0.7, asked), ShotConfig(network_share=1.0))
        assert len(asked) == 2
        asked.clear()
        judged = judge([*self.proposed], self.pictures, self.network(0.7, asked), ShotConfig(network_share=0.0))
        assert len(asked) == 1
        assert [t.decided_by for t in judged] == ["fast", "fast", "network", "network", "fast"]

    def test_it_needs_its_own_size_of_picture(self) -> None:
        with pytest.raises(ValueError, match="27, 48"):
            judge([*self.proposed], self.pictures[:, :18, :32], self.network(0.7), CONFIG)

    def test_everywhere_it_adds_what_touches_nothing_found(self) -> None:
        """A single frame above the threshold is a cut after it, a run of them a dissolve; beside what was found it is that."""

        def predict(rgb_THWC: np.ndarray) -> np.ndarray:
            return rgb_THWC[:, 0, 0, 0] / np.float32(100)

        pictures = self.pictures.copy()
        pictures[[99, 301, 649, *range(900, 912)], 0, 0, 0] = 70
        proposed = [t for t in self.proposed if t.start in (100, 500, 800)]
        judged = judge(proposed, pictures, predict, ShotConfig(network="everywhere"))
        assert [(t.kind, t.start, t.end, t.decided_by) for t in judged] == [
            ("cut", 100, 100, "fast"),
            ("cut", 302, 302, "network"),
            ("cut", 650, 650, "network"),
            ("dissolve", 901, 912, "network"),
        ]
        assert judged[-1].confidence == 0.75

    def test_answers_do_not_show_the_last_digits_of_the_arithmetic(self) -> None:
        config, tiny = ShotConfig(network_share=1.0), 1e-5
        a, b = (judge([*self.proposed], self.pictures, self.network(0.7 + sign * tiny), config) for sign in (-1, 1))
        assert a == b

    def test_it_is_not_asked_about_wipes(self) -> None:
        wipes = [Transition(kind="wipe", start=500, end=510, confidence=0.51)]
        assert judge(wipes, self.pictures, self.network(0.0), CONFIG) == wipes

    def test_nothing_doubtful_costs_nothing(self) -> None:
        asked: list[int] = []
        frames = np.repeat(as_bytes(np.concatenate([shot(1, 30), shot(2, 30)])), 2, axis=1)[:, :27].repeat(2, axis=2)[:, :, :48]
        found = find_transitions(frames, FPS, CONFIG, self.network(0.0, asked))
        assert asked == []
        assert [(t.kind, t.start, t.decided_by) for t in found] == [("cut", 30, "fast")]


def test_a_change_of_light_is_no_dissolve() -> None:
    frames = shot(4, 60)
    gain = np.interp(np.arange(60), [20, 40], [1.0, 0.45])[:, None, None, None]
    assert find(frames * gain) == []


def test_letterbox_does_not_hide_a_dip_to_fog() -> None:
    frames = faded(shot(1, 40), shot(2, 40), 10, 2, 176.0)
    frames[:, :3], frames[:, -3:] = 0, 0
    assert [t.kind for t in find(frames)] == ["fade"]


def test_a_jump_within_a_still_scene_is_a_cut() -> None:
    frames = shot(7, 60, drift=0.0)
    frames[30:, 6:14, 10:22] = 255 - frames[30:, 6:14, 10:22]
    assert [(t.kind, t.start) for t in find(frames)] == [("cut", 30)]


def test_drawings_held_for_two_frames_are_not_cuts() -> None:
    frames = shot(8, 60, drift=1.5)
    assert find(np.repeat(frames[::2], 2, axis=0)) == []
    assert find(np.repeat(frames[::3], 3, axis=0)) == []


def test_mixed_material_scores_well() -> None:
    """F1 over cuts, fades and dissolves of seeded composites, as a guard against regressions."""
    hits = misses = false_alarms = 0
    for seed in range(8):
        random = np.random.default_rng(1000 + seed)
        frames, truth = shot(5000 + 100 * seed, 50), []
        for i in range(8):
            following = shot(5000 + 100 * seed + i + 1, int(random.integers(40, 70)), float(random.uniform(0, 0.6)))
            kind, length = random.choice(["cut", "cut", "fade", "dissolve"]), int(random.integers(8, 18))
            start = len(frames) - length
            if kind == "cut":
                truth.append((len(frames), len(frames)))
                frames = np.concatenate([frames, following])
            elif kind == "fade":
                truth.append((start, start + 2 * length))
                frames = faded(frames, following, length, 0)
            else:
                truth.append((start, start + length))
                frames = dissolved(frames, following, length)
        found = find(frames)
        hit = [any(t.start <= end + 2 and t.end >= start - 2 for t in found) for start, end in truth]
        hits, misses = hits + sum(hit), misses + len(hit) - sum(hit)
        false_alarms += sum(not any(t.start <= end + 2 and t.end >= start - 2 for start, end in truth) for t in found)
    assert 2 * hits / (2 * hits + misses + false_alarms) >= 0.95


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = dissolved(np.concatenate([shot(1, 90), shot(2, 90)]), shot(3, 60), 14)
    frames = faded(frames, np.concatenate([shot(4, 45), shot(5, 45)]), 9, 3)
    whole = find(frames)
    assert [t.kind for t in whole] == ["cut", "dissolve", "fade", "cut"]
    for block in (37, 90, 128):
        monkeypatch.setattr(shots_pictures, "BLOCK", block)
        assert find(frames) == whole


def test_nothing_comes_of_nothing() -> None:
    assert find(shot(0, 1)) == []
    assert find(shot(0, 2)) == []
    assert spans_between([], 0) == []
    assert spans_between([Transition(kind="cut", start=3, end=3, confidence=1.0)], 5) == [(0, 3), (3, 5)]
