"""Training windows from a clip dataset: which sources are held out, and every window's frames, actions and caption.

Axis legend: T frames, H height, W width, C = 3 (RGB), A action numbers, N windows.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import ConfigError, DataError
from worldfoundry.core.progress import say
from worldfoundry.data.clips import ClipDataset, ClipRecord, split_records
from worldfoundry.data.resize import fit, pad_to
from worldfoundry.nn.rope import BASE_FPS
from worldfoundry.recipes.config import WindowConfig


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window of a clip. `frames` are uint8 [T, H, W, 3]; `actions` float32 [T, A] or None."""

    record: ClipRecord
    start: int
    frames: np.ndarray
    actions: np.ndarray | None
    mirrored: bool = False

    @property
    def name(self) -> str:
        return f"{self.record.key}-{self.start:05d}{'m' if self.mirrored else ''}"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Records for training and records that no training sees (other sources), long enough for a window."""

    train: list[ClipRecord]
    held_out: list[ClipRecord]
    skipped: int


def split(dataset: ClipDataset, config: WindowConfig, *, need_actions: bool = False) -> Split:
    """Leave out clips that are shorter than a window or lack needed actions, and hold sources out.

    Held-out sources are chosen among those with actions (among all, if fewer than two have any) whether or not actions
    are needed: a tokenizer and a world model trained with one window config then hold out the same ones, and the world
    model is not measured on footage that its tokenizer was trained on.
    Raises DataError if nothing long enough is left, or all of it comes from one source.
    """
    long = [r for r in dataset.records if r.num_frames >= config.num_frames]
    acting = [r for r in long if r.has_actions]
    usable = acting if need_actions else long
    if not usable:
        longest = max((r.num_frames for r in dataset.records), default=0)
        raise DataError(
            f"None of the {len(dataset.records)} clips has {config.num_frames} frames (the longest has {longest})"
            + (" and actions." if need_actions else "."),
            "Lower --window.num-frames, or curate longer videos.",
        )
    pool = acting if len({r.source_id for r in acting}) > 1 else long
    chosen = {r.source_id for r in split_records(pool, config.held_out_fraction, config.split_seed)[1]}
    train = [r for r in usable if r.source_id not in chosen]
    held_out = [r for r in usable if r.source_id in chosen]
    if not train or not held_out:
        raise DataError(
            f"All {len(usable)} usable clips come from one source, {usable[0].source_id!r}; nothing is left to measure on.",
            "Curate at least two videos: one of them is held out from training.",
        )
    return Split(train=train, held_out=held_out, skipped=len(dataset.records) - len(usable))


def frame_rates(parts: Split) -> list[float]:
    """Rates of the training clips, the commonest (the world's default) first; images have none and count as 24, as in RoPE."""
    rates = Counter(round(record.fps, 3) or BASE_FPS for record in parts.train)
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        say(f"clips have different frame rates ({listed}); each is told to the model, and most have the one taken by default")
    return sorted(rates, key=lambda rate: (-rates[rate], rate))


def check_window(config: WindowConfig, spec: TokenizerSpec) -> None:
    """Raises ConfigError for a window that a tokenizer cannot take whole."""
    wanted = [
        ("num_frames", config.num_frames, spec.round_up_frames(config.num_frames), f"1 + {spec.t}·k"),
        ("height", config.height, -(-config.height // spec.h) * spec.h, f"a multiple of {spec.h}"),
        ("width", config.width, -(-config.width // spec.w) * spec.w, f"a multiple of {spec.w}"),
    ]
    for name, asked, fits, rule in wanted:
        if asked != fits:
            raise ConfigError(
                f"window.{name}: must be {rule} for this tokenizer (got {asked!r}).", f"The next that fits is {fits}."
            )


def iter_windows(
    dataset: ClipDataset, records: list[ClipRecord], config: WindowConfig, *, padded: bool = False
) -> Iterator[list[Window]]:
    """The windows of one clip after another, `stride` frames apart, with mirrored copies where the config allows them.

    `padded` keeps the whole picture and pads it, instead of cropping at the centre.
    """
    for record in records:
        frames = (pad_to if padded else fit)(dataset.video(record), config.height, config.width)
        actions = dataset.actions(record)
        starts = range(0, len(frames) - config.num_frames + 1, config.stride)
        windows = [cut(record, frames, actions, start, config.num_frames) for start in starts]
        if config.mirror_action is not None and actions is not None:
            windows += [mirror(window, config.mirror_action) for window in windows]
        yield windows


def spread_windows(dataset: ClipDataset, records: list[ClipRecord], config: WindowConfig, count: int) -> list[Window]:
    """`count` windows spread evenly over clips and over each clip's length (for evaluation; never mirrored).

    Only the chosen windows are decoded. Fewer than `count` come back if the clips hold fewer different ones.
    """
    per_clip = -(-count // len(records))
    places = [
        (record, start) for record in records for start in _spread_starts(record.num_frames - config.num_frames, per_clip)
    ]
    keep = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return [_decode(dataset, record, start, config) for record, start in (places[i] for i in keep)]


def _spread_starts(last: int, count: int) -> list[int]:
    """Up to `count` different first frames from 0 to `last`; the middle for one."""
    return sorted({round(start) for start in np.linspace(0, last, count)}) if count > 1 else [last // 2]


def _decode(dataset: ClipDataset, record: ClipRecord, start: int, config: WindowConfig) -> Window:
    frames = fit(dataset.video(record, start, config.num_frames), config.height, config.width)
    actions = dataset.actions(record)
    span = slice(start, start + config.num_frames)
    return Window(record=record, start=start, frames=frames, actions=None if actions is None else actions[span])


def cut(record: ClipRecord, frames: np.ndarray, actions: np.ndarray | None, start: int, num_frames: int) -> Window:
    """One window of decoded frames."""
    span = slice(start, start + num_frames)
    return Window(record=record, start=start, frames=frames[span], actions=None if actions is None else actions[span])


def mirror(window: Window, factors: tuple[float, ...]) -> Window:
    """The left-right mirrored window, its actions multiplied by `factors`."""
    if window.actions is None or window.actions.shape[1] != len(factors):
        raise DataError(f"mirror_action has {len(factors)} factors, which does not fit the actions of {window.name!r}.")
    actions = window.actions * np.asarray(factors, np.float32)
    return Window(record=window.record, start=window.start, frames=window.frames[:, :, ::-1], actions=actions, mirrored=True)
