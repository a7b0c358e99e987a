"""The frame guard that needs no download: flashing that can cause seizures in people with photosensitive epilepsy.

Axis legend: T frames, H height, W width, C = 3; G cells of a grid over the frame.

Definition (WCAG 2.2, success criterion 2.3.1 and its term "general flash and red flash thresholds"): no more than three
general flashes and no more than three red flashes within any one second, unless the flashing area is small.
- A general flash is a pair of opposing changes in relative luminance of 10 % or more of the maximum (1.0), where the darker
  image is below 0.80.
- A red flash is a pair of opposing changes to or from a saturated red, R / (R + G + B) >= 0.8 in linear light, of more than
  0.2 in the CIE 1976 UCS chromaticity diagram.
- Three flashes are six changes between neighbouring peaks and valleys, so the seventh within one second fails.

What is simplified here:
- Area is counted over the frame (25 %), as if the frame filled the viewer's 10 degrees of central vision.
- Light is averaged over a grid of at most 16 x 16 cells (frames above 512 pixels are sampled), which leaves out the fine
  balanced patterns that the definition excepts; a cell darker than 1 % has no hue.
- A change counts where at least that area changes in the same direction within a twentieth of a second ("concurrently"),
  and each cell counts its own changes. Things that move through the picture brighten and darken cells one after another,
  which is no flash; flashes that wander over the screen in parts smaller than the area are not found.
- Spatial patterns (stripes) are another hazard, and not looked for.
Every frame is checked. This guard says nothing about what a video shows.
"""

import math
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict, VideoItem
from worldfoundry.guardrails.frames import unreadable

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=np.float32)
GRID, SAMPLES = 16, 512


class FlashConfig(Config):
    """Options of the flash guard; the defaults are the definition's."""

    max_flashes_per_s: int = Field(default=3, ge=0)
    """Flashes that any one second may hold."""
    area: float = Field(default=0.25, gt=0, le=1)
    """Share of the frame that must flash for it to count."""


class FlashGuard:
    """`check(VideoItem) -> Verdict`; a `Guard` for video."""

    name = "flash"
    takes: Literal["video"] = "video"

    def __init__(self, config: FlashConfig) -> None:
        self.config = config

    def check(self, item: VideoItem) -> Verdict:
        """`unsafe` for too much flashing, `error` for anything that is not uint8 THWC frames with a known rate, else `safe`."""
        problem = unreadable(item)
        if problem:
            return Verdict(
                status="error", guard=self.name, reason=problem, evidence={"fix": "Pass decoded uint8 frames and their rate."}
            )
        count = len(item.frames)
        rise, fall, to_red, from_red = changes(item.frames)
        worst = max(
            (self._worst((rise, fall), item.fps, "general"), self._worst((to_red, from_red), item.fps, "red")),
            key=lambda second: second["area"],
        )
        evidence = {"frames_checked": count, "frames": count, **worst}
        if worst["area"] < self.config.area:
            return Verdict(status="safe", guard=self.name, reason=f"all {count} frames checked", evidence=evidence)
        limit = self.config.max_flashes_per_s
        reason = f"more than {limit} {worst['kind']} flashes in one second over {worst['area']:.0%} of the frame"
        reason += f", up to frame {worst['frame']}"
        return Verdict(status="unsafe", guard=self.name, category="photosensitive", reason=reason, evidence=evidence)

    def _worst(self, directions: tuple[np.ndarray, np.ndarray], fps: float, kind: str) -> dict[str, Any]:
        """The second in which the largest share of cells changes too often, by its last frame."""
        one, other = (concurrent(changed_TG, fps, self.config.area) for changed_TG in directions)
        total_TG = np.cumsum(one | other, axis=0, dtype=np.int32)
        window, recent_TG = max(1, math.ceil(fps)), total_TG.copy()
        recent_TG[window:] -= total_TG[:-window]
        area_T = (recent_TG > 2 * self.config.max_flashes_per_s).mean(axis=1)
        frame = int(area_T.argmax())
        return {"kind": kind, "area": round(float(area_T[frame]), 4), "frame": frame, "max_changes": int(recent_TG.max())}


