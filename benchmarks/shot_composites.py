"""Composites of real clips with exactly known transitions, for measuring shot detectors.

`load_footage` reads a folder of clips, `split_clips` divides the clips into tuning and held-out, `compose` joins pieces of them
by cuts, dissolves, fades (through black or white) and wipes, and puts into some pieces what detectors take for a
transition: flashes, whip pans and hard shakes of the camera. `write_composite` encodes one as H.264, with its own pts.

Everything follows from the seed. Two neighbouring pieces are never of the same clip. A quarter of the composites have a
variable frame rate: up to a fifth of their frames are left out, the others keep their times.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

FPS, TICKS = 24, 24000
TRANSITIONS = {"cut": 0.4, "dissolve": 0.3, "fade": 0.15, "wipe": 0.15}
DECOYS = ("flash", "whip pan", "shake")
DECOY_SHARE = 0.4  # of the pieces that are long enough
WIPES = ("left", "right", "up", "down", "diagonal", "iris")
LEAST_BODY = 22  # frames of a piece between its transitions


@dataclass(frozen=True, kw_only=True)
class Event:
    """Frames [start, end) that belong to neither piece (a cut has start == end), or of a decoy; `how` tells its variety."""

    kind: str
    start: int
    end: int
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class Composite:
    """uint8 `frames_THWC`, each shown from `pts_T` / TICKS seconds on; `transitions` and `decoys` in order."""

    frames_THWC: np.ndarray
    pts_T: np.ndarray
    transitions: tuple[Event, ...]
    decoys: tuple[Event, ...]
    clips: tuple[str, ...]
    seed: int

    @property
    def variable_rate(self) -> bool:
        return len(np.unique(np.diff(self.pts_T))) > 1


Footage = dict[str, list[np.ndarray]]


def load_footage(folder: Path, height: int, width: int, *, spans: Path | None = None, least: int = 40) -> Footage:
    """The usable takes (uint8 THWC) of every .mp4 of a folder, cropped in the middle to the shape wanted and scaled.

    `spans` is a JSON file of frame spans by file name, for clips that hold transitions of their own: {"a.mp4": [[0, 90]]}.
    Takes shorter than `least` frames are left out.
    """
    usable = json.loads(spans.read_text(encoding="utf-8")) if spans else {}
    footage: Footage = {}
    for path in sorted(folder.glob("*.mp4")):
        takes = usable.get(path.name, [[0, 1 << 30]])
        if not takes:
            continue
        frames_THWC = _read_clip(path, height, width, stop=max(end for _, end in takes))
        kept = [frames_THWC[start:end] for start, end in takes]
        footage[path.stem] = [take for take in kept if len(take) >= least]
    return {name: takes for name, takes in footage.items() if takes}


def _read_clip(path: Path, height: int, width: int, stop: int) -> np.ndarray:
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shrink = max(height / stream.height, width / stream.width)
        tall, wide = max(height, round(stream.height * shrink)), max(width, round(stream.width * shrink))
        top, left = (tall - height) // 2, (wide - width) // 2
        for frame in container.decode(stream):
            if len(frames) == stop:
                break
            picture = frame.reformat(width=wide, height=tall, format="rgb24", interpolation="AREA").to_ndarray()
            frames.append(picture[top : top + height, left : left + width])
    return np.stack(frames)


def split_clips(footage: Footage) -> tuple[Footage, Footage]:
    """(tuning, held-out): clips in the order of a hash of their names go to whichever half has fewer frames so far."""
    halves: tuple[Footage, Footage] = ({}, {})
    for name in sorted(footage, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        lengths = [sum(len(take) for takes in half.values() for take in takes) for half in halves]
        halves[int(lengths[1] < lengths[0])][name] = footage[name]
    return halves


def compose(footage: Footage, seed: int, num_transitions: int = 24) -> Composite:
    """One composite. Raises ValueError if fewer than two clips are given."""
    if len(footage) < 2:
        raise ValueError(f"compose wants takes of at least two clips, got {sorted(footage)!r}")
    random = np.random.default_rng([seed, 20260])
    pieces: list[np.ndarray] = []
    events: list[Event] = []
    decoys: list[Event] = []
    clips: list[str] = []
    bars = int(random.choice([0, 0, 0, 0, 0, 1])) * next(iter(footage.values()))[0].shape[1] // 8
    length, tail_THWC, joint = 0, None, None
    for index in range(num_transitions + 1):
        following = _draw_joint(random) if index < num_transitions else None
        head, tail = (joint[1] if joint else 0), (following[1] if following else 0)
        name, piece_THWC = _draw_piece(footage, random, head, tail, clips[-1] if clips else "")
        piece_THWC, decoy = _add_decoy(piece_THWC, random, head, tail)
        if bars:
            piece_THWC[:, :bars], piece_THWC[:, -bars:] = 0, 0
        if joint and tail_THWC is not None:
            middle_THWC = _join(tail_THWC, piece_THWC[:head], joint)
            events.append(Event(kind=joint[0], start=length, end=length + len(middle_THWC), how=joint[2]))
            pieces.append(middle_THWC)
            length += len(middle_THWC)
        if decoy:
            decoys.append(replace(decoy, start=decoy.start - head + length, end=decoy.end - head + length))
        body_THWC, tail_THWC = piece_THWC[head : len(piece_THWC) - tail], piece_THWC[len(piece_THWC) - tail :]
        pieces.append(body_THWC)
        clips.append(name)
        length += len(body_THWC)
        joint = following
    frames_THWC = np.concatenate(pieces)
    whole = Composite(
        frames_THWC=frames_THWC,
        pts_T=np.arange(len(frames_THWC)) * (TICKS // FPS),
        transitions=tuple(events),
        decoys=tuple(decoys),
        clips=tuple(clips),
        seed=seed,
    )
    return _drop_frames(whole, random) if seed % 4 == 3 else whole


Joint = tuple[str, int, str]  # kind, frames of each piece that it takes, variety


def _draw_joint(random: np.random.Generator) -> Joint:
    kind = str(random.choice(list(TRANSITIONS), p=list(TRANSITIONS.values())))
    if kind == "dissolve":
        return kind, int(random.integers(6, 33)), str(random.choice(["even", "even", "eased"]))
    if kind == "fade":
        return kind, int(random.integers(6, 19)), f"{random.choice(['black', 'black', 'white'])} {random.integers(0, 9)}"
    if kind == "wipe":
        return kind, int(random.integers(6, 25)), f"{random.choice(WIPES)} {random.choice([0.0, 0.03, 0.1])}"
    return kind, 0, ""


def _draw_piece(footage: Footage, random: np.random.Generator, head: int, tail: int, previous: str) -> tuple[str, np.ndarray]:
    """A stretch of a take of another clip than the previous, perhaps mirrored, cropped and graded (copied)."""
    need = head + tail + LEAST_BODY
    fitting = {name: [take for take in takes if len(take) >= need] for name, takes in footage.items() if name != previous}
    fitting = {name: takes for name, takes in fitting.items() if takes}
    if not fitting:
        raise ValueError(f"no take besides those of {previous!r} has the {need} frames that a piece needs")
    # Half of the pieces by clip, half by take: neither one long clip nor one with many short takes fills everything.
    names = list(fitting)
    weight = np.array([len(fitting[name]) for name in names], dtype=float) ** 0.5
    name = names[int(random.choice(len(names), p=weight / weight.sum()))]
    take_THWC = fitting[name][int(random.integers(len(fitting[name])))]
    length = int(min(len(take_THWC), random.integers(need, need + 50)))
    start = int(random.integers(len(take_THWC) - length + 1))
    piece_THWC = take_THWC[start : start + length]
    if random.random() < 0.5:
        piece_THWC = piece_THWC[:, :, ::-1]
    if random.random() < 0.5:
        piece_THWC = _crop(piece_THWC, *np.repeat([_draw_window(random, random.uniform(0.6, 0.95))], length, axis=0).T)
    if random.random() < 0.4:
        levels = 255 * (np.arange(256) / 255) ** random.uniform(0.7, 1.5) * random.uniform(0.7, 1.1)
        piece_THWC = np.clip(levels, 0, 255).astype(np.uint8)[piece_THWC]
    return name, np.array(piece_THWC)


def _draw_window(random: np.random.Generator, side: float) -> tuple[float, float, float]:
    """(left, top, side) of a window within the picture, all in parts of it."""
    return float(random.uniform(0, 1 - side)), float(random.uniform(0, 1 - side)), side


def _crop(frames_THWC: np.ndarray, left_T: np.ndarray, top_T: np.ndarray, side_T: np.ndarray) -> np.ndarray:
    """Each frame's window (in parts of the picture) at the size of the picture."""
    H, W = frames_THWC.shape[1:3]
    out = np.empty_like(frames_THWC)
    for t, frame in enumerate(np.ascontiguousarray(frames_THWC)):
        box = (left_T[t] * W, top_T[t] * H, (left_T[t] + side_T[t]) * W, (top_T[t] + side_T[t]) * H)
        out[t] = np.asarray(Image.fromarray(frame).resize((W, H), Image.Resampling.BILINEAR, box=box))
    return out


