"""Files through a tokenizer and back: `NAME.safetensors` with latents or indices, and what is needed to undo padding.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import json
from collections import Counter
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from worldfoundry.core.config import Config
from worldfoundry.core.errors import DataError, MediaError, UsageError
from worldfoundry.core.files import atomic_path, write_json
from worldfoundry.core.progress import progress, say
from worldfoundry.core.video_io import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_media, write_video
from worldfoundry.tokenizers.tokenizer import Tokenizer, pad_to_multiple

STILL_FPS = 24.0


class ClipFacts(Config):
    """What a token file says of its clip."""

    num_frames: int = Field(ge=1)
    """Frames before padding."""
    height: int = Field(ge=1)
    """Rows before padding."""
    width: int = Field(ge=1)
    """Columns before padding."""
    fps: float = Field(ge=0)
    """Frames per second; 0 for an image."""
    source: str = ""
    """Name of the file it was made from."""


def tokenize(source: Path, tokenizer: Tokenizer, out: Path, *, name: str) -> list[Path]:
    """Encode a video, an image, or every one in a folder; writes OUT/NAME.safetensors and OUT/manifest.json.

    Discrete tokenizers store `indices`, continuous ones raw `latents`. A file that cannot be read is named in the
    manifest and skipped. Subfolders are kept. Raises UsageError if nothing could be encoded.
    """
    files = _media_files(source)
    written, failed, names = [], {}, _names(files, source)
    with progress("tokenizing", len(files), "files") as bar:
        for file in files:
            try:
                written.append(_encode_file(file, tokenizer, out / f"{names[file]}.safetensors"))
            except MediaError as error:
                failed[str(file)] = f"{error.code}: {error.message}"
                say(f"skipped: {error.message}")
            bar.advance(note=file.name)
    if not written:
        raise UsageError(
            f"None of the {len(files)} files in {str(source)!r} could be encoded.", next(iter(failed.values()), "")
        )
    listed = [path.relative_to(out).as_posix() for path in written]
    write_json(out / "manifest.json", {"tokenizer": name, "files": listed, "failed": failed})
    return written


def detokenize(source: Path, tokenizer: Tokenizer, out: Path) -> list[Path]:
    """The inverse: every `.safetensors` file that `tokenize` wrote becomes OUT/NAME.mp4."""
    files = sorted(source.rglob("*.safetensors")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise UsageError(f"{str(source)!r} holds no .safetensors files written by `worldfoundry tokenize`.")
    names = _names(files, source)
    with progress("decoding", len(files), "files") as bar:
        for file in files:
            _decode_file(file, tokenizer, out / f"{names[file]}.mp4")
            bar.advance(note=file.name)
    return [out / f"{names[file]}.mp4" for file in files]


def _names(files: list[Path], source: Path) -> dict[Path, str]:
    """Where each file's result goes, without suffix: its place below `source`; namesakes keep their old suffix in it."""
    plain = {file: file.relative_to(source if source.is_dir() else file.parent).with_suffix("") for file in files}
    seen = Counter(plain.values())
    return {file: f"{name}{file.suffix if seen[name] > 1 else ''}" for file, name in plain.items()}


def _media_files(source: Path) -> list[Path]:
    if not source.exists():
        raise UsageError(f"{str(source)!r} does not exist.")
    files = (
        [source]
        if source.is_file()
        else sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES)
    )
    if not files:
        raise UsageError(f"{str(source)!r} holds no video or image.")
    return files


@torch.inference_mode()
def _encode_file(file: Path, tokenizer: Tokenizer, target: Path) -> Path:
    clip = read_media(file)
    x_BCTHW = torch.from_numpy(clip.frames)[None].movedim(-1, 1).float() / 127.5 - 1
    x_BCTHW = pad_to_multiple(x_BCTHW.to(_device(tokenizer)), tokenizer.spec)
    if tokenizer.spec.discrete:
        tensors = {"indices": tokenizer.encode_indices(x_BCTHW)[0].int()}  # type: ignore[operator]
    else:
        tensors = {"latents": tokenizer.encode(x_BCTHW)[0]}
    frames, height, width = clip.frames.shape[:3]
    facts = ClipFacts(num_frames=frames, height=height, width=width, fps=clip.fps, source=file.name).to_dict()
    with atomic_path(target) as temporary:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata={"clip": json.dumps(facts)})
    return target


@torch.inference_mode()
def _decode_file(file: Path, tokenizer: Tokenizer, target: Path) -> None:
    tensors, facts = _read_tokens(file)
    wanted = "indices" if tokenizer.spec.discrete else "latents"
    if wanted not in tensors:
        raise DataError(f"{str(file)!r} holds {', '.join(tensors)}, but this tokenizer decodes {wanted}.")
    batch = tensors[wanted][None].to(_device(tokenizer))
    x_BCTHW = tokenizer.decode_indices(batch) if wanted == "indices" else tokenizer.decode(batch)  # type: ignore[operator]
    x_BCTHW = x_BCTHW[:, :, : facts.num_frames, : facts.height, : facts.width]
    video = x_BCTHW[0].float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
    write_video(target, video, facts.fps or STILL_FPS)


def _read_tokens(file: Path) -> tuple[dict[str, torch.Tensor], ClipFacts]:
    try:
        with safe_open(str(file), "pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("clip", "null"))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DataError(f"{str(file)!r} is not a readable safetensors file: {error}.") from error
    if facts is None:
        raise DataError(f"{str(file)!r} was not written by `worldfoundry tokenize`: it does not say how long the clip is.")
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise DataError(f"{str(file)!r}: {', '.join(broken)} hold NaN or infinity.", "Encode the clip again.")
    return tensors, ClipFacts.from_dict(facts, where=str(file))


def _device(tokenizer: Tokenizer) -> torch.device:
    return next(iter(tokenizer.parameters())).device
