"""The scores as stages: watchers share the decoding pass, and a stage per source then says of every planned clip what was seen.

What is said of pictures is said of image files too; what needs time (movement, signatures) is null for them.

Axis legend: T, S frames in time, N numbers of each, D features, h x w cells.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldfoundry.core.errors import DownloadError
from worldfoundry.core.video_io import read_image
from worldfoundry.curation.encode import clip_pictures, clip_times
from worldfoundry.curation.plan import ClipPlan
from worldfoundry.curation.rows import Row, SourceError
from worldfoundry.curation.scores.aesthetic import SUFFIX, read_head
from worldfoundry.curation.scores.borders import BORDER_COLUMNS, clip_borders, crop_box
from worldfoundry.curation.scores.captions import MEASURED, caption_windows, captioner, describe_measured, plan_windows
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.motion import MOTION_COLUMNS, SHAKE_RATIO, STILL, motion_of
from worldfoundry.curation.scores.quality import QUALITY_COLUMNS, aesthetic_score
from worldfoundry.curation.scores.signature import sample_times
from worldfoundry.curation.scores.text import TEXT_COLUMNS, finds_text, text_scores
from worldfoundry.curation.scores.video_type import VIDEO_TYPE_COLUMNS, classifier
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

LOOKING = {"per": "frames", "isolate": True, "images": True, "picture": None}
BORDERS = "borders_S6 borders"
# What captions of measured scores are made of.
DESCRIBED = ("camera_motion", "camera_pan", "camera_tilt", "camera_zoom", "camera_roll", "motion_objects", "luma_mean")


Crop = Literal["black", "any", "off"]


def score_stages(config: ScoreConfig, crop: Crop = "off") -> tuple[FunctionStage, ...]:
    """The stages that the config asks for, each after those whose outputs it reads. `crop`: what encoding cuts away."""
    stages = [*_measured(config)] if config.measure else []
    if config.text:
        stages += _text(config)
    if config.embedder:
        stages += _embedding(config)
    if config.dedup != "off":
        stages.append(_stage("signature", signatures, "pictures_THWC frames plans", "signatures"))
    if config.captions:
        stages.append(_captions(config, crop if config.measure else "off"))
    if config.embed_captions == "on":
        told = "caption_text" if config.captions else ""
        inputs = f"caption episode {told}"
        stages.append(_stage("caption_embedding", embed_caption, inputs, "caption_embedding", per="clip", images=True))
    return tuple(stages)


def _stage(name: str, function: Callable[..., Any], inputs: str, outputs: str = "", **options: Any) -> FunctionStage:
    given = (*outputs.split(), *options.get("scores", ()), *options.get("tags", ()))
    return FunctionStage(name=name, function=function, inputs=tuple(inputs.split()), outputs=given, **options)


def _measured(config: ScoreConfig) -> Iterator[FunctionStage]:
    path = {"per": "frames", "isolate": True, "picture": PATH_PICTURE, "every_s": PATH_EVERY_S}
    yield _stage("camera_path", watch_path, "path info", "steps_TN", **path)
    function = "" if config.aesthetic.endswith(SUFFIX) else config.aesthetic
    seen = {"parameters": {"niqe": config.niqe, "aesthetic": function}, "every_s": config.every_s, "version": 2}
    yield _stage("quality_samples", watch_quality, "path info", "quality_SN", **seen, **LOOKING)
    yield _stage("border_samples", watch_borders, "path info", BORDERS, every_s=BORDERS_EVERY_S, **LOOKING)
    scores = tuple(name for name in MOTION_COLUMNS if name != "camera_motion")
    limits = {"still": STILL, "shake_ratio": SHAKE_RATIO}
    yield _stage("movement", movement, "steps_TN plans", scores=scores, tags=("camera_motion",), parameters=limits)
    columns = (*QUALITY_COLUMNS, "aesthetic") if function else QUALITY_COLUMNS
    yield _stage("quality", quality, "quality_SN plans", scores=columns, images=True)
    yield _stage("border", border, f"{BORDERS} plans", scores=BORDER_COLUMNS, version=2, images=True)


def _text(config: ScoreConfig) -> Iterator[FunctionStage]:
    if not finds_text():
        yield _stage("text", no_text, "plans", scores=TEXT_COLUMNS, images=True)
        return
    yield _stage("text_samples", watch_text, "path info", "text_times_s text_Shw", every_s=config.every_s, **LOOKING)
    yield _stage("text", text, "text_times_s text_Shw plans", scores=TEXT_COLUMNS, images=True)


def _embedding(config: ScoreConfig) -> Iterator[FunctionStage]:
    name = {"embedder": config.embedder}
    watching = {"parameters": name, "every_s": config.every_s, **LOOKING}
    yield _stage("embedding_samples", watch_embedding, "path info", "embedded_times_s embedded_SD", **watching)
    yield _stage("embedding", embedding, "embedded_times_s embedded_SD plans", "embeddings", images=True)
    if config.taxonomy:
        labels = {"taxonomy": config.taxonomy, "content": _content(config.taxonomy), **name}
        columns = {"tags": VIDEO_TYPE_COLUMNS[:1], "scores": VIDEO_TYPE_COLUMNS[1:]}
        yield _stage("video_type", video_type, "embeddings", parameters=labels, images=True, **columns)
    if config.aesthetic.endswith(SUFFIX):
        head = {"head": config.aesthetic, "content": _content(config.aesthetic)}
        yield _stage("aesthetic", aesthetic, "embeddings", scores=("aesthetic",), parameters=head, images=True)


def _content(path: str) -> str:
    """A changed file is another parameter. Whether it is there at all, `prepare` says."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if Path(path).is_file() else ""