# --- transitions -----------------------------------------------------------------------------------------------------


def _join(old_THWC: np.ndarray, new_THWC: np.ndarray, joint: Joint) -> np.ndarray:
    """The frames that belong to neither piece."""
    kind, num_frames, how = joint
    if kind == "cut":
        return old_THWC[:0]
    part_T = (np.arange(num_frames) + 1) / (num_frames + 1)
    if kind == "fade":
        return _fade(old_THWC, new_THWC, part_T, how)
    if kind == "wipe":
        weight = np.stack([_wipe_mask(old_THWC.shape[1:3], part, how) for part in part_T])[..., None]
    else:
        weight = (0.5 - 0.5 * np.cos(np.pi * part_T) if how == "eased" else part_T)[:, None, None, None]
    return _mix(old_THWC, new_THWC, weight)


def _mix(old_THWC: np.ndarray, new_THWC: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.round(old_THWC + weight.astype(np.float32) * (new_THWC.astype(np.float32) - old_THWC)).astype(np.uint8)


def _fade(old_THWC: np.ndarray, new_THWC: np.ndarray, part_T: np.ndarray, how: str) -> np.ndarray:
    """Down to one level, some frames of it, and up again."""
    colour, hold = how.split()
    blank_THWC = np.full_like(old_THWC, 0 if colour == "black" else 255)
    down = _mix(old_THWC, blank_THWC, part_T[:, None, None, None])
    up = _mix(blank_THWC, new_THWC, part_T[:, None, None, None])
    return np.concatenate([down, np.full((int(hold), *down.shape[1:]), blank_THWC[0, 0, 0], np.uint8), up])


def _wipe_mask(size: tuple[int, int], part: float, how: str) -> np.ndarray:
    """Weight of the new picture, 0 to 1, when `part` of the way is done; the edge may be soft."""
    direction, soft = how.split()
    y, x = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]), indexing="ij")
    radius = np.hypot(x - 0.5, y - 0.5) / np.hypot(0.5, 0.5)
    order = {"left": 1 - x, "right": x, "up": 1 - y, "down": y, "diagonal": (x + y) / 2, "iris": radius}[direction]
    edge = float(soft) + 1e-6
    return np.clip((part * (1 + edge) - order) / edge, 0, 1).astype(np.float32)


