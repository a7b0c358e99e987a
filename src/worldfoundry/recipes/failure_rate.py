"""How often futures fail: the videos, the page on which people judge them, and the counts of what they said.

OUT/videos.csv    what each video is: its name on the page, the world (or the truth), domain, given frames, window, novelty
OUT/judge.html    the page
OUT/results.json  what the detector flags, per world and number of given frames; OUT/judged.json has what people said as well

Axis legend: N windows, T frames, H height, W width, C = 3 (RGB).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.devices import hardware
from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path, read_fields, write_json
from worldfoundry.core.progress import say
from worldfoundry.data.clips import ClipDataset
from worldfoundry.evaluation.failure import (
    lower_edge_novelty,
    novelty_threshold,
    rate,
    rates,
    read_judgements,
    write_label_page,
)
from worldfoundry.evaluation.report import Clip, clip
from worldfoundry.recipes.evaluate_world import check_dataset, drawn, held_out, read_world, same_size
from worldfoundry.recipes.failure_rate_config import FailureRateConfig
from worldfoundry.recipes.futures import AnyWorld, continuations, guarded_windows
from worldfoundry.recipes.windows import Window

TRUTH = "true videos"


@dataclass(frozen=True, kw_only=True)
class Video:
    """A line of videos.csv. `novelty` is the highest of its frames (`evaluation.failure.lower_edge_novelty`)."""

    name: str
    world: str
    domain: str
    prefix_frames: int
    window: str
    novelty: float


def failure_rate(config: FailureRateConfig) -> dict[str, Any]:
    """Make the videos and the page (and OUT/results.json), or count what was judged (OUT/judged.json); returns what it wrote.

    Raises UsageError for what is no world, DataError for clips that are too short and for judgements of other videos.
    """
    made = config.out / "results.json"
    settings = {} if config.judgements else make_videos(config)
    table = read_videos(config.out / "videos.csv")
    if config.judgements:
        settings = {name: value for name, value in read_fields(made).items() if name != "rows"}
    verdicts: dict[str, str] = {}
    for path in config.judgements:
        verdicts |= read_judgements(path, [video.name for video in table])
    results = {**settings, "rows": list(result_rows(table, verdicts))}
    write_json(config.out / "judged.json" if config.judgements else made, results)
    return results


def make_videos(config: FailureRateConfig) -> dict[str, Any]:
    """Continue every window from every number of frames with every world; writes the table and the page. Returns the settings."""
    worlds = {name: read_world(name, device=config.device, dtype=config.dtype) for name in (config.world, *config.others)}
    world = worlds[config.world]
    same_size(config.world, world, worlds)
    windows = _windows(config, world)
    videos, clips = [], []
    for name, given, frames_NTHWC in _frames(config, worlds, [window for _, window in windows]):
        for (domain, window), frames_THWC in zip(windows, frames_NTHWC, strict=True):
            novelty = round(float(lower_edge_novelty(frames_THWC, given).max()), 2)
            about = {"world": name, "domain": domain, "prefix_frames": given, "window": window.name, "novelty": novelty}
            videos.append(about)
            clips.append(clip("", frames_THWC, window.record.fps, crf=18))
    order = np.random.default_rng(config.seed).permutation(len(videos))
    table = [Video(name=f"v{place:04d}", **videos[i]) for place, i in enumerate(order)]
    shown = [Clip(label=video.name, mp4=clips[i].mp4, poster=clips[i].poster) for video, i in zip(table, order, strict=True)]
    rates_N = [windows[i % len(windows)][1].record.fps for i in order]
    write_videos(config.out / "videos.csv", table)
    given_s = [video.prefix_frames / fps for video, fps in zip(table, rates_N, strict=True)]
    write_label_page(config.out / "judge.html", "Do these videos fail?", shown, given_s)
    config.save(config.out / "config.yaml")
    made = {name: drawn(world) for name, world in worlds.items()}
    return {"clips": len(windows), "seed": config.seed, "worlds": made, "hardware": hardware()}


def _windows(config: FailureRateConfig, world: AnyWorld) -> list[tuple[str, Window]]:
    """(domain, window), as many of each domain; the first domains have one more where it does not come out even."""
    found, each = [], divmod(config.clips, len(config.data))
    for i, (name, folder) in enumerate(config.data.items()):
        check_dataset(world, ClipDataset(folder), actions=False)
        count = each[0] + (i < each[1])
        windows = guarded_windows(world.guardrails, held_out(world, folder, count))[0] if count else []
        if len(windows) < count:
            say(f"{name} has {len(windows)} windows, not {count}")
        found += [(name, window) for window in windows]
    return found


def _frames(
    config: FailureRateConfig, worlds: dict[str, AnyWorld], windows: list[Window]
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(world, given frames, videos uint8 [N, T, H, W, 3]), the truth as well; nothing is told of actions."""
    truth_NTHWC = np.stack([window.frames for window in windows])
    for given in config.prefix_frames:
        yield TRUTH, given, truth_NTHWC
        for name, world in worlds.items():
            say(f"── {name}, {given} given frames")
            yield name, given, continuations(world, windows, seed=config.seed, prefix_frames=given)


def result_rows(table: Sequence[Video], verdicts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Per world and number of given frames: what people said, where they did, and the share that the detector flags.

    The detector's threshold is that of the true videos of the same domain and given frames.
    """
    thresholds: dict[tuple[str, int], float] = {}
    for key in {(video.domain, video.prefix_frames) for video in table}:
        alike = [v.novelty for v in table if v.world == TRUTH and (v.domain, v.prefix_frames) == key]
        thresholds[key] = novelty_threshold(alike)
    for world, given in dict.fromkeys(sorted((v.world, v.prefix_frames) for v in table)):
        videos = [v for v in table if (v.world, v.prefix_frames) == (world, given)]
        flagged = sum(v.novelty > thresholds[v.domain, given] for v in videos)
        judged = [verdicts[v.name] for v in videos if v.name in verdicts]
        row: dict[str, Any] = {"world": world, "prefix_frames": given, "novel_at_lower_edge": rate(flagged, len(videos))}
        yield {**row, "judged": rates(judged)} if judged else row


def write_videos(path: Path, table: Sequence[Video]) -> None:
    """Write videos.csv, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Video)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(video) for video in table)


def read_videos(path: Path) -> list[Video]:
    """Read videos.csv. Raises DataError where there is none."""
    if not path.is_file():
        raise DataError(
            f"{str(path.parent)!r} holds no 'videos.csv'.", "Make the videos first: the same command without --judgements."
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [Video(**{**row, "prefix_frames": int(row["prefix_frames"]), "novelty": float(row["novelty"])}) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}.", "Make the videos again.") from error


def lines(results: dict[str, Any]) -> list[str]:
    """What a person at the terminal wants to know."""
    out = []
    for row in results["rows"]:
        out.append(f"{row['world']}, {row['prefix_frames']} given:")
        out += [f"  judged, {kind}: {_share(found)}" for kind, found in row.get("judged", {}).items()]
        out.append(
            f"  flagged as novel at the lower edge (a machine's count, not a failure rate): {_share(row['novel_at_lower_edge'])}"
        )
    return out


def _share(found: dict[str, float]) -> str:
    return f"{found['count']:.0f} of {found['n']:.0f}, {found['rate']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"
