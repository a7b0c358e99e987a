"""Two folders of videos → an evaluation: generated clips against true ones of the same name.

Axis legend: N clips, T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import DataError
from worldfoundry.core.progress import progress
from worldfoundry.core.video_io import VIDEO_SUFFIXES, VideoClip, read_video
from worldfoundry.evaluation.catalogue import check_names, choose_metrics
from worldfoundry.evaluation.compare import Evaluation, applicable_metrics, evaluate_predictions

GENERATED = "generated"
MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ClipPairs:
    """Matched clips, cut to one length: uint8 (N, T, H, W, 3) each. `note` says what was left out or cut."""

    names: tuple[str, ...]
    reference: np.ndarray
    generated: np.ndarray
    fps: float
    note: str


def evaluate_folders(
    generated: Path,
    reference: Path,
    prefix_frames: int,
    *,
    metrics: Sequence[str] | None = None,
    fetch: bool = False,
    reference_files: Mapping[str, Path] | None = None,
    horizons: int = 3,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Evaluation, ClipPairs, tuple[str, ...]]:
    """Score every clip of `generated` that has a namesake in `reference`; see `read_pairs`, and `choose_metrics` for `metrics`.

    Also returns what the default set left out, a line each. Raises DataError, MediaError, and what `choose_metrics` raises.
    """
    if metrics is not None:  # a typo is said before a thousand videos are read
        check_names(metrics, reference_files)
    pairs = read_pairs(generated, reference, prefix_frames)
    choice = choose_metrics(
        metrics,
        applicable=applicable_metrics(pairs.reference),
        clips=len(pairs.names),
        fetch=fetch,
        reference_files=reference_files,
    )
    found = evaluate_predictions(
        pairs.reference,
        {GENERATED: pairs.generated},
        prefix_frames,
        fps=pairs.fps,
        metrics=choice.metrics,
        horizons=horizons,
        resamples=resamples,
        seed=seed,
        note=pairs.note,
    )
    return found, pairs, choice.left_out


def read_pairs(generated: Path, reference: Path, prefix_frames: int) -> ClipPairs:
    """Match by file name without suffix, check size and frame rate, cut all clips to the shortest.

    Raises DataError when nothing matches, sizes or frame rates differ, or no frame is left after the prefix; MediaError for a
    file that cannot be read.
    """
    made, true = list_videos(generated), list_videos(reference)
    names = sorted(made.keys() & true.keys())
    if not names:
        raise DataError(
            f"No video in {str(generated)!r} has the name of one in {str(reference)!r} "
            f"(for example {next(iter(sorted(made)))!r} and {next(iter(sorted(true)))!r}).",
            "Name each generated file as its true clip.",
        )
    clips = []
    with progress("read clips", total=len(names), unit="clips") as bar:
        for name in names:
            one = read_video(made[name])
            other = read_video(true[name], max_frames=len(one.frames))
            _check_pair(name, one, other)
            clips.append((one, other))
            bar.advance()
    _check_one_size(names, clips)
    length = min(len(clip.frames) for pair in clips for clip in pair)
    if length <= prefix_frames:
        short = next(name for name, pair in zip(names, clips, strict=True) if min(len(c.frames) for c in pair) == length)
        raise DataError(
            f"The clip {short!r} has {length} frames, and the first {prefix_frames} were given: nothing is left to score.",
            "Use a smaller --prefix-frames, or leave that clip out.",
        )
    return ClipPairs(
        names=tuple(names),
        reference=np.stack([other.frames[:length] for _, other in clips]),
        generated=np.stack([one.frames[:length] for one, _ in clips]),
        fps=clips[0][0].fps,
        note=_note(made, true, names, [len(one.frames) for one, _ in clips], length),
    )


def list_videos(folder: Path) -> dict[str, Path]:
    """Video files of a folder by name without suffix. Raises DataError if there is none, or two share a name."""
    if not folder.is_dir():
        raise DataError(f"The folder {str(folder)!r} does not exist.", "Check --generated and --reference.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{str(folder)!r} holds two videos named {path.stem!r}.", "Keep one of them.")
            found[path.stem] = path
    if not found:
        raise DataError(f"The folder {str(folder)!r} holds no video.", f"Looked for: {', '.join(sorted(VIDEO_SUFFIXES))}.")
    return found


def _check_pair(name: str, made: VideoClip, true: VideoClip) -> None:
    if made.frames.shape[1:] != true.frames.shape[1:]:
        sizes = [f"{clip.frames.shape[2]}x{clip.frames.shape[1]}" for clip in (made, true)]
        raise DataError(
            f"The generated clip {name!r} is {sizes[0]} pixels, the true one {sizes[1]}.",
            "Generate at the size of the true clips, or resize those first: resizing here would change the scores.",
        )
    if abs(made.fps - true.fps) > 0.01 * true.fps:
        raise DataError(
            f"The generated clip {name!r} has {made.fps:g} frames per second, the true one {true.fps:g}.",
            "Frames are compared one by one; bring both to one rate first.",
        )


def _check_one_size(names: list[str], clips: list[tuple[VideoClip, VideoClip]]) -> None:
    first = clips[0][0].frames.shape[1:3]
    for name, (clip, _) in zip(names, clips, strict=True):
        if clip.frames.shape[1:3] != first:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (clip.frames.shape[1:3], first)]
            raise DataError(
                f"The clip {name!r} is {sizes[0]} pixels, {names[0]!r} {sizes[1]}: one evaluation needs one size.",
                "Evaluate each size in a folder of its own.",
            )


def _note(made: dict[str, Path], true: dict[str, Path], names: list[str], lengths: list[int], length: int) -> str:
    notes = []
    for what, all_names in (("true clips have no generated one", true), ("generated clips have no true one", made)):
        left = sorted(all_names.keys() - set(names))
        if left:
            named = ", ".join(left[:MAX_NAMED]) + (", …" if len(left) > MAX_NAMED else "")
            notes.append(f"{len(left)} of {len(all_names)} {what} and are left out ({named})")
    if max(lengths) > length:
        notes.append(f"clips are cut to the shortest, {length} frames")
    return "; ".join(notes)