def changes(frames: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where each cell completes a rise, a fall, a change to saturated red, one from it: four boolean arrays (T, G)."""
    cells = [_cells(frame) for frame in frames]
    light, hue = _LightState(len(cells[0])), _RedState(cells[0])
    steps = [(*light.step(rgb_GC @ LUMINANCE), *hue.step(rgb_GC)) for rgb_GC in cells]
    return tuple(np.stack(kind) for kind in zip(*steps, strict=True))


def concurrent(changed_TG: np.ndarray, fps: float, area: float) -> np.ndarray:
    """Only those changes that happen within a twentieth of a second of the same change in at least `area` of the cells."""
    reach = max(0, round(fps / 20))
    near_TG = changed_TG.copy()
    for shift in range(1, min(reach, len(changed_TG) - 1) + 1):
        near_TG[shift:] |= changed_TG[:-shift]
        near_TG[:-shift] |= changed_TG[shift:]
    return changed_TG & (near_TG.mean(axis=1) >= area)[:, None]


def _cells(frame: np.ndarray) -> np.ndarray:
    """Mean linear light of each cell of the grid, (G, 3), in [0, 1]."""
    stride = max(1, min(frame.shape[:2]) // SAMPLES)
    linear = _srgb_to_linear()[frame[::stride, ::stride]]
    for axis in (0, 1):
        edges = np.linspace(0, linear.shape[axis], min(GRID, linear.shape[axis]) + 1).astype(int)
        shape = [-1 if i == axis else 1 for i in range(3)]
        linear = np.add.reduceat(linear, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
    return linear.reshape(-1, 3).astype(np.float32)


@cache
def _srgb_to_linear() -> np.ndarray:
    """Relative luminance of the 256 sRGB levels (WCAG's "relative luminance")."""
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4).astype(np.float32)


class _LightState:
    """Follows the luminance of each cell from valley to peak to valley; `step` says which cells rose and which fell."""

    def __init__(self, cells: int) -> None:
        self.low, self.high = np.full(cells, np.inf), np.full(cells, -np.inf)
        self.rising, self.falling = np.zeros(cells, bool), np.zeros(cells, bool)

    def step(self, y_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.low, self.high = np.minimum(self.low, y_G), np.maximum(self.high, y_G)
        rise = ~self.rising & (y_G - self.low >= 0.1 - 1e-6) & (self.low < 0.8)
        fall = ~self.falling & (self.high - y_G >= 0.1 - 1e-6) & (y_G < 0.8)
        self.high, self.low = np.where(rise, y_G, self.high), np.where(fall, y_G, self.low)
        self.rising, self.falling = (self.rising & ~fall) | rise, (self.falling & ~rise) | fall
        return rise, fall


class _RedState:
    """Follows the chromaticity of each cell; `step` says which cells went to saturated red and which came from it."""

    def __init__(self, rgb_GC: np.ndarray) -> None:
        self.uv, self.red = _chromaticity(rgb_GC)

    def step(self, rgb_GC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        uv, red = _chromaticity(rgb_GC)
        changed = (red != self.red) & (np.linalg.norm(uv - self.uv, axis=-1) > 0.2)
        follow = changed | (red == self.red)
        self.uv, self.red = np.where(follow[:, None], uv, self.uv), np.where(follow, red, self.red)
        return changed & red, changed & ~red


def _chromaticity(rgb_GC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(u', v') of CIE 1976 and whether the cell is a saturated red; cells without light count as grey."""
    dark = rgb_GC.sum(-1, keepdims=True) < 0.03
    rgb_GC = np.where(dark, np.float32(0.5), rgb_GC)
    x, y, z = np.moveaxis(rgb_GC @ XYZ.T, -1, 0)
    uv = np.stack((4 * x, 9 * y), axis=-1) / (x + 15 * y + 3 * z)[:, None]
    return uv, rgb_GC[:, 0] >= 0.8 * rgb_GC.sum(-1)
