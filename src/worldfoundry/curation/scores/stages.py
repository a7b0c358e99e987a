"""The scores as stages: watchers share the decoding pass, and a stage per source then says of every planned clip what was seen.

Axis legend: T, S frames in time, N numbers of each, D features, h x w cells.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.video_io import iter_frames
from worldfoundry.curation.plan import ClipPlan
from worldfoundry.curation.rows import Row
from worldfoundry.curation.scores.borders import BORDER_COLUMNS, clip_borders
from worldfoundry.curation.scores.captions import MEASURED, caption_windows, captioner, describe_measured, plan_windows
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.motion import MOTION_COLUMNS, SHAKE_RATIO, STILL, motion_of
from worldfoundry.curation.scores.quality import QUALITY_COLUMNS, aesthetic_score
from worldfoundry.curation.scores.signature import sample_times
from worldfoundry.curation.scores.text import TEXT_COLUMNS, text_scores
from worldfoundry.curation.scores.video_type import VIDEO_TYPE_COLUMNS, read_taxonomy
from worldfoundry.curation.scores.watch import (
    BORDERS_EVERY_S,
    PATH_EVERY_S,
    PATH_PICTURE,
    BorderWatcher,
    EmbeddingWatcher,
    PathWatcher,
    QualityWatcher,
    TextWatcher,
)
from worldfoundry.curation.shots import to_luma
from worldfoundry.curation.stage import FunctionStage

SEEN = (*QUALITY_COLUMNS, "aesthetic")
BORDERS = "borders_S6 borders"
# What captions of measured scores are made of.
DESCRIBED = ("camera_motion", "camera_pan", "camera_tilt", "camera_zoom", "camera_roll", "motion_objects", "luma_mean")


def score_stages(config: ScoreConfig) -> tuple[FunctionStage, ...]:
    """The stages that the config asks for, each after those whose outputs it reads."""
    stages = [*_measured(config)] if config.measure else []
    if config.text:
        stages += _text(config)
    if config.embedder:
        stages += _embedding(config)
    if config.dedup != "off":
        stages.append(_stage("signature", signatures, "pictures_THWC frames plans", "signatures"))
    if config.captions:
        stages.append(_captions(config))
    return tuple(stages)


def _stage(name: str, function: Callable[..., Any], inputs: str, outputs: str = "", **options: Any) -> FunctionStage:
    given = (*outputs.split(), *options.get("scores", ()), *options.get("tags", ()))
    return FunctionStage(name=name, function=function, inputs=tuple(inputs.split()), outputs=given, **options)


def _measured(config: ScoreConfig) -> Iterator[FunctionStage]:
    watching = {"per": "frames", "isolate": True}
    yield _stage("camera_path", watch_path, "path info", "steps_TN", picture=PATH_PICTURE, every_s=PATH_EVERY_S, **watching)
    seen = {"niqe": config.niqe, "aesthetic": config.aesthetic}
    yield _stage(
        "quality_samples",
        watch_quality,
        "path info",
        "quality_SN",
        parameters=seen,
        picture=None,
        every_s=config.every_s,
        version=2,
        **watching,
    )
    yield _stage("border_samples", watch_borders, "path info", BORDERS, picture=None, every_s=BORDERS_EVERY_S, **watching)
    scores = tuple(name for name in MOTION_COLUMNS if name != "camera_motion")
    limits = {"still": STILL, "shake_ratio": SHAKE_RATIO}
    yield _stage("movement", movement, "steps_TN plans", scores=scores, tags=("camera_motion",), parameters=limits)
    yield _stage("quality", quality, "quality_SN plans", scores=SEEN)
    yield _stage("border", border, f"{BORDERS} plans", scores=BORDER_COLUMNS, version=2)


def _text(config: ScoreConfig) -> Iterator[FunctionStage]:
    watching = {"per": "frames", "isolate": True, "picture": None, "every_s": config.every_s}
    yield _stage("text_samples", watch_text, "path info", "text_times_s text_Shw", **watching)
    yield _stage("text", text, "text_times_s text_Shw plans", scores=TEXT_COLUMNS)


def _embedding(config: ScoreConfig) -> Iterator[FunctionStage]:
    watching = {"per": "frames", "isolate": True, "picture": None, "every_s": config.every_s}
    name = {"embedder": config.embedder}
    yield _stage("embedding_samples", watch_embedding, "path info", "embedded_times_s embedded_SD", parameters=name, **watching)
    yield _stage("embedding", embedding, "embedded_times_s embedded_SD plans", "embeddings")
    if config.taxonomy:
        labels = {"taxonomy": config.taxonomy, **name}
        tags, scores = VIDEO_TYPE_COLUMNS[:1], VIDEO_TYPE_COLUMNS[1:]
        yield _stage("video_type", video_type, "embeddings", parameters=labels, tags=tags, scores=scores)


def _captions(config: ScoreConfig) -> FunctionStage:
    measured = " ".join(DESCRIBED) if config.measure else ""
    given = {"source": config.captions, "window_s": config.window_s, "embed": config.embed_captions}
    return _stage(
        "captions",
        captions,
        f"path frames plans {measured}",
        "caption_windows caption_embedding",
        tags=("caption_text", "caption_source"),
        parameters=given,
        per="clip",
        isolate=True,
    )


# --- in the decoding pass ------------------------------------------------------------------------------------------


def watch_path(row: Row) -> PathWatcher:
    return PathWatcher(row["info"])


def watch_quality(row: Row, *, niqe: bool, aesthetic: str) -> QualityWatcher:
    """Raises DownloadError where NIQE's statistics cannot be had, UsageError for a plug-in that is not there."""
    model, function = None, None
    if niqe:
        from worldfoundry.core.model_store import get_model
        from worldfoundry.perception.niqe import load_niqe

        model = load_niqe(get_model("niqe"))
    if aesthetic:
        function = partial(aesthetic_score, place=aesthetic)
    return QualityWatcher(row["info"], model, function)


