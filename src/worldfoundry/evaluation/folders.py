"""Folders of videos → an evaluation: generated clips against true ones of the same name.

Beside a true clip NAME.mp4 may lie what is known of it: NAME.json with a `source_id` (clips of one source are drawn together), and
NAME.masks.npz with `masks` (uint8 THW, 0 = surroundings, n = object n), as `simulate physics` writes them.

Axis legend: N clips, T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.core.files import read_json
from worldfoundry.core.progress import progress
from worldfoundry.core.video_io import VIDEO_SUFFIXES, VideoClip, read_video
from worldfoundry.evaluation.baselines import COPY_LAST, NEAREST, nearest_training_clip
from worldfoundry.evaluation.catalogue import AnyMetric, Choice, check_names, choose_metrics
from worldfoundry.evaluation.compare import Evaluation, applicable_metrics, evaluate_predictions
from worldfoundry.evaluation.distributions import DistributionMetric
from worldfoundry.evaluation.masks import MaskCentroidError
from worldfoundry.evaluation.metrics import FramePsnr

GENERATED = "generated"
MAX_NAMED = 3
GIVEN_DB = 34.0  # frames so like the true ones were most likely given (the rest is video compression)


@dataclass(frozen=True, kw_only=True)
class ClipSets:
    """Matched clips, cut to one length: uint8 (N, T, H, W, 3) each. `note` says what was left out, cut or assumed.

    `groups`: what each clip was cut from. `masks`: uint8 (N, T, H, W) where every true clip has them.
    """

    names: tuple[str, ...]
    reference: np.ndarray
    candidates: Mapping[str, np.ndarray]
    fps: float
    groups: tuple[str, ...]
    masks: np.ndarray | None
    note: str


def evaluate_folders(
    candidates: Mapping[str, Path],
    reference: Path,
    prefix_frames: int,
    *,
    assumed: bool = False,
    training: Path | None = None,
    unpaired: bool = False,
    metrics: Sequence[str] | None = None,
    fetch: bool = False,
    reference_files: Mapping[str, Path] | None = None,
    baseline: str = COPY_LAST,
    horizons: int = 3,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Evaluation, ClipSets, tuple[str, ...]]:
    """Score the clips of each candidate's folder; see `read_clips`, `choose_metrics` and `evaluate_predictions`.

    `assumed`: nobody said how many frames were given; every row then says what was taken, and what the pixels suggest.
    `training` adds the nearest training clip as a baseline. Also returns what the default set left out, a line each.
    Raises DataError, MediaError, and what `choose_metrics` raises.
    """
    if metrics is not None:  # a typo is said before a thousand videos are read
        check_names(metrics, reference_files)
    clips = read_clips(candidates, reference, prefix_frames, unpaired=unpaired)
    everyone = dict(clips.candidates)
    if training is not None:
        everyone[NEAREST] = nearest_training_clip(clips.reference, prefix_frames, [read_training(training, clips.reference)])
    choice = choose_metrics(
        metrics,
        applicable=[*applicable_metrics(clips.reference), *_mask_metrics(clips)],
        clips=len(clips.names),
        fetch=fetch,
        reference_files=reference_files,
    )
    found = evaluate_predictions(
        clips.reference,
        everyone,
        prefix_frames,
        fps=clips.fps,
        metrics=_of_sets(choice) if unpaired else choice.metrics,
        baseline=baseline,
        groups=clips.groups,
        horizons=horizons,
        resamples=resamples,
        seed=seed,
        note="; ".join(filter(None, (clips.note, _assumption(clips, prefix_frames) if assumed else ""))),
    )
    return found, clips, choice.left_out


def _assumption(clips: ClipSets, prefix_frames: int) -> str:
    """What to say when the number of given frames was not: which first frames of all generated clips look like the true ones."""
    psnr_NT = FramePsnr().sums(clips.reference, clips.candidates[GENERATED], 0).total_NF
    alike_T = (psnr_NT > GIVEN_DB).all(0)
    count = 0 if alike_T.all() else int(np.argmin(alike_T))
    hint = f"; but the first {count} look like the true ones: were they given?" if count > prefix_frames else ""
    return f"taken as given, since --prefix-frames was not said: {_frames(prefix_frames)}{hint}"


def _mask_metrics(clips: ClipSets) -> list[MaskCentroidError]:
    return [] if clips.masks is None else [MaskCentroidError(clips.masks)]


def _of_sets(choice: Choice) -> list[AnyMetric]:
    """Metrics that need no partner for each clip. Raises UsageError if there is none."""
    chosen: list[AnyMetric] = [metric for metric in choice.metrics if isinstance(metric, DistributionMetric)]
    if not chosen:
        raise UsageError(
            "Clips without partners can only be compared as sets, and no metric of sets is at hand.",
            "Add --fetch, or name one with --metrics, for example KD[effnet-lite0].",
        )
    return chosen


def read_clips(candidates: Mapping[str, Path], reference: Path, prefix_frames: int, *, unpaired: bool = False) -> ClipSets:
    """Match by file name without suffix, check size and frame rate, cut all clips to the shortest.

    `unpaired`: clips are taken in the order of their names, as many as the smallest folder has. Raises DataError when nothing
    matches, sizes or frame rates differ, or no frame is left after the prefix; MediaError for a file that cannot be read.
    """
    true = list_videos(reference)
    folders = {name: list_videos(folder) for name, folder in candidates.items()}
    table, note = _in_order(folders, true) if unpaired else _by_name(folders, true, reference, candidates)
    made: dict[str, list[VideoClip]] = {name: [] for name in folders}
    known: list[VideoClip] = []
    with progress("read clips", total=len(table), unit="clips") as bar:
        for true_name, names in table:
            clips = {who: read_video(folders[who][name]) for who, name in names.items()}
            known.append(read_video(true[true_name], max_frames=max(len(clip.frames) for clip in clips.values())))
            for who, clip in clips.items():
                _check_pair(names[who], clip, known[-1])
                made[who].append(clip)
            bar.advance()
    names = tuple(name for name, _ in table)
    _check_one_size(names, known)
    lengths = [len(clip.frames) for clips in (*made.values(), known) for clip in clips]
    length = min(lengths)
    if length <= prefix_frames:
        where, what = divmod(lengths.index(length), len(names))
        raise DataError(
            f"The {'generated' if where < len(made) else 'true'} clip {names[what]!r} has {_frames(length)}, and the first "
            f"{prefix_frames} {'was' if prefix_frames == 1 else 'were'} given: nothing is left to score.",
            "Use a smaller --prefix-frames, or leave that clip out." if length > 1 else "Leave that clip out.",
        )
    cut = max(len(clip.frames) for clips in made.values() for clip in clips) > length
    notes = [*note, *([f"clips are cut to the shortest, {length} frames"] if cut else [])]
    for who, clips in made.items():
        still = sum(bool((clip.frames[prefix_frames:length] == clip.frames[prefix_frames]).all()) for clip in clips)
        notes += [f"{still} of {len(names)} {who} clips show one picture from frame {prefix_frames + 1} on"] if still else []
    return ClipSets(
        names=names,
        reference=np.stack([clip.frames[:length] for clip in known]),
        candidates={who: np.stack([clip.frames[:length] for clip in clips]) for who, clips in made.items()},
        fps=known[0].fps,
        groups=tuple(source_of(true[name]) for name in names),
        masks=_read_masks([true[name] for name in names], length, known[0].frames.shape[1:3]),
        note="; ".join(notes),
    )


def read_training(folder: Path, reference: np.ndarray) -> np.ndarray:
    """uint8 (M, T, H, W, 3): the first T frames of each training clip that has so many. Raises DataError if none has."""
    wanted = reference.shape[1]
    clips = [read_video(path, max_frames=wanted).frames for path in list_videos(folder).values()]
    long = [clip for clip in clips if len(clip) == wanted and clip.shape[1:] == reference.shape[2:]]
    if not long:
        raise DataError(
            f"No clip in {str(folder)!r} has {_frames(wanted)} of {reference.shape[3]}x{reference.shape[2]} pixels.",
            "The nearest training clip needs training clips of the size and at least the length of the true ones.",
        )
    return np.stack(long)


def source_of(video: Path) -> str:
    """What a clip was cut from: `source_id` of the JSON file beside it, else its name up to the first dot.

    (Views of one episode are named EPISODE.cam0, EPISODE.cam1, ….)
    """
    sidecar = video.with_suffix(".json")
    found = read_json(sidecar) if sidecar.is_file() else None
    source = found.get("source_id") if isinstance(found, dict) else None
    return str(source) if source is not None else video.name.split(".")[0]


def _read_masks(videos: Sequence[Path], length: int, size: tuple[int, ...]) -> np.ndarray | None:
    """(N, T, H, W) of the files beside the clips, None unless every clip has one. Raises DataError for one that does not fit."""
    paths = [video.with_suffix(".masks.npz") for video in videos]
    if not all(path.is_file() for path in paths):
        return None
    stack = []
    for path in paths:
        try:
            with np.load(path) as file:
                masks = file["masks"][:length]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{str(path)!r} holds no array `masks`.", "Remove it, or write it again.") from error
        if masks.shape != (length, *size):
            raise DataError(
                f"The masks in {str(path)!r} have shape {masks.shape}, the clip {(length, *size)}.", "Write them again."
            )
        stack.append(masks.astype(np.uint8))
    return np.stack(stack)


Table = list[tuple[str, dict[str, str]]]  # true clip, then each candidate's clip


def _by_name(
    folders: Mapping[str, dict[str, Path]], true: dict[str, Path], reference: Path, candidates: Mapping[str, Path]
) -> tuple[Table, list[str]]:
    names = sorted(set(true).intersection(*folders.values()))
    if not names:
        who = next((who for who, made in folders.items() if not made.keys() & true.keys()), next(iter(folders)))
        raise DataError(
            f"No video in {str(candidates[who])!r} has the name of one in {str(reference)!r} "
            f"(for example {min(folders[who])!r} and {min(true)!r}).",
            "Name each generated file as its true clip, or compare the folders as sets with --unpaired.",
        )
    notes = _left_out("true clips have no generated one", true, names)
    for who, made in folders.items():
        notes += _left_out(f"{who} clips have no true one", made, names)
    return [(name, dict.fromkeys(folders, name)) for name in names], notes


def _in_order(folders: Mapping[str, dict[str, Path]], true: dict[str, Path]) -> tuple[Table, list[str]]:
    count = min(len(true), *(len(made) for made in folders.values()))
    chosen = {who: sorted(made)[:count] for who, made in folders.items()}
    table = [(name, {who: names[i] for who, names in chosen.items()}) for i, name in enumerate(sorted(true)[:count])]
    return table, [f"compared as sets: the first {count} clips of each folder, without partners"]


def _left_out(what: str, everything: Mapping[str, Path], names: Sequence[str]) -> list[str]:
    left = sorted(everything.keys() - set(names))
    named = ", ".join(left[:MAX_NAMED]) + (", …" if len(left) > MAX_NAMED else "")
    return [f"{len(left)} of {len(everything)} {what} and are left out ({named})"] if left else []


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def list_videos(folder: Path) -> dict[str, Path]:
    """Video files of a folder by name without suffix. Raises DataError if there is none, or two share a name."""
    if not folder.is_dir():
        raise DataError(f"The folder {str(folder)!r} does not exist.", "Check the path.")
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


def _check_one_size(names: Sequence[str], clips: Sequence[VideoClip]) -> None:
    first = clips[0].frames.shape[1:3]
    for name, clip in zip(names, clips, strict=True):
        if clip.frames.shape[1:3] != first:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (clip.frames.shape[1:3], first)]
            raise DataError(
                f"The clip {name!r} is {sizes[0]} pixels, {names[0]!r} {sizes[1]}: one evaluation needs one size.",
                "Evaluate each size in a folder of its own.",
            )
