"""Training windows: which frames of which clip come next, in an order that can be saved and restored exactly.

Axis legend: B batch, T frames, H height, W width, C = 3 (RGB), A action numbers.

Batch k of epoch e is a function of (seed, e, k) alone. In an epoch every clip gives one window at a random place;
clips of one bucket (resolution, aspect, length, kind of actions) share a batch, and the batches come in random order. A
bucket's last batch is filled up with further windows of its clips.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from worldfoundry.core.config import stable_hash
from worldfoundry.core.errors import DataError
from worldfoundry.core.progress import say
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.data.resize import fit


class WindowSampler:
    """An endless iterator of batches: `video` uint8 BTHWC, `fps` float32 [B], `caption`, `key`, `start`, `actions` [B, T, A].

    Frames come to `size` = (height, width) by `resize`: scaled until they cover it and cropped at the centre, unless told
    otherwise. `actions` is present if the clips of the batch have them. Clips shorter than `num_frames` are left out and
    counted in `skipped`; decoded clips are kept in memory if all of them fit in `cache_mb`.
    Raises DataError if no clip is long enough.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        records: Sequence[ClipRecord],
        *,
        num_frames: int,
        size: tuple[int, int],
        batch_size: int,
        seed: int,
        cache_mb: float = 1024.0,
        resize: Callable[[np.ndarray, int, int], np.ndarray] = fit,
    ) -> None:
        self.dataset, self.num_frames, self.size, self.batch_size, self.seed = dataset, num_frames, size, batch_size, seed
        self.resize = resize
        self.records = [record for record in records if record.num_frames >= num_frames]
        self.skipped = len(records) - len(self.records)
        if not self.records:
            longest = max((record.num_frames for record in records), default=0)
            raise DataError(
                f"None of {len(records)} clips has {num_frames} frames; the longest has {longest}.",
                "Ask for fewer frames, or curate longer clips (--min-s).",
            )
        if self.skipped:
            say(f"{self.skipped} of {len(records)} clips are shorter than {num_frames} frames and are left out")
        total = sum(record.num_frames for record in self.records) * size[0] * size[1] * 3
        self._cache: dict[str, np.ndarray] | None = {} if total <= cache_mb * 1e6 else None
        self._epoch, self._batch = 0, 0
        self._plan = self._epoch_plan(0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._batch == len(self._plan):
            self._epoch, self._batch = self._epoch + 1, 0
            self._plan = self._epoch_plan(self._epoch)
        windows = self._plan[self._batch]
        self._batch += 1
        return self._load(windows)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._plan)

    def state_dict(self) -> dict[str, Any]:
        """The exact position: JSON-able."""
        return {"identity": self._identity(), "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises DataError if it belongs to other clips or settings."""
        if state["identity"] != self._identity():
            raise DataError(
                "The saved position belongs to other clips or other window settings.",
                "Resume with the same data and configuration, or start a new run.",
            )
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._plan = self._epoch_plan(self._epoch)

    def _identity(self) -> str:
        settings = [self.num_frames, list(self.size), self.batch_size, self.seed]
        return stable_hash([settings, [[record.key, record.num_frames] for record in self.records]])

    def _epoch_plan(self, epoch: int) -> list[list[tuple[ClipRecord, int]]]:
        """Batches of (clip, first frame)."""
        random = np.random.default_rng([self.seed, epoch])
        buckets: dict[tuple[Any, ...], list[ClipRecord]] = defaultdict(list)
        for record in self.records:
            buckets[record.bucket, record.has_actions, record.action_names].append(record)
        batches = []
        for name in sorted(buckets):
            clips = buckets[name]
            count = -(-len(clips) // self.batch_size) * self.batch_size
            order = [int(i) for _ in range(-(-count // len(clips))) for i in random.permutation(len(clips))][:count]
            windows = [(clips[i], int(random.integers(clips[i].num_frames - self.num_frames + 1))) for i in order]
            batches += [windows[i : i + self.batch_size] for i in range(0, count, self.batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]

    def _load(self, windows: list[tuple[ClipRecord, int]]) -> dict[str, Any]:
        batch: dict[str, Any] = {
            "video": np.stack([self._frames(record, start) for record, start in windows]),
            "fps": np.array([record.fps for record, _ in windows], dtype=np.float32),
            "caption": [record.caption for record, _ in windows],
            "key": [record.key for record, _ in windows],
            "start": np.array([start for _, start in windows]),
        }
        if windows[0][0].has_actions:
            batch["actions"] = np.stack([self._actions(record, start) for record, start in windows])
        return batch

    def _frames(self, record: ClipRecord, start: int) -> np.ndarray:
        if self._cache is None:
            return self.resize(self.dataset.video(record, start, self.num_frames), *self.size)
        if record.key not in self._cache:
            self._cache[record.key] = self.resize(self.dataset.video(record), *self.size)
        return self._cache[record.key][start : start + self.num_frames]

    def _actions(self, record: ClipRecord, start: int) -> np.ndarray:
        actions_TA = self.dataset.actions(record)
        if actions_TA is None:
            raise DataError(f"The clip {record.key!r} has no actions.")
        return actions_TA[start : start + self.num_frames]
