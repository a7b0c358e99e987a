"""Clips through a tokenizer and back: shards of latents or indices, with what is needed to undo padding and to refuse misuse.

A clip passes through in chunks, so that only its latents are ever in memory whole. The folder is a `data.latents.LatentCache`:
its identity says which tokenizer made the tensors (hashes of config and weights), in which dtype, with which codebook, and which
text encoder; each clip's facts say its length, size, rate, source and caption.

Axis legend: B batch, C channels, T frames, H height, W width, L text rows, D width of a text row.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from worldfoundry.conditioning.text import TextEncoder
from worldfoundry.core.config import Config
from worldfoundry.core.errors import DataError, MediaError, UsageError
from worldfoundry.core.files import sole_writer
from worldfoundry.core.progress import Progress, progress, say
from worldfoundry.core.video_io import write_video
from worldfoundry.data.latents import LatentCache
from worldfoundry.inference.token_sources import Frames, Source, sources
from worldfoundry.tokenizers.chunks import decode_stream, encode_stream, latent_frames_per_chunk
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer

STILL_FPS = 24.0


class ClipFacts(Config):
    """What a shard says of one clip."""

    num_frames: int = Field(ge=1)
    """Frames before padding."""
    height: int = Field(ge=1)
    """Rows before padding."""
    width: int = Field(ge=1)
    """Columns before padding."""
    fps: float = Field(ge=0)
    """Frames per second; 0 for an image."""
    source: str = ""
    """Name of the file, or id of the source video, that it was made from."""
    source_bytes: int = 0
    """Size of that file or clip."""
    caption: str = ""
    """What is seen, if anyone said so."""


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """What `tokenize` did: clips encoded now, clips that were there already, and why others failed."""

    made: int
    found: int
    shards: int
    failed: Mapping[str, str]


def tokenizer_identity(tokenizer: Tokenizer) -> dict[str, str]:
    """Short hashes of config and weights (all tensors by name, dtype, shape and bytes)."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tokenizer.state_dict().items())}
    return {"config": tokenizer.config.hash(), "weights": hashlib.sha256(save(state)).hexdigest()[:16]}


def token_identity(
    tokenizer: Tokenizer, made_by: Mapping[str, str] | None = None, encoder: TextEncoder | None = None
) -> dict[str, Any]:
    """What decides the tensors of a token folder. `made_by` = `tokenizer_identity` before a cast to another dtype."""
    spec = tokenizer.spec
    text = encoder and {"encoder": encoder.name, "width": encoder.width, "padded_length": encoder.max_length}
    return {
        "content": "indices" if spec.discrete else "latents",
        "tokenizer": dict(made_by or tokenizer_identity(tokenizer)),
        "dtype": str(tokenizer.dtype).removeprefix("torch."),
        "channels": spec.channels,
        "compression": [spec.t, spec.h, spec.w],
        "levels": list(spec.levels),
        "text": text,
    }


def tokenize(
    source: Path,
    tokenizer: Tokenizer,
    out: Path,
    *,
    made_by: Mapping[str, str] | None = None,
    encoder: TextEncoder | None = None,
    shard_mb: float = 64.0,
) -> Tokenized:
    """Encode a video, an image, every one in a folder, or a clip dataset into the shards of `out`; goes on where it stopped.

    Entries hold `latents` (raw, [C, T, H, W]) or `indices` ([T, H, W], uint16 up to 65 536 codes, else int32), and with an
    `encoder` `text` [rows of the caption, D], to be padded with zeros to the identity's `padded_length`. A file that cannot be
    read is named in the manifest and skipped. Raises UsageError if nothing could be encoded, DataError if `out` was made with
    other options or if a half-precision tokenizer overflows.
    """
    clips, failed, found = sources(source), {}, 0
    identity = token_identity(tokenizer, made_by, encoder)
    with sole_writer(out), LatentCache(out, identity=identity, shard_mb=shard_mb) as cache:
        with progress("tokenizing", len(clips), "clips") as bar:
            for clip in clips:
                if clip.key in cache:
                    _check_same(cache, clip)
                    found += 1
                else:
                    try:
                        _encode(cache, clip, tokenizer, encoder, bar)
                    except MediaError as error:
                        failed[clip.source] = f"{error.code}: {error.message}"
                        say(f"skipped: {error.message}")
                bar.advance(note=clip.key)
        if not len(cache):
            reason = next(iter(failed.values()), "")
            raise UsageError(f"None of the {len(clips)} files in {str(source)!r} could be encoded.", reason)
        cache.close()
        cache.note(failed=failed)
    made = len(clips) - found - len(failed)
    return Tokenized(made=made, found=found, shards=len(list(out.glob("[0-9]*.safetensors"))), failed=failed)


