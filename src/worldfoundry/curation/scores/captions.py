"""Captions of a clip, window by window: by a vision-language model, or in words for what was measured, which say that they are that.

Three sources: `measured` (no model), a server with OpenAI's chat interface (`http://…/v1`), a folder of transformers.
A window of which a model says nothing usable has no text, and the reason instead.

Axis legend: H height, W width, C = 3 (RGB).
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldfoundry.core.chat_server import ChatServer, UnusableAnswer
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.transformers_folder import read_folder, read_network, transformers_library

MEASURED = "measured"
INSTRUCTION = "Describe this video clip in two or three sentences: what is in it, what happens, and how the camera moves."
LONG_SIDE = 512  # pixels of the pictures sent
MAX_TOKENS = 200
ATTEMPTS = 3  # of a server that is too busy


@dataclass(frozen=True, kw_only=True)
class Window:
    """Frames [first, last) of a clip that get a caption of their own, and the frames of it that are shown."""

    first: int
    last: int
    shown: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What one window is said to show; `source` tells by whom, `tokens` what the answer took (0 if unknown).

    `text` is None if the model said nothing usable; then `error` says why (else it is "").
    """

    first: int
    last: int
    text: str | None
    source: str
    tokens: int = 0
    error: str = ""


class Captioner(Protocol):
    """Frames of a window (uint8 HWC) and the clip's measured scores in, (text, tokens) out."""

    @property
    def name(self) -> str: ...
    def __call__(self, frames_HWC: Sequence[np.ndarray], scores: Mapping[str, Any]) -> tuple[str, int]: ...


def plan_windows(num_frames: int, fps: float, *, window_s: float = 5.0, shown: int = 8) -> list[Window]:
    """Cut a clip into the number of equal windows that brings their length nearest to `window_s`; `shown` frames of each."""
    count = max(1, round(num_frames / (window_s * fps))) if fps > 0 else 1
    edges = np.linspace(0, num_frames, count + 1).round().astype(int).tolist()
    windows = []
    for first, last in pairwise(edges):
        middles = first + (np.arange(min(shown, last - first)) + 0.5) * (last - first) / min(shown, last - first)
        windows.append(Window(first=first, last=last, shown=tuple(int(t) for t in middles)))
    return windows


def caption_windows(
    windows: Sequence[Window], frames: Mapping[int, np.ndarray], scores: Mapping[str, Any], captioner: Captioner
) -> list[Caption]:
    """A caption per window; `frames` maps the numbers of the frames shown to pictures.

    Raises DownloadError if a server does not answer at all.
    """
    made = []
    for window in windows:
        said: dict[str, Any] = {"text": None, "error": ""}
        try:
            text, tokens = captioner([frames[t] for t in window.shown], scores)
            said = {"text": text, "tokens": tokens} if text else {**said, "tokens": tokens, "error": "It said nothing."}
        except UnusableAnswer as error:
            said["error"] = error.message
        made.append(Caption(first=window.first, last=window.last, source=captioner.name, **said))
    return made


@cache
def captioner(place: str, *, timeout_s: float = 120.0) -> Captioner:
    """`measured`, a server's address, or a folder of transformers; the same one each time, so that a model is read once.

    Raises UsageError, CheckpointError.
    """
    if place == MEASURED:
        return MeasuredCaptioner()
    if place.startswith(("http://", "https://")):
        return ServerCaptioner(place, timeout_s=timeout_s)
    return TransformersCaptioner(Path(place))


# --- what was measured ---------------------------------------------------------------------------------------------


class MeasuredCaptioner:
    """No model: words for the scores."""

    name = MEASURED

    def __call__(self, frames_HWC: Sequence[np.ndarray], scores: Mapping[str, Any]) -> tuple[str, int]:
        return describe_measured(scores), 0


def describe_measured(scores: Mapping[str, Any]) -> str:
    """A sentence of what the scores say, and nothing else; scores that are missing are left out.

    Reads duration_s, camera_motion and its amounts, motion_amount, motion_objects, luma_mean, focus, text_persistent and
    video_type.
    """
    parts = [part for part in (_camera(scores), _movement(scores), _light(scores), _text(scores)) if part]
    kind = f" of type {scores['video_type']}" if scores.get("video_type") else ""
    length = scores.get("duration_s")
    opening = f"A clip of {length:.1f} s{kind}" if length else f"A picture{kind}"
    return f"{opening}{': ' if parts else ''}{', '.join(parts)}. (Measured, not seen by a language model.)"


def _camera(scores: Mapping[str, Any]) -> str:
    kind = scores.get("camera_motion")
    if not kind:
        return ""
    towards = {
        "pan": ("camera_pan", "the camera pans right", "the camera pans left"),
        "tilt": ("camera_tilt", "the camera tilts down", "the camera tilts up"),
        "zoom": ("camera_zoom", "the camera moves or zooms in", "the camera moves or zooms out"),
        "roll": ("camera_roll", "the picture turns clockwise", "the picture turns counterclockwise"),
    }
    if kind in towards:
        name, positive, negative = towards[kind]
        return positive if (scores.get(name) or 0) >= 0 else negative
    return "the camera stands still" if kind == "static" else "the camera shakes"


