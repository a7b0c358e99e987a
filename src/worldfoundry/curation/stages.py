"""The stages that come with curation, in the order in which they run.

    probe → watch, network_pictures → episode → shots → plan → motion, scores →  select  → encode, captions
    (one file: decoded once, in `watch` and with it)                          (all clips)  (one clip)

A source's row begins with `source_id`, `uri`, `path` (a local file), `image`, `episode_path` and `caption` (both may be
empty). A stage raises MediaError or SourceError to send its source to quarantine, or its clip to the rejected ones.
`select` is no stage: it looks at the stored scores of all clips at once and costs nothing.

Axis legend: T frames, H = 18, W = 32, C = 3 (RGB).
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from worldfoundry.core.video_io import read_image
from worldfoundry.curation.config import CurateConfig, ShotConfig
from worldfoundry.curation.encode import Coding, encode_clip, encode_image
from worldfoundry.curation.lowres import SCALED, FrameTable, Pictures, decode_lowres
from worldfoundry.curation.plan import plan_clips, plan_image
from worldfoundry.curation.probe import probe_source
from worldfoundry.curation.rows import Row
from worldfoundry.curation.scores.borders import crop_box
from worldfoundry.curation.scores.stages import BORDERS, borders_of, score_stages
from worldfoundry.curation.shots import Transition, find_transitions, luma_change, spans_between
from worldfoundry.curation.shots_network import doubt_network
from worldfoundry.curation.sidecars import check_episode, read_episode, write_episode
from worldfoundry.curation.stage import FunctionStage
from worldfoundry.data.buckets import bucket_name

ENCODED = "encoding crop num_frames fps width height bytes bucket has_actions action_names state_names about"


def default_stages(config: CurateConfig) -> tuple[FunctionStage, ...]:
    """The stages of `worldfoundry curate` without those of the user."""

    def stage(name: str, function: object, inputs: str, outputs: str, **options: object) -> FunctionStage:
        columns = {"inputs": tuple(inputs.split()), "outputs": tuple(outputs.split())}
        return FunctionStage(name=name, function=function, **columns, **options)  # type: ignore[arg-type]

    plan = {"max_s": config.max_s, "trim_frames": config.trim_frames}
    crop = config.encode.crop if config.scores.measure else "off"  # borders are measured there
    coding = {"crf": config.crf, "gop": config.gop, "copy_gop": config.copy_gop, "crop": crop}
    watching = {"per": "frames", "picture": SCALED, "isolate": True}
    seen, looks = SMALL, []
    if config.shots.network != "off":
        seen, looks = LARGER, [stage("network_pictures", watch_larger, "path", LARGER, **watching)]
    return (
        stage("probe", probe, "path uri", "info", images=True, isolate=True),
        stage(WATCH, watch, "path", f"frames {SMALL} video", isolate=True, version=2),
        *looks,
        stage("episode", episode, "episode_path frames", "episode"),
        stage("shots", shots, f"frames {seen}", "transitions shots", parameters=config.shots.to_dict(), version=2),
        stage("plan", plan_source, "source_id image frames transitions", "plans", parameters=plan, images=True),
        stage("motion", motion, "pictures_THWC plans", "motion", scores=("motion",)),
        stage(
            ENCODE,
            encode,
            "path image info frames episode" + (f" {BORDERS}" if crop != "off" else ""),
            ENCODED,
            parameters=coding,
            version=3,
            images=True,
            isolate=True,
            per="clip",
        ),
        *score_stages(config.scores, crop),
    )


WATCH, ENCODE = "watch", "encode"
SMALL, LARGER = "pictures_THWC", "network_pictures_THWC"


def probe(row: Row) -> Row:
    return {"info": replace(probe_source(Path(row["path"]), row["uri"]), path=Path())}


def watch(row: Row) -> Row:
    """The table of frames and the small pictures that the next stages look at."""
    frames, pictures_THWC = decode_lowres(row["path"])
    return watched(frames, pictures_THWC)


def watched(frames: FrameTable, pictures_THWC: np.ndarray) -> Row:
    video = {
        "fps": frames.fps,
        "variable_rate": frames.variable_rate,
        "num_frames": len(frames),
        "num_good_frames": int((~frames.damaged_T).sum()),
        "duration_s": round(frames.seconds(frames.end_pts(len(frames) - 1)), 6),
        "partial": bool(frames.problem),
        "problem": frames.problem,
    }
    return {"frames": frames, "pictures_THWC": pictures_THWC, "video": video}


class LargerPictures(Pictures):
    """Keeps every frame at 27 x 48, which is what the pass scales frames to anyway."""

    def result(self) -> Row:
        return {LARGER: np.stack(self.rgb)}


def watch_larger(row: Row) -> LargerPictures:
    return LargerPictures()


def episode(row: Row) -> Row:
    """The table beside the video, checked against its frames; its clock starts at the first frame."""
    if not row["episode_path"]:
        return {"episode": None}
    table, frames = read_episode(Path(row["episode_path"])), row["frames"]
    times_s_T = np.array([frames.seconds(int(pts) - int(frames.pts_T[0]) + frames.zero_pts) for pts in frames.pts_T])
    check_episode(table, times_s_T, frames.fps)
    return {"episode": table}


def shots(row: Row, **thresholds: float) -> Row:
    """Transitions as frame numbers, and the rows of the table `shots` (without the source's id).

    Raises DownloadError if the network is wanted, something is doubtful, and its weights are not to be had here.
    """
    frames, config = row["frames"], ShotConfig.from_dict(thresholds)
    pictures_THWC = row[SMALL if config.network == "off" else LARGER]
    transitions = find_transitions(pictures_THWC, frames.fps, config, doubt_network(config))
    return {"transitions": transitions, "shots": shot_rows(frames, transitions)}


def plan_source(row: Row, *, max_s: float, trim_frames: int) -> Row:
    if row["image"]:
        return {"plans": [plan_image(row["source_id"])]}
    plans = plan_clips(row["source_id"], row["frames"], row["transitions"], max_s=max_s, trim_frames=trim_frames)
    return {"plans": plans}


def motion(row: Row) -> Row:
    """Change of luma per second of each plan (levels of 255), camera included."""
    change_T = luma_change(row["pictures_THWC"])
    return {
        "motion": [
            round(float(change_T[plan.first + 1 : plan.last].sum()) / max(plan.end_s - plan.start_s, 1e-6), 4)
            for plan in row["plans"]
        ]
    }


def encode(row: Row, *, crf: int, gop: int, copy_gop: int, crop: Literal["black", "any", "off"]) -> Row:
    """Write a clip's files into `staging`: video, thumbnails, actions and states."""
    coding, out = Coding(crf=crf, gop=gop, copy_gop=copy_gop, crop=crop), Path(row["staging"]) / "clip.mp4"
    table = None if row["image"] else row["episode"]
    whole = row.get("borders")
    box = crop_box(borders_of(row, row["plan"]), whole["height"], whole["width"], crop) if whole else None
    if row["image"]:
        encoded = encode_image(read_image(row["path"]), out, coding, crop=box)
    else:
        encoded = encode_clip(Path(row["path"]), row["info"], row["frames"], row["plan"], out, coding, crop=box)
    out.with_suffix(".strip.webp").write_bytes(encoded.strip_webp)
    if table is not None:
        start_s = row["frames"].seconds(int(row["frames"].pts_T[0]))
        write_episode(out, table, encoded.times_s_T - start_s)
    about = table.about if table else {}
    return {
        "encoding": encoded.encoding,
        "crop": list(encoded.crop) if encoded.crop else None,
        "num_frames": encoded.num_frames,
        "fps": encoded.fps,
        "width": encoded.width,
        "height": encoded.height,
        "bytes": encoded.path.stat().st_size,
        "bucket": bucket_name(encoded.width, encoded.height, encoded.num_frames, image=row["image"]),
        "has_actions": table is not None,
        "action_names": [str(name) for name in about.get("action_names", [])],
        "state_names": [str(name) for name in about.get("state_names", [])],
        "about": about,
    }


def shot_rows(frames: FrameTable, transitions: list[Transition]) -> list[Row]:
    """Shots between transitions, and the transitions on both sides of each.

    `start` and `end` are the file's own ends, which nobody decided.
    """
    before, after = {t.end: t for t in transitions}, {t.start: t for t in transitions}

    def seconds(frame: int) -> float:
        pts = int(frames.pts_T[frame]) if frame < len(frames) else frames.end_pts(frame - 1)
        return round(frames.seconds(pts), 6)

    rows = []
    for index, (start, end) in enumerate(spans_between(transitions, len(frames))):
        opening, closing = before.get(start), after.get(end)
        rows.append(
            {
                "shot_index": index,
                "start_pts": int(frames.pts_T[start]),
                "end_pts": frames.end_pts(end - 1),
                "start_s": seconds(start),
                "end_s": seconds(end),
                "num_frames": end - start,
                "opens_with": opening.kind if opening else "start",
                "opens_from_s": seconds(opening.start) if opening else seconds(start),
                "opens_confidence": opening.confidence if opening else 1.0,
                "opens_decided_by": opening.decided_by if opening else None,
                "closes_with": closing.kind if closing else "end",
                "closes_until_s": seconds(closing.end) if closing else seconds(end),
                "closes_confidence": closing.confidence if closing else 1.0,
                "closes_decided_by": closing.decided_by if closing else None,
            }
        )
    return rows