def _captions(config: ScoreConfig, crop: Crop) -> FunctionStage:
    measured = " ".join(DESCRIBED) if config.measure else ""
    borders = BORDERS if crop != "off" and config.captions != MEASURED else ""
    return _stage(
        "captions",
        captions,
        f"path image frames plans {measured} {borders}",
        "caption_windows",
        tags=("caption_text", "caption_source", "caption_error"),
        parameters={"source": config.captions, "window_s": config.window_s, "crop": crop if borders else "off"},
        per="clip",
        isolate=True,
        images=True,
        version=2,
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
    seen = (*QUALITY_COLUMNS, "aesthetic")[: samples_SN.shape[1] - 1]
    for plan in row["plans"]:
        inside_SN = samples_SN[_inside(samples_SN[:, 0], plan)][:, 1:]
        values = {}
        for name, column_S in zip(seen, inside_SN.T, strict=True):
            known = column_S[~np.isnan(column_S)]
            middle = np.mean if name in ("luma_mean", "clipped_dark", "clipped_bright") else np.median
            values[name] = round(float(middle(known)), 5) if len(known) else None
        made.append(values)
    return _columns(made, seen)


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


def no_text(row: Row) -> Row:
    """Without a detector nothing can be said."""
    return {name: [None] * len(row["plans"]) for name in TEXT_COLUMNS}


def embedding(row: Row) -> Row:
    """The mean direction of the vectors of the frames looked at inside each clip, float32 of length 1."""
    from worldfoundry.curation.scores.embedding import unit

    times_s, vectors_SD = row["embedded_times_s"], row["embedded_SD"]
    return {"embeddings": [unit(vectors_SD[_inside(times_s, plan)].mean(0)) for plan in row["plans"]]}


def video_type(row: Row, *, taxonomy: str, content: str, embedder: str) -> Row:
    """Raises DataError if the taxonomy was made with another embedder."""
    classify = classifier(taxonomy, embedder)
    return _columns([classify(vector_D) for vector_D in row["embeddings"]], VIDEO_TYPE_COLUMNS)


def aesthetic(row: Row, *, head: str, content: str) -> Row:
    """Raises DataError if the head does not fit the embeddings."""
    score = read_head(Path(head))
    return {"aesthetic": [score(vector_D) for vector_D in row["embeddings"]]}


def signatures(row: Row) -> Row:
    """Tiny luma pictures of every clip, four per second: what `dedup` compares (uint8 T, 18, 32)."""
    frames, made = row["frames"], []
    times_s = np.array([frames.seconds(int(pts)) for pts in frames.pts_T])
    for plan in row["plans"]:
        wanted = plan.start_s + sample_times(plan.end_s - plan.start_s)
        shown = np.searchsorted(times_s, wanted, side="right").clip(plan.first + 1, plan.last) - 1
        made.append(np.clip(to_luma(row["pictures_THWC"][shown]).round(), 0, 255).astype(np.uint8))
    return {"signatures": made}


def captions(row: Row, *, source: str, window_s: float, crop: Crop) -> Row:
    """Captions of one kept clip, window by window in frames of the clip. Only for a model that looks at them are frames decoded.

    Raises SourceError CAPTIONS_FAILED if a server does not answer.
    """
    plan: ClipPlan = row["plan"]
    at = next(i for i, other in enumerate(row["plans"]) if other.clip_id == plan.clip_id)
    scores = {name: row[name][at] for name in DESCRIBED if row.get(name) is not None}
    if not row["image"]:
        scores["duration_s"] = plan.end_s - plan.start_s
    num_frames, fps = (1, 0.0) if row["image"] else (len(clip_times(row["frames"], plan)), row["frames"].fps)
    windows, model = plan_windows(num_frames, fps, window_s=window_s), captioner(source)
    if source == MEASURED:
        text = describe_measured(scores) if scores else None
        told: list[Row] = [{"first": 0, "last": num_frames, "text": text, "source": MEASURED, "tokens": 0, "error": ""}]
    else:
        frames = _shown(row, {t for window in windows for t in window.shown}, crop)
        try:
            told = [vars(caption) for caption in caption_windows(windows, frames, scores, model)]
        except DownloadError as error:
            raise SourceError("CAPTIONS_FAILED", error.message) from error
    errors = dict.fromkeys(window["error"] for window in told if window["error"])
    return {
        "caption_windows": told,
        "caption_text": " ".join(window["text"] for window in told if window["text"]) or None,
        "caption_source": model.name,
        "caption_error": " ".join(errors) or None,
    }


def _shown(row: Row, wanted: set[int], crop: Crop) -> dict[int, np.ndarray]:
    """The frames of a clip by their numbers, without the borders that its encoding would cut away."""
    plan, path = row["plan"], Path(row["path"])
    whole = iter([read_image(path)]) if row["image"] else clip_pictures(path, row["frames"], plan)
    frames = {t: frame for t, frame in enumerate(whole) if t in wanted}
    borders = row.get("borders")
    box = crop_box(borders_of(row, plan), borders["height"], borders["width"], crop) if borders else None
    if box is None:
        return frames
    left, top, width, height = box
    return {t: frame[top : top + height, left : left + width] for t, frame in frames.items()}


def embed_caption(row: Row) -> Row:
    """The caption that the clip ends up with (a sidecar's wins) as 384 numbers; None without one."""
    from worldfoundry.curation.scores.captions import caption_embedder

    told = row["episode"].about.get("caption") if row["episode"] else None
    text = row["caption"] or told or row.get("caption_text")
    return {"caption_embedding": caption_embedder()(str(text)) if text else None}


def _inside(times_s: np.ndarray, plan: ClipPlan) -> np.ndarray:
    """The samples inside a clip; the nearest one if it is so short that there is none."""
    inside = np.flatnonzero((times_s >= plan.start_s - 1e-3) & (times_s < plan.end_s))
    return inside if len(inside) else np.array([np.abs(times_s - (plan.start_s + plan.end_s) / 2).argmin()])


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> Row:
    """From a row per clip to a list per column."""
    return {name: [values[name] for values in rows] for name in names}
