"""Clips through a tokenizer and back: shards of latents or indices, with what is needed to undo padding and to refuse misuse.

The folder is a `data.latents.LatentCache`. Its identity says which tokenizer made the tensors (hashes of config and weights),
in which dtype, with which codebook, and which text encoder; each clip's facts say its length, size, rate, source and caption.

Axis legend: B batch, C channels, T frames, H height, W width, L text rows, D width of a text row.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from worldfoundry.conditioning.text import TextEncoder
from worldfoundry.core.config import Config
from worldfoundry.core.errors import DataError, MediaError, UsageError
from worldfoundry.core.files import sole_writer
from worldfoundry.core.progress import progress, say
from worldfoundry.core.video_io import write_video
from worldfoundry.data.latents import LatentCache
from worldfoundry.inference.token_sources import Source, sources
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
                        _encode(cache, clip, tokenizer, encoder)
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
            written.append(_decode(cache, key, tokenizer, out / f"{key}.mp4"))
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
def _encode(cache: LatentCache, clip: Source, tokenizer: Tokenizer, encoder: TextEncoder | None) -> None:
    frames, fps = clip.read()
    x_BCTHW = torch.from_numpy(frames)[None].movedim(-1, 1).float() / 127.5 - 1
    x_BCTHW = x_BCTHW.to(_device(tokenizer))
    if isinstance(tokenizer, DiscreteTokenizer):
        small = torch.uint16 if tokenizer.config.codebook_size <= 2**16 else torch.int32
        tensors = {"indices": tokenizer.encode_indices(x_BCTHW, strict=False)[0].to(small)}
    else:
        tensors = {"latents": tokenizer.encode(x_BCTHW, strict=False)[0]}
    if encoder is not None:
        rows = min(encoder.count_tokens(clip.caption), encoder.max_length)
        tensors["text"] = encoder.encode([clip.caption])[0, :rows]
    facts = ClipFacts(
        num_frames=frames.shape[0],
        height=frames.shape[1],
        width=frames.shape[2],
        fps=fps,
        source=clip.source,
        source_bytes=clip.size,
        caption=clip.caption,
    )
    cache.put(clip.key, tensors, facts.to_dict())


@torch.inference_mode()
def _decode(cache: LatentCache, key: str, tokenizer: Tokenizer, target: Path) -> Path:
    where = f"{cache.folder}: {key}"
    facts = ClipFacts.from_dict(cache.facts(key), where=where)
    name = "indices" if tokenizer.spec.discrete else "latents"
    tensors = cache.get(key)
    if name not in tensors:
        raise DataError(f"{where!r} holds {', '.join(tensors)}, but this tokenizer decodes {name}.")
    stored = tensors[name][None].to(_device(tokenizer))
    if stored.is_floating_point() and not torch.isfinite(stored).all():
        raise DataError(f"{where!r}: {name} hold NaN or infinity.", "Encode the clip again.")
    size = facts.num_frames, facts.height, facts.width
    if isinstance(tokenizer, DiscreteTokenizer):
        x_BCTHW = tokenizer.decode_indices(stored.int(), size=size)
    else:
        x_BCTHW = tokenizer.decode(stored, size=size)
    write_video(target, to_frames(x_BCTHW)[0].numpy(), facts.fps or STILL_FPS)
    return target


def to_frames(x_BCTHW: Tensor) -> Tensor:
    """Float video → uint8 [B, T, H, W, C] on the CPU."""
    return x_BCTHW.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1).cpu()


def _device(tokenizer: Tokenizer) -> torch.device:
    return next(iter(tokenizer.parameters())).device