def watch_borders(row: Row) -> BorderWatcher:
    return BorderWatcher(row["info"])


def watch_text(row: Row) -> TextWatcher:
    """Raises MissingExtraError without onnxruntime, DownloadError."""
    from worldfoundry.core.model_store import get_model
    from worldfoundry.perception.text_detector import load_text_detector

    return TextWatcher(load_text_detector(get_model("text-detector")).probability, row["info"])


def watch_embedding(row: Row, *, embedder: str) -> EmbeddingWatcher:
    """Raises DownloadError, MissingExtraError, CheckpointError."""
    from worldfoundry.curation.scores.embedding import clip_embedder

    return EmbeddingWatcher(clip_embedder(embedder), row["info"])


# --- per planned clip ----------------------------------------------------------------------------------------------


def movement(row: Row, *, still: float, shake_ratio: float) -> Row:
    """Motion of every clip, from the pairs of frames that lie inside it."""
    steps_TN = row["steps_TN"]
    made = []
    for plan in row["plans"]:
        inside = (steps_TN[:, 0] - steps_TN[:, 1] >= plan.start_s - 1e-3) & (steps_TN[:, 0] < plan.end_s)
        made.append(motion_of(steps_TN[inside], still=still, shake_ratio=shake_ratio))
    return _columns(made, MOTION_COLUMNS)


def quality(row: Row) -> Row:
    """Medians over the frames looked at inside each clip (clipped shares and luma: means)."""
    samples_SN, made = row["quality_SN"], []
    for plan in row["plans"]:
        inside_SN = samples_SN[_inside(samples_SN[:, 0], plan)][:, 1:]
        values = {}
        for name, column_S in zip(SEEN, inside_SN.T, strict=True):
            known = column_S[~np.isnan(column_S)]
            middle = np.mean if name in ("luma_mean", "clipped_dark", "clipped_bright") else np.median
            values[name] = round(float(middle(known)), 5) if len(known) else None
        made.append(values)
    return _columns(made, SEEN)