def _movement(scores: Mapping[str, Any]) -> str:
    amount = scores.get("motion_objects", scores.get("motion_amount"))
    if amount is None:
        return ""
    words = ((0.006, "nothing else moves"), (0.03, "things move slowly"), (0.15, "things move"), (np.inf, "things move fast"))
    return next(word for limit, word in words if amount < limit)


def _light(scores: Mapping[str, Any]) -> str:
    luma = scores.get("luma_mean")
    if luma is None:
        return ""
    return next(word for limit, word in ((50, "dark"), (90, "dim"), (165, "evenly lit"), (256, "bright")) if luma < limit)


def _text(scores: Mapping[str, Any]) -> str:
    share = scores.get("text_persistent")
    return "" if share is None else "with text that stays in the picture" if share > 0.002 else "without lasting text"


# --- models --------------------------------------------------------------------------------------------------------


class ServerCaptioner:
    """A vision-language model behind a server with OpenAI's chat interface; pictures go as JPEG in data addresses."""

    def __init__(self, url: str, *, timeout_s: float = 120.0, wait_s: float = 1.0, instruction: str = INSTRUCTION) -> None:
        """`wait_s`: before a busy server is asked again. Raises UsageError for an address without a host."""
        hint = "Start it, or caption with --scores.captions measured."
        self.name, self.instruction = url, instruction
        self._server = ChatServer(url, what="captioner", hint=hint, timeout_s=timeout_s, attempts=ATTEMPTS, wait_s=wait_s)

    def __call__(self, frames_HWC: Sequence[np.ndarray], scores: Mapping[str, Any]) -> tuple[str, int]:
        """Raises DownloadError if the server does not answer, UnusableAnswer if it refuses or answers something else."""
        pictures = [{"type": "image_url", "image_url": {"url": data_address(frame)}} for frame in frames_HWC]
        content = [*pictures, {"type": "text", "text": self.instruction}]
        text, tokens = self._server.complete(
            [{"role": "user", "content": content}], temperature=0.0, max_tokens=MAX_TOKENS, seed=0
        )
        return " ".join(text.split()), tokens


class TransformersCaptioner:
    """A vision-language model in a folder of transformers, asked greedily; nothing is read before the first clip."""

    def __init__(self, folder: Path, *, instruction: str = INSTRUCTION) -> None:
        """Raises CheckpointError for a folder without config.json."""
        if not (folder / "config.json").is_file():
            hint = f"Give {MEASURED!r}, a server's address, or a transformers folder with config.json."
            raise CheckpointError(f"{str(folder)!r} holds no vision-language model.", hint)
        self.folder, self.name, self.instruction = folder, folder.name, instruction
        self._loaded: tuple[Any, Any] | None = None

    def __call__(self, frames_HWC: Sequence[np.ndarray], scores: Mapping[str, Any]) -> tuple[str, int]:
        """Raises MissingExtraError without transformers, CheckpointError for a folder that it cannot read."""
        import torch
        from PIL import Image

        processor, network = self._load()
        pictures = [Image.fromarray(small(frame)) for frame in frames_HWC]
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": self.instruction}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[pictures], return_tensors="pt")
        with torch.inference_mode():
            made_BL = network.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        answer = made_BL[0, inputs["input_ids"].shape[1] :]
        return " ".join(processor.decode(answer, skip_special_tokens=True).split()), len(answer)

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            library = transformers_library()
            network = read_network(self.folder, library.AutoModelForImageTextToText.from_pretrained, what="captioner")
            self._loaded = read_folder(self.folder, library.AutoProcessor.from_pretrained), network
        return self._loaded


def small(frame_HWC: np.ndarray) -> np.ndarray:
    """The frame scaled down so that its longer side has at most 512 pixels."""
    from PIL import Image

    height, width = frame_HWC.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BILINEAR))


def data_address(frame_HWC: np.ndarray) -> str:
    """The frame as `data:image/jpeg;base64,…`."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(small(frame_HWC)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


# --- captions as vectors -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CaptionEmbedder:
    """all-MiniLM-L6-v2: the mean of a text's last hidden states, of length 1 (384 numbers)."""

    network: Any
    tokenizer: Any
    name: str = "minilm"

    def __call__(self, text: str) -> np.ndarray:
        import torch

        ids_BL = torch.tensor([self.tokenizer.encode(text).ids[:256]])
        with torch.inference_mode():
            states_BLD = self.network(ids_BL, torch.ones_like(ids_BL)).float()
        vector_D = states_BLD[0].mean(0).numpy()
        return vector_D / max(float(np.linalg.norm(vector_D)), 1e-12)


@cache
def caption_embedder(*, download: bool = True) -> CaptionEmbedder:
    """MiniLM from the cache, fetched on first use. Raises DownloadError."""
    from tokenizers import Tokenizer
    from worldfoundry.core.model_store import get_model
    from worldfoundry.perception.minilm import load_minilm

    folder = get_model("minilm", download=download)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return CaptionEmbedder(network=load_minilm(folder), tokenizer=tokenizer)