def detokenize(
    source: Path, tokenizer: Tokenizer, out: Path, *, made_by: Mapping[str, str] | None = None, force: bool = False
) -> list[Path]:
    """The inverse: every clip of a token folder (or of one of its shards) becomes OUT/KEY.mp4.

    Raises DataError for anything but a token folder, for other content, codebook or shape of latents than this tokenizer's, and
    (unless `force`) for latents of another tokenizer.
    """
    if not source.exists():
        raise UsageError(f"{str(source)!r} does not exist.")
    if source.is_file() and source.suffix != ".safetensors":
        raise DataError(f"{str(source)!r} is no shard of latents.", "Give a folder written by `worldfoundry tokenize`.")
    cache = LatentCache.open(source if source.is_dir() else source.parent)
    check_decodable(cache.identity, token_identity(tokenizer, made_by), str(source), force=force)
    keys = cache.keys() if source.is_dir() else cache.shard_keys(source.name)
    if not keys:
        raise DataError(f"{str(source)!r} holds no clip.", "Run `worldfoundry tokenize` to its end.")
    written = []
    with progress("decoding", len(keys), "clips") as bar:
        for key in keys:
            written.append(_decode(cache, key, tokenizer, out / f"{key}.mp4", bar))
            bar.advance(note=key)
    return written


def check_decodable(stored: Mapping[str, Any], own: Mapping[str, Any], where: str, *, force: bool = False) -> None:
    """Whether tensors of one identity mean something to a tokenizer of another. Raises DataError that says what differs."""
    if stored.get("content") != own["content"]:
        hint = "The windows of a training cannot be decoded." if stored.get("content") == "training windows" else ""
        raise DataError(
            f"{where!r} holds {stored.get('content')}, but this tokenizer decodes {own['content']}.",
            hint or f"Give the {'discrete' if own['content'] == 'latents' else 'continuous'} tokenizer that made them.",
        )
    for name in ("levels", "channels", "compression"):
        if stored.get(name) != own[name]:
            raise DataError(
                f"{where!r} was made with {name} {stored.get(name)!r}, but this tokenizer has {own[name]!r}.",
                "Give the tokenizer that made it.",
            )
    if stored.get("tokenizer") != own["tokenizer"] and not force:
        differs = [part for part in ("config", "weights") if stored["tokenizer"].get(part) != own["tokenizer"][part]]
        raise DataError(
            f"{where!r} was made by another tokenizer: its {' and '.join(differs)} differ.",
            "Give the tokenizer that made it, or --force if this one shares its latent space.",
        )


def _check_same(cache: LatentCache, clip: Source) -> None:
    known = cache.facts(clip.key).get("source_bytes")
    if known != clip.size:
        raise DataError(
            f"{str(cache.folder)!r} holds {clip.key!r} made from a file of {known!r} bytes; it has {clip.size!r} now.",
            "Choose another folder for other clips, or remove this one.",
        )


