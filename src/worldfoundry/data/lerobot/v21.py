"""The v2.0 and v2.1 layouts, read only: one Parquet file per episode and one video per episode and camera.

    meta/episodes.jsonl          {"episode_index", "tasks": [...], "length"} per line
    meta/tasks.jsonl             {"task_index", "task"} per line
    meta/episodes_stats.jsonl    {"episode_index", "stats": {feature: {min, max, mean, std, count}}} per line (v2.1)
    meta/stats.json              of the whole dataset (v2.0)
    data/chunk-000/episode_000000.parquet
    videos/chunk-000/CAMERA/episode_000000.mp4

Checked against lerobot 0.4.4, `lerobot/datasets/v30/convert_dataset_v21_to_v30.py`.
"""

import json
from pathlib import Path
from typing import Any

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot.index import EpisodeEntry, VideoSpan
from worldfoundry.data.lerobot.layout import Info
from worldfoundry.data.lerobot.stats import FeatureStats, merge_stats

EPISODES, TASKS, EPISODES_STATS = "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"


def read_entries_v21(folder: Path, info: Info) -> list[EpisodeEntry]:
    """One entry per episode of a v2.0 or v2.1 folder. Raises DataError when the lists lack something."""
    rows = {_field(row, "episode_index", folder / EPISODES): row for row in _read_lines(folder / EPISODES)}
    missing = [index for index in range(info.num_episodes) if index not in rows]
    if missing:
        raise DataError(
            f"info.json of {str(folder)!r} promises {info.num_episodes} episodes; {EPISODES} lacks episode {missing[0]}.",
            "Copy or download the whole dataset again.",
        )
    cameras = [key for key, feature in info.features.items() if feature.dtype == "video"]
    entries, start = [], 0
    for index in range(info.num_episodes):
        length = int(_field(rows[index], "length", folder / EPISODES))
        places = {"episode_index": index, "episode_chunk": index // info.chunks_size, "total_episodes": info.num_episodes}
        paths = {key: folder / info.video_path.format(video_key=key, **places) for key in cameras}
        entries.append(
            EpisodeEntry(
                index=index,
                length=length,
                start=start,
                tasks=tuple(rows[index].get("tasks") or ()),
                data=folder / info.data_path.format(**places),
                row=0,
                videos={key: VideoSpan(path=path, start_s=0.0, end_s=None) for key, path in paths.items()},
            )
        )
        start += length
    return entries


def read_tasks_v21(folder: Path) -> dict[int, str]:
    rows = _read_lines(folder / TASKS)
    return {int(_field(row, "task_index", folder / TASKS)): str(_field(row, "task", folder / TASKS)) for row in rows}


def read_episodes_stats(folder: Path, names: dict[str, tuple[str, ...]]) -> dict[str, FeatureStats]:
    """The statistics of the dataset from those of its episodes (v2.1)."""
    path = folder / EPISODES_STATS
    parts: dict[str, list[FeatureStats]] = {}
    for row in _read_lines(path):
        for key, entry in _field(row, "stats", path).items():
            parts.setdefault(key, []).append(FeatureStats.from_json(key, entry, names.get(key, ()), path))
    return {key: merge_stats(episodes) for key, episodes in parts.items()}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"The file {str(path)!r} is missing.", "Copy or download the whole dataset again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} is not valid JSON lines: {error}.", "Copy or download it again.") from error


def _field(row: dict[str, Any], name: str, path: Path) -> Any:
    if name not in row:
        raise DataError(f"A line of {str(path)!r} lacks {name!r}.", "Copy or download the dataset again.")
    return row[name]