def border(row: Row) -> Row:
    """The borders of each clip."""
    return _columns([borders_of(row, plan) for plan in row["plans"]], BORDER_COLUMNS)


def borders_of(row: Row, plan: ClipPlan) -> Row:
    """The columns of one clip, from what `border_samples` stored."""
    samples_S6 = row["borders_S6"]
    return clip_borders(samples_S6[:, 0], samples_S6[:, 1:], row["borders"], plan.start_s, plan.end_s)


def text(row: Row) -> Row:
    times_s, surely = row["text_times_s"], row["text_Shw"]
    made = []
    for plan in row["plans"]:
        frames = [surely[i] / np.float32(255) for i in _inside(times_s, plan)]
        made.append(text_scores(frames, lambda cells: cells))
    return _columns(made, TEXT_COLUMNS)


def embedding(row: Row) -> Row:
    """The mean direction of the vectors of the frames looked at inside each clip, float32 of length 1."""
    from worldfoundry.curation.scores.embedding import unit

    times_s, vectors_SD = row["embedded_times_s"], row["embedded_SD"]
    return {"embeddings": [unit(vectors_SD[_inside(times_s, plan)].mean(0)) for plan in row["plans"]]}


def video_type(row: Row, *, taxonomy: str, embedder: str) -> Row:
    """Raises DataError if the taxonomy was made with another embedder."""
    labels = read_taxonomy(Path(taxonomy), embedder)
    return _columns([labels.classify(vector_D) for vector_D in row["embeddings"]], VIDEO_TYPE_COLUMNS)


def signatures(row: Row) -> Row:
    """Tiny luma pictures of every clip, four per second: what `dedup` compares (uint8 T, 18, 32)."""
    frames, made = row["frames"], []
    times_s = np.array([frames.seconds(int(pts)) for pts in frames.pts_T])
    for plan in row["plans"]:
        wanted = plan.start_s + sample_times(plan.end_s - plan.start_s)
        shown = np.searchsorted(times_s, wanted, side="right").clip(plan.first + 1, plan.last) - 1
        made.append(np.clip(to_luma(row["pictures_THWC"][shown]).round(), 0, 255).astype(np.uint8))
    return {"signatures": made}


def captions(row: Row, *, source: str, window_s: float, embed: bool) -> Row:
    """Captions of one kept clip. Frames are decoded again only for a model that looks at them."""
    from worldfoundry.curation.scores.captions import caption_embedder

    plan: ClipPlan = row["plan"]
    at = next(i for i, other in enumerate(row["plans"]) if other.clip_id == plan.clip_id)
    scores = {name: row[name][at] for name in DESCRIBED if row.get(name) is not None}
    scores["duration_s"] = plan.end_s - plan.start_s
    model = captioner(source)
    windows = plan_windows(plan.last - plan.first, row["frames"].fps, window_s=window_s)
    if source == MEASURED:
        told = [
            {"first": 0, "last": plan.last - plan.first, "text": describe_measured(scores), "source": MEASURED, "tokens": 0}
        ]
    else:
        wanted = {t for window in windows for t in window.shown}
        pictures = iter_frames(Path(row["path"]), start_s=plan.start_s, end_s=plan.end_s)
        frames = {t: frame for t, (_, frame) in enumerate(pictures) if t in wanted}
        told = [vars(caption) for caption in caption_windows(windows, frames, scores, model)]
    words = " ".join(caption["text"] for caption in told)
    return {
        "caption_windows": told,
        "caption_embedding": caption_embedder()(words) if embed else None,
        "caption_text": words,
        "caption_source": model.name,
    }


def _inside(times_s: np.ndarray, plan: ClipPlan) -> np.ndarray:
    """The samples inside a clip; the nearest one if it is so short that there is none."""
    inside = np.flatnonzero((times_s >= plan.start_s - 1e-3) & (times_s < plan.end_s))
    return inside if len(inside) else np.array([np.abs(times_s - (plan.start_s + plan.end_s) / 2).argmin()])


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> Row:
    """From a row per clip to a list per column."""
    return {name: [values[name] for values in rows] for name in names}
