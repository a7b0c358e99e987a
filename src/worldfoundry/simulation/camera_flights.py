"""How a camera moves through a place: smooth, upright, and never through anything.

A flight is drawn at random and kept if it stays clear of every obstacle. Axis legend: T frames.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldfoundry.simulation.camera_places import Place

CLEARANCE = 0.3  # metres between the camera and anything
Path = tuple[np.ndarray, np.ndarray]  # positions (T, 3) and what is looked at (T, 3)


@dataclass(frozen=True, kw_only=True)
class Flight:
    """position_T3 and target_T3 in metres."""

    style: str
    position_T3: np.ndarray
    target_T3: np.ndarray


def ease(frames: int, rng: np.random.Generator) -> np.ndarray:
    """0 … 1 over the frames, starting and ending more or less softly."""
    t = np.linspace(0, 1, frames)
    softness = rng.uniform(0, 0.8)
    return (1 - softness) * t + softness * (3 * t**2 - 2 * t**3)


def somewhere(place: Place, rng: np.random.Generator) -> np.ndarray:
    x, y = place.half
    return np.array([rng.uniform(-x, x), rng.uniform(-y, y), rng.uniform(*place.heights)])


def orbit(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    focus = np.array(place.focus)
    start = somewhere(place, rng)
    arm = start[:2] - focus[:2]
    angle = math.atan2(arm[1], arm[0]) + rng.choice([-1, 1]) * rng.uniform(0.6, 2.0) * s
    radius = np.linalg.norm(arm) * (1 + rng.uniform(-0.15, 0.15) * s)
    height = start[2] + rng.uniform(-0.4, 0.4) * s
    position = np.stack([focus[0] + radius * np.cos(angle), focus[1] + radius * np.sin(angle), height], axis=1)
    return position, np.tile(focus, (len(s), 1))


def forward(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    start, end = somewhere(place, rng), somewhere(place, rng)
    end[2] = start[2] + np.clip(end[2] - start[2], -0.4, 0.4)
    position = start + (end - start) * s[:, None]
    ahead = (end - start) / max(np.linalg.norm(end - start), 1e-6)
    down = np.array([0, 0, -rng.uniform(0, 0.25)])
    return position, position + ahead + down


def backward(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    position, target = forward(place, rng, s)
    return position[::-1], target[::-1]


def sideways(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    start, end = somewhere(place, rng), somewhere(place, rng)
    end[2] = start[2]
    position = start + (end - start) * s[:, None]
    across = np.cross(end - start, [0, 0, 1.0])
    across /= max(np.linalg.norm(across), 1e-6)
    if across @ (np.array(place.focus) - start) < 0:
        across = -across
    return position, position + across + [0, 0, -rng.uniform(0, 0.25)]


def rise(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    start = somewhere(place, rng)
    low, high = place.heights
    heights = np.array([low, high] if rng.random() < 0.7 else [high, low])
    position = np.tile(start, (len(s), 1))
    position[:, 2] = heights[0] + (heights[1] - heights[0]) * s
    return position, np.tile(np.array(place.focus), (len(s), 1))


def turn(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    start = somewhere(place, rng)
    to_focus = math.atan2(place.focus[1] - start[1], place.focus[0] - start[0])
    sweep = rng.choice([-1, 1]) * rng.uniform(0.8, 1.8)
    angle = to_focus + sweep * (s - 0.5)
    look = np.stack([np.cos(angle), np.sin(angle), np.full_like(angle, -rng.uniform(0, 0.25))], axis=1)
    return np.tile(start, (len(s), 1)), start + look


def winding(place: Place, rng: np.random.Generator, s: np.ndarray) -> Path:
    """Through four points on a Bézier curve, looking ahead."""
    a, b, c, d = (somewhere(place, rng) for _ in range(4))
    t = s[:, None]
    position = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    ahead = 3 * (1 - t) ** 2 * (b - a) + 6 * (1 - t) * t * (c - b) + 3 * t**2 * (d - c)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-6)
    ahead[:, 2] = np.clip(ahead[:, 2], -0.35, 0.2)
    return position, position + ahead


STYLES: dict[str, Callable[[Place, np.random.Generator, np.ndarray], Path]] = {
    "orbit": orbit,
    "forward": forward,
    "backward": backward,
    "sideways": sideways,
    "rise": rise,
    "turn": turn,
    "winding": winding,
}


def clear(place: Place, position_T3: np.ndarray) -> bool:
    """Whether every point is inside the place and away from every obstacle."""
    inside = (np.abs(position_T3[:, :2]) <= place.half).all()
    low, high = place.heights
    inside &= bool((position_T3[:, 2] >= low - 0.3).all() and (position_T3[:, 2] <= high + 0.15).all())
    for o in place.obstacles:
        near = np.hypot(position_T3[:, 0] - o.x, position_T3[:, 1] - o.y) < o.radius + CLEARANCE
        if (near & (position_T3[:, 2] < o.top + CLEARANCE)).any():
            return False
    return bool(inside)


def smooth(path: Path) -> bool:
    """Whether the view turns by less than eight degrees a frame, and never looks straight down or at little but ceiling or sky."""
    look = path[1] - path[0]
    look = look / np.linalg.norm(look, axis=1, keepdims=True)
    step = np.degrees(np.arccos(np.clip((look[1:] * look[:-1]).sum(1), -1, 1)))
    return bool((step < 8).all() and (look[:, 2] > -0.85).all() and (look[:, 2] < 0.3).all())


def open_view(place: Place, path: Path) -> bool:
    """Whether the camera always has at least 1.6 m between itself and the border that it looks at."""
    look = path[1] - path[0]
    look = look / np.linalg.norm(look, axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        reach = (np.array(place.half) - np.sign(look[:, :2]) * path[0][:, :2]) / np.abs(look[:, :2])
    return bool((reach.min(axis=1) > 1.6).all())


def draw_flight(place: Place, rng: np.random.Generator, frames: int, fps: float) -> Flight:
    """A random flight of one style that stays clear, at no more than 1.5 m/s in rooms and somewhat faster outdoors."""
    duration_s = frames / fps
    limit = 0.5 * max(place.half)
    for style in rng.permutation(list(STYLES)):
        for _ in range(100):
            path = STYLES[style](place, rng, ease(frames, rng))
            length = np.linalg.norm(np.diff(path[0], axis=0), axis=1).sum()
            enough = style == "turn" or length > min(0.3 * duration_s, 0.8)
            if enough and length <= limit * duration_s and clear(place, path[0]) and smooth(path) and open_view(place, path):
                return Flight(style=str(style), position_T3=path[0], target_T3=path[1])
    return stay(place, frames)


def stay(place: Place, frames: int) -> Flight:
    """Where nothing else is possible: stand high in a corner and look at the middle, moving by a hand's breadth."""
    s = np.linspace(0, 1, frames)[:, None]
    corner = np.array([place.half[0], place.half[1], place.heights[1]])
    position = corner - s * [0.15, 0.15, 0.0]
    target = np.tile(np.array(place.focus), (frames, 1))
    return Flight(style="corner", position_T3=position, target_T3=target)
