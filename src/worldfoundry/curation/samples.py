"""The files of one clip (`key.mp4`, `key.json`, `key.actions.npy`, `key.state.npy`) and its row of the clips table."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from worldfoundry.core.errors import MediaError
from worldfoundry.core.video_io import read_image
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.encode import EncodedClip, encode_clip, encode_image
from worldfoundry.curation.lowres import FrameTable
from worldfoundry.curation.plan import ClipPlan, clip_id
from worldfoundry.curation.rows import Row
from worldfoundry.curation.sidecars import Episode
from worldfoundry.data.buckets import bucket_name

# What of a clip's row goes into key.json: facts of the content, nothing of where the source lay.
JSON_FIELDS = (
    "clip_id",
    "source_id",
    "start_s",
    "end_s",
    "duration_s",
    "num_frames",
    "fps",
    "width",
    "height",
    "bucket",
    "caption",
    "motion",
    "action_names",
    "state_names",
)


def write_samples(row: Mapping[str, Any], config: CurateConfig) -> tuple[list[Row], list[Row]]:
    """Encode every accepted plan of a source into its staging folder. Returns (clips, rejected) rows.

    A clip that fails is rejected with ENCODE_FAILED; the others go on.
    """
    clips, rejected = [], []
    for plan in row["plans"]:
        if not plan.reasons:
            try:
                out = Path(row["staging"]) / f"{plan.clip_id}.mp4"
                encoded = encode_clip(Path(row["path"]), row["info"], row["frames"], plan, out, config)
                clips.append(_write_sample(row, plan, encoded))
                continue
            except (MediaError, FFmpegError):
                (Path(row["staging"]) / f"{plan.clip_id}.mp4").unlink(missing_ok=True)
                plan = replace(plan, reasons=("ENCODE_FAILED",))
        rejected.append(_plan_row(row, plan))
    return clips, rejected


def write_image_sample(row: Mapping[str, Any], config: CurateConfig) -> Row:
    """An image becomes one clip of one frame."""
    identity = clip_id(row["source_id"], 0, 1)
    encoded = encode_image(read_image(row["path"]), Path(row["staging"]) / f"{identity}.mp4", config)
    plan = ClipPlan(clip_id=identity, shot_index=0, first=0, last=1, start_pts=0, end_pts=1, start_s=0.0, end_s=0.0, motion=0.0)
    return _write_sample({**row, "episode": None}, plan, encoded)


def _plan_row(row: Mapping[str, Any], plan: ClipPlan) -> Row:
    return {
        "clip_id": plan.clip_id,
        "source_id": row["source_id"],
        "uri": row["uri"],
        "shot_index": plan.shot_index,
        "start_pts": plan.start_pts,
        "end_pts": plan.end_pts,
        "start_s": plan.start_s,
        "end_s": plan.end_s,
        "duration_s": round(plan.end_s - plan.start_s, 6),
        "num_frames": plan.last - plan.first,
        "motion": plan.motion,
        "kept": not plan.reasons,
        "reasons": list(plan.reasons),
    }


def _write_sample(row: Mapping[str, Any], plan: ClipPlan, encoded: EncodedClip) -> Row:
    folder, key = encoded.path.parent, plan.clip_id
    episode: Episode | None = row["episode"]
    about = episode.about if episode else {}
    clip = {
        **_plan_row(row, plan),
        "key": key,
        "num_frames": encoded.num_frames,
        "fps": encoded.fps,
        "width": encoded.width,
        "height": encoded.height,
        "bucket": bucket_name(encoded.width, encoded.height, encoded.num_frames, image=encoded.encoding == "image"),
        "caption": row["caption"] or str(about.get("caption") or ""),
        "has_actions": episode is not None,
        "action_names": [str(name) for name in about.get("action_names", [])],
        "state_names": [str(name) for name in about.get("state_names", [])],
        "encoding": encoded.encoding,
        "bytes": encoded.path.stat().st_size,
    }
    if episode is not None:
        _write_episode(folder, key, episode, encoded.times_s_T, row["frames"])
    facts = {name: clip[name] for name in JSON_FIELDS} | ({"episode": about} if about else {})
    (folder / f"{key}.json").write_text(json.dumps(facts, ensure_ascii=False, sort_keys=True), encoding="utf-8")
    (folder / f"{key}.strip.webp").write_bytes(encoded.strip_webp)
    return clip


def _write_episode(folder: Path, key: str, episode: Episode, times_s_T: np.ndarray, frames: FrameTable) -> None:
    """Actions and states of the rows nearest to each frame; the table's clock starts at the video's first frame."""
    rows_T = episode.rows_at(times_s_T - frames.seconds(int(frames.pts_T[0])))
    for name, values_NA in (("actions", episode.actions_NA), ("state", episode.states_NA)):
        if values_NA is not None:
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(values_NA[rows_T], dtype=np.float32))
            (folder / f"{key}.{name}.npy").write_bytes(buffer.getvalue())
