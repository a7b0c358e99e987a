"""Thumbnails as data URIs, within a budget: a page that embeds every clip's could not be opened.

Kept clips have six thumbnails of 72 pixels height from their encoding. Of the others only the small pictures are stored that
shots were found in; six of these, stretched to the clip's own aspect, still tell what it shows, and cost no decoding.

Axis legend: H = 18 and W = 32, C = 3 (RGB).
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from worldfoundry.curation.encode import STRIP_FRAMES
from worldfoundry.curation.rows import Row
from worldfoundry.curation.store import Store


class Stored(Protocol):
    """What is committed for a source."""

    @property
    def columns(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A row of thumbnails: a data URI, and width over height as it is to be shown."""

    uri: str
    aspect: float


class Pictures:
    """Hands out thumbnails until `most_bytes` are spent; then None."""

    def __init__(self, store: Store, runs: Mapping[str, Stored], most_bytes: int) -> None:
        self.store, self.runs, self.left = store, runs, most_bytes

    def __call__(self, clip: Row) -> Picture | None:
        """The thumbnails of a clip; None if there are none, or no room for them."""
        path = self.store.strip(clip["source_id"], clip["clip_id"])
        frames = min(STRIP_FRAMES, max(1, clip["num_frames"]))
        content = path.read_bytes() if path.is_file() else small_strip(self.runs.get(clip["source_id"]), clip["clip_id"])
        if content is None or len(content) > self.left:
            return None
        self.left -= len(content)
        aspect = frames * clip["source_width"] / max(1, clip["source_height"])
        return Picture(uri=f"data:image/webp;base64,{base64.b64encode(content).decode()}", aspect=round(aspect, 3))


def small_strip(run: Stored | None, clip_id: str) -> bytes | None:
    """Up to six stored pictures of a planned clip side by side, as WebP; None for an image, or a source that was not watched."""
    if run is None or run.columns.get("pictures_THWC") is None:
        return None
    plan = next((plan for plan in run.columns["plans"] if plan.clip_id == clip_id), None)
    if plan is None:
        return None
    count = min(STRIP_FRAMES, plan.last - plan.first)
    shown = np.linspace(plan.first, plan.last - 1, count).round().astype(int)
    turns = run.columns["info"].rotation // 90 % 4
    row_HWC = np.concatenate([np.rot90(picture_HWC, turns) for picture_HWC in run.columns["pictures_THWC"][shown]], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(row_HWC)).save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
