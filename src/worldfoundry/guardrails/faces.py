"""Faces are pixelated: found in some frames, followed through all of them, and made into 5 x 5 blocks (arXiv 2501.03575, section 7.2).

Axis legend: T frames, H height, W width, C = 3 (RGB); N boxes (left, top, right, bottom) in pixels.

As in Cosmos a face counts from a confidence of 0.7 and from 20 x 20 pixels. The default detector is MTCNN, whose weights come with
the package; Cosmos' RetinaFace is used where the policy names its weights. Frames are copied, never changed in place.
Frames with a longer side than `max_side` are searched at that size, so the smallest face found grows with them; the evidence says
which size was searched for, and which frames were looked at.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict, VideoItem
from worldfoundry.core.model_store import file_sha256
from worldfoundry.guardrails.face_tracks import Track, boxes_per_frame, follow
from worldfoundry.guardrails.frames import unreadable

PIXELS = 2_000_000  # of frames searched at once: what fits into memory beside the networks


class FacesConfig(Config):
    """Options of face pixelation."""

    confidence: float = Field(default=0.7, gt=0, lt=1)
    """How sure the detector must be at least once of a face; Cosmos' value."""
    keep: float = Field(default=0.3, gt=0, lt=1)
    """How sure it must be to go on seeing a face; at most `confidence` counts."""
    min_px: int = Field(default=20, ge=8)
    """Faces narrower or lower than this many pixels are left; Cosmos' value."""
    stride: int = Field(default=4, ge=1)
    """Every which frame is searched; the others are filled in by following the faces."""
    max_gap: int = Field(default=12, ge=1)
    """Frames for which a face may go unseen and still be followed."""
    reach: int = Field(default=4, ge=0)
    """Frames before and after its sightings for which a face stays hidden; at least `stride` leaves no frame open."""
    margin: float = Field(default=0.1, ge=0, le=1)
    """How much wider on each side than the detector's box, in boxes."""
    blocks: int = Field(default=5, ge=1)
    """Blocks along each side of a hidden face."""
    max_side: int = Field(default=1280, ge=64)
    """Frames are searched with at most this longer side."""
    retinaface: Path | None = None
    """Resnet50_Final.pth (or the same tensors as safetensors): RetinaFace searches instead of MTCNN."""


class FaceFilter:
    """`apply(VideoItem) -> (frames, Verdict)`; a `FrameTransform`."""

    name = "faces"

    def __init__(self, config: FacesConfig) -> None:
        self.config = config
        self.reach = max(config.reach, config.stride)  # frames that a stream holds back
        if config.retinaface is not None:
            from worldfoundry.perception.retinaface import load_retinaface

            self.detector, self.weights = load_retinaface(config.retinaface), file_sha256(config.retinaface)[:16]
        else:
            from worldfoundry.perception.mtcnn import SHA256, load_mtcnn

            self.detector, self.weights = load_mtcnn(), SHA256[:16]

    def apply(self, item: VideoItem) -> tuple[np.ndarray, Verdict]:
        """New frames with every face in blocks, and what was found where; `error` for what is no uint8 THWC video."""
        if problem := unreadable(item):
            evidence = {"fix": "Pass decoded uint8 frames and their rate."}
            shown: Any = getattr(item, "frames", item)
            return shown, Verdict(status="error", guard=self.name, reason=problem, evidence=evidence)
        config, frames = self.config, item.frames
        seen = self._search(frames)
        tracks = [track for track in follow(seen, config.max_gap) if self._counts(track)]
        boxes = [
            whole(found_N4, *frames.shape[1:3])
            for found_N4 in boxes_per_frame(tracks, len(frames), config.reach, config.margin)
        ]
        hidden = {t: found_N4.tolist() for t, found_N4 in enumerate(boxes) if len(found_N4)}
        out = frames.copy() if hidden else frames
        for t in hidden:
            out[t] = pixelate(frames[t], boxes[t], config.blocks)
        evidence: dict[str, Any] = {
            "frames": len(frames),
            "frames_searched": len(seen),
            "faces": len(tracks),
            "smallest_px": math.ceil(config.min_px * self._shrink(frames)),
            "boxes": {str(t): found for t, found in hidden.items()},
            "weights": self.weights,
        }
        faces = f"{len(tracks)} face{'s' * (len(tracks) > 1)}"
        reason = f"{faces} hidden in {len(hidden)} of {len(frames)} frames" if hidden else "no face found"
        reason += f"; {len(seen)} frames searched"
        return out, Verdict(status="safe", guard=self.name, category="faces", reason=reason, evidence=evidence)

    def _search(self, frames: np.ndarray) -> dict[int, np.ndarray]:
        """Boxes and scores (N, 5) of what was seen in every `stride`th frame and in the last."""
        chosen = sorted({*range(0, len(frames), self.config.stride), len(frames) - 1})
        shrink = self._shrink(frames)
        size = tuple(max(1, round(side / shrink)) for side in frames.shape[1:3])
        batch, seen = max(1, PIXELS // (size[0] * size[1])), {}
        for start in range(0, len(chosen), batch):
            part = chosen[start : start + batch]
            small = frames[part] if shrink == 1 else _resized(frames[part], size)
            # A face of just the least size must not flicker in and out of being found: seek somewhat smaller ones.
            faces = self.detector(
                small, min_face=0.8 * self.config.min_px, confidence=min(self.config.keep, self.config.confidence)
            )
            for i, t in enumerate(part):
                seen[t] = faces.of(i) * [shrink, shrink, shrink, shrink, 1]
        return seen

    def _shrink(self, frames: np.ndarray) -> float:
        return max(1.0, max(frames.shape[1:3]) / self.config.max_side)

    def _counts(self, track: Track) -> bool:
        """Whether the detector was sure of a face once, and it was large enough once."""
        boxes_N4 = np.array(track.boxes)
        large = (boxes_N4[:, 2:] - boxes_N4[:, :2] >= self.config.min_px).all(1).any()
        return bool(large and max(track.scores) >= self.config.confidence)


def whole(boxes_N4: np.ndarray, height: int, width: int) -> np.ndarray:
    """The smallest whole-pixel boxes around the given, cut to the frame; those outside of it are dropped. int (n, 4)."""
    corners = np.concatenate([np.floor(boxes_N4[:, :2]), np.ceil(boxes_N4[:, 2:])], 1)
    cut_N4 = corners.clip(0, [width, height, width, height]).astype(int)
    return cut_N4[(cut_N4[:, 2:] > cut_N4[:, :2]).all(1)]


def pixelate(frame_HWC: np.ndarray, boxes_N4: np.ndarray, blocks: int) -> np.ndarray:
    """A copy of the frame in which each box is `blocks` x `blocks` patches of one colour, the mean of the original there."""
    out = frame_HWC.copy()
    for left, top, right, bottom in boxes_N4:
        region = frame_HWC[top:bottom, left:right].astype(np.float64)
        for axis in (0, 1):
            size = region.shape[axis]
            edges = np.linspace(0, size, min(blocks, size) + 1).round().astype(int)
            sums = np.add.reduceat(region, edges[:-1], axis=axis)
            shape = [-1 if i == axis else 1 for i in range(3)]
            region = np.repeat(sums / np.diff(edges).reshape(shape), np.diff(edges), axis=axis)
        out[top:bottom, left:right] = region.round().astype(np.uint8)
    return out


def _resized(frames: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    import torch
    import torch.nn.functional as F

    x_BCHW = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2)
    return F.interpolate(x_BCHW, size=size, mode="area").round().byte().permute(0, 2, 3, 1).numpy()