@torch.inference_mode()
def _encode(cache: LatentCache, clip: Source, tokenizer: Tokenizer, encoder: TextEncoder | None, bar: Progress) -> None:
    frames, parts = clip.read(), []
    for z_BCTHW in encode_stream(tokenizer, _float_chunks(frames, tokenizer)):
        parts.append(z_BCTHW.cpu())
        bar.advance(0, note=f"{clip.key}, {frames.count} frames")
    z_BCTHW = torch.cat(parts, dim=2)
    if isinstance(tokenizer, DiscreteTokenizer):
        small = torch.uint16 if tokenizer.config.codebook_size <= 2**16 else torch.int32
        tensors = {"indices": tokenizer.quantizer.codes_to_indices(z_BCTHW)[0].to(small)}
    else:
        tensors = {"latents": z_BCTHW[0]}
    if encoder is not None:
        rows = min(encoder.count_tokens(clip.caption), encoder.max_length)
        tensors["text"] = encoder.encode([clip.caption])[0, :rows]
    facts = ClipFacts(
        num_frames=frames.count,
        height=frames.height,
        width=frames.width,
        fps=frames.fps,
        source=clip.source,
        source_bytes=clip.size,
        caption=clip.caption,
    )
    cache.put(clip.key, tensors, facts.to_dict())


def _float_chunks(frames: Frames, tokenizer: Tokenizer) -> Iterator[Tensor]:
    """Chunks [1, 3, T, H, W] in [-1, 1], cut and padded so that their latents are those of `encode(clip, strict=False)`."""
    spec = tokenizer.spec
    down, right = -frames.height % spec.h, -frames.width % spec.w
    count = latent_frames_per_chunk(tokenizer.config, 1, frames.height + down, frames.width + right, tokenizer.dtype) * spec.t

    def missing() -> Iterator[np.ndarray]:
        yield from repeat(frames.last, spec.round_up_frames(frames.count) - frames.count)

    padded = chain(frames, missing())
    while chunk := list(islice(padded, count)):
        x_BCTHW = torch.from_numpy(np.stack(chunk)).to(_device(tokenizer)).movedim(-1, 0)[None].float() / 127.5 - 1
        yield F.pad(x_BCTHW, (0, right, 0, down, 0, 0), mode="replicate")


@torch.inference_mode()
def _decode(cache: LatentCache, key: str, tokenizer: Tokenizer, target: Path, bar: Progress) -> Path:
    where = f"{cache.folder}: {key}"
    facts = ClipFacts.from_dict(cache.facts(key), where=where)
    name = "indices" if tokenizer.spec.discrete else "latents"
    tensors = cache.get(key)
    if name not in tensors:
        raise DataError(f"{where!r} holds {', '.join(tensors)}, but this tokenizer decodes {name}.")
    stored = tensors[name][None]
    if stored.is_floating_point() and not torch.isfinite(stored).all():
        raise DataError(f"{where!r}: {name} hold NaN or infinity.", "Encode the clip again.")
    frames = islice(_decoded(stored, facts, tokenizer), facts.num_frames)
    return write_video(target, _counted(frames, key, bar), facts.fps or STILL_FPS)


def _decoded(stored: Tensor, facts: ClipFacts, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Latents [1, C, T, H, W] or indices [1, T, H, W] → uint8 HWC frames of the clip's size, padding frames included."""
    spec, (rows, columns) = tokenizer.spec, stored.shape[-2:]
    count = latent_frames_per_chunk(tokenizer.config, 1, rows * spec.h, columns * spec.w, tokenizer.dtype)
    chunks = (chunk.to(_device(tokenizer)) for chunk in stored.split(count, dim=-3))
    if isinstance(tokenizer, DiscreteTokenizer):
        chunks = (tokenizer.quantizer.indices_to_codes(chunk.int(), tokenizer.dtype) for chunk in chunks)
    for x_BCTHW in decode_stream(tokenizer, chunks):
        yield from to_frames(x_BCTHW[..., : facts.height, : facts.width])[0].numpy()


def _counted(frames: Iterator[np.ndarray], key: str, bar: Progress) -> Iterator[np.ndarray]:
    for number, frame in enumerate(frames, 1):
        bar.advance(0, note=f"{key}, {number} frames")
        yield frame


def to_frames(x_BCTHW: Tensor) -> Tensor:
    """Float video → uint8 [B, T, H, W, C] on the CPU."""
    return x_BCTHW.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1).cpu()


def _device(tokenizer: Tokenizer) -> torch.device:
    return next(iter(tokenizer.parameters())).device