# --- what is no transition ---------------------------------------------------------------------------------------------


def _add_decoy(piece_THWC: np.ndarray, random: np.random.Generator, head: int, tail: int) -> tuple[np.ndarray, Event | None]:
    """A flash, whip pan or shake within the body, clear of its ends, in some of the pieces that are long enough."""
    kind = str(random.choice(DECOYS))
    low, high = {"flash": (1, 4), "whip pan": (5, 12), "shake": (12, 30)}[kind]
    margin, length = 8, int(random.integers(low, high + 1))
    room = len(piece_THWC) - head - tail - 2 * margin - length
    if room < 0 or random.random() > DECOY_SHARE:
        return piece_THWC, None
    start = head + margin + int(random.integers(room + 1))
    end = start + length
    if kind == "flash":
        light = random.uniform(0.3, 0.9) * np.exp(-np.arange(length) / max(1, length - 1))[:, None, None, None]
        piece_THWC[start:end] = _mix(piece_THWC[start:end], np.full_like(piece_THWC[:1], 255), light)
    elif kind == "whip pan":
        piece_THWC = _whip(piece_THWC, random, start, end)
    else:
        piece_THWC = _shake(piece_THWC, random, start, end)
    return piece_THWC, Event(kind=kind, start=start, end=end)


def _whip(piece_THWC: np.ndarray, random: np.random.Generator, start: int, end: int) -> np.ndarray:
    """A window at one side of the picture rushes to the other, blurred along its way; before and after it stands."""
    side = float(random.uniform(0.5, 0.75))
    way = np.clip((np.arange(len(piece_THWC)) + 1 - start) / (end - start + 1), 0, 1)
    way = (way**2 * (3 - 2 * way)) * (1 - side)
    left_T = way if random.random() < 0.5 else 1 - side - way
    out = _crop(piece_THWC, left_T, np.full_like(left_T, (1 - side) / 2), np.full_like(left_T, side))
    W = out.shape[2]
    for t in range(start, end):
        blur = int(abs(left_T[t] - left_T[t - 1]) / side * W * 0.5)  # shutter open for half of the time
        if blur > 1:
            padded = np.pad(out[t].astype(np.float32), ((0, 0), (blur // 2 + 1, blur - blur // 2 - 1), (0, 0)), mode="edge")
            total = padded.cumsum(axis=1)
            smooth = (total[:, blur:] - total[:, :-blur]) / blur
            out[t] = np.round(np.pad(smooth, ((0, 0), (0, W - smooth.shape[1]), (0, 0)), mode="edge")).astype(np.uint8)
    return out


def _shake(piece_THWC: np.ndarray, random: np.random.Generator, start: int, end: int) -> np.ndarray:
    """A window that jumps about by up to 8 % of the picture from frame to frame."""
    side, amount = 0.8, random.uniform(0.03, 0.08)
    left_T, top_T = np.full(len(piece_THWC), 0.1), np.full(len(piece_THWC), 0.1)
    left_T[start:end] += random.uniform(-amount, amount, end - start)
    top_T[start:end] += random.uniform(-amount, amount, end - start)
    return _crop(piece_THWC, left_T, top_T, np.full(len(piece_THWC), side))


def _drop_frames(composite: Composite, random: np.random.Generator) -> Composite:
    """A variable frame rate: frames are left out at a rate that changes from stretch to stretch."""
    T = len(composite.frames_THWC)
    rate_T = np.repeat(random.uniform(0, 0.2, T // 48 + 1), 48)[:T]
    keep_T = random.random(T) >= rate_T
    keep_T[0] = True
    index_T = np.concatenate([[0], np.cumsum(keep_T)])

    def move(events: Sequence[Event]) -> tuple[Event, ...]:
        return tuple(replace(e, start=int(index_T[e.start]), end=int(index_T[e.end])) for e in events)

    return replace(
        composite,
        frames_THWC=composite.frames_THWC[keep_T],
        pts_T=composite.pts_T[keep_T],
        transitions=move(composite.transitions),
        decoys=move(composite.decoys),
    )


def write_composite(composite: Composite, path: Path) -> Path:
    """Encode as H.264 (x264's veryfast, quality by seed), with the composite's own times."""
    H, W = composite.frames_THWC.shape[1:3]
    options = {"crf": str((18, 23, 28)[composite.seed % 3]), "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = W, H, "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, TICKS)
        for picture_HWC, pts in zip(composite.frames_THWC, composite.pts_T.tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
