"""Faces over time: what a detector sees in some frames becomes boxes in all of them, so that none is missed for a frame.

Axis legend: T frames, N boxes (left, top, right, bottom) in pixels.

A face keeps its track while its box overlaps where the track's constant velocity expects it. Between two sightings the box is
interpolated; before the first and after the last it goes on with the same velocity for `reach` frames; and in each frame it is
widened to hold the boxes of its neighbours, so that uneven motion does not leave the face.
"""

from dataclasses import dataclass, field

import numpy as np

from worldfoundry.perception.boxes import overlaps

SAME = 0.3  # overlap with the expected box from which a sighting belongs to a track


@dataclass
class Track:
    """One face: the frames in which it was seen, its boxes there, and how sure the detector was."""

    frames: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def expected(self, t: int) -> np.ndarray:
        """Its box at frame t by constant velocity, from the two sightings next to t."""
        if len(self.frames) == 1:
            return self.boxes[0]
        i = int(np.clip(np.searchsorted(self.frames, t), 1, len(self.frames) - 1))
        (start, stop), (one, other) = self.frames[i - 1 : i + 1], self.boxes[i - 1 : i + 1]
        return one + (other - one) * (t - start) / (stop - start)

    def add(self, t: int, seen_5: np.ndarray) -> None:
        self.frames.append(t)
        self.boxes.append(seen_5[:4])
        self.scores.append(float(seen_5[4]))


def follow(seen: dict[int, np.ndarray], max_gap: int) -> list[Track]:
    """Tracks of what was seen in each frame looked at (N, 5: boxes and scores); after `max_gap` frames without one it is over."""
    tracks: list[Track] = []
    for t in sorted(seen):
        alive = [track for track in tracks if t - track.frames[-1] <= max_gap]
        seen_N5 = seen[t]
        expected = np.array([track.expected(t) for track in alive]).reshape(-1, 4)
        overlap = overlaps(expected, seen_N5[:, :4])
        free = set(range(len(seen_N5)))
        while overlap.size and overlap.max() >= SAME:
            i, n = divmod(int(overlap.argmax()), overlap.shape[1])
            alive[i].add(t, seen_N5[n])
            overlap[i], overlap[:, n] = -1, -1
            free.discard(n)
        for n in sorted(free):
            tracks.append(Track())
            tracks[-1].add(t, seen_N5[n])
    return tracks


def boxes_per_frame(tracks: list[Track], count: int, reach: int, margin: float) -> list[np.ndarray]:
    """For each of `count` frames the boxes (N, 4) to hide: each track's hull over the neighbouring frames, `margin` wider."""
    per_frame: list[list[np.ndarray]] = [[] for _ in range(count)]
    for track in tracks:
        first, last = max(0, track.frames[0] - reach), min(count - 1, track.frames[-1] + reach)
        path_T4 = np.array([track.expected(t) for t in range(first, last + 1)])
        # Away from a sighting a velocity is a guess: where the face was seen last stays covered too.
        path_T4[: track.frames[0] - first] = _hull(path_T4[: track.frames[0] - first], track.boxes[0])
        after = last - track.frames[-1]
        path_T4[len(path_T4) - after :] = _hull(path_T4[len(path_T4) - after :], track.boxes[-1])
        padded = np.pad(path_T4, ((1, 1), (0, 0)), mode="edge")
        neighbours = np.stack([padded[:-2], padded[1:-1], padded[2:]])
        hull_T4 = np.concatenate([neighbours[..., :2].min(0), neighbours[..., 2:].max(0)], 1)
        size_T2 = hull_T4[:, 2:] - hull_T4[:, :2]
        hull_T4 += margin * np.concatenate([-size_T2, size_T2], 1)
        for t, box_4 in enumerate(hull_T4, first):
            per_frame[t].append(box_4)
    return [np.array(boxes).reshape(-1, 4) for boxes in per_frame]


def _hull(boxes_T4: np.ndarray, box_4: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(boxes_T4[:, :2], box_4[:2]), np.maximum(boxes_T4[:, 2:], box_4[2:])], 1)
