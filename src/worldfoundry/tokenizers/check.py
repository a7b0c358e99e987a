"""Does a tokenizer keep the contract of core.contracts? Run this over your own before you train a world model on it.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.contracts import TokenizerSpec, VideoTokenizer
from worldfoundry.core.errors import WorldFoundryError

# Of the largest value. The same numbers in another batch or clip length may be summed in another order.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
HALF_TOLERANCE = 5e-2


@torch.no_grad()
def check_tokenizer(tokenizer: VideoTokenizer, *, channels: int = 3, seed: int = 0) -> None:
    """Encode and decode small noise clips and compare with what `spec` promises.

    Checked: shapes, one frame as an image, dtype, determinism, independence of clips in a batch, causality (if the spec
    claims it) of encoder and decoder, normalisation and its inverse, and of a discrete tokenizer its indices.
    Raises WorldFoundryError that lists every breach. Put a module in eval mode first if it behaves otherwise in training.
    """
    if not isinstance(tokenizer, VideoTokenizer):
        raise WorldFoundryError(f"{type(tokenizer).__name__} lacks spec, encode, decode, normalize or denormalize.")
    spec = tokenizer.spec
    generator = torch.Generator().manual_seed(seed)
    dtype, device = _dtype_and_device(tokenizer)
    shape = (2, channels, 1 + 2 * spec.t, 2 * spec.h, 3 * spec.w)
    video_BCTHW = (torch.rand(shape, generator=generator) * 2 - 1).to(device, dtype)
    breaches = list(_check_shapes(tokenizer, spec, video_BCTHW))
    if not breaches:  # the other checks compare tensors of the promised shapes
        for check in (_check_repeatable, _check_causal, _check_statistics, _check_discrete):
            breaches += check(tokenizer, spec, video_BCTHW)
    if breaches:
        raise WorldFoundryError(f"{type(tokenizer).__name__} breaks the tokenizer contract: {'; '.join(breaches)}.")


def _check_shapes(tokenizer: VideoTokenizer, spec: TokenizerSpec, video: Tensor) -> Iterator[str]:
    for frames in (1, 1 + spec.t, 1 + 2 * spec.t):
        x = video[:, :, :frames]
        want = (len(x), spec.channels, spec.latent_frames(frames), x.shape[3] // spec.h, x.shape[4] // spec.w)
        z = tokenizer.encode(x)
        if z.shape != want:
            yield f"encode of {frames} frames gives {list(z.shape)}, spec says {list(want)}"
            continue
        y = tokenizer.decode(z)
        if y.shape != x.shape:
            yield f"decode of its {frames}-frame latents gives {list(y.shape)}, not the video's {list(x.shape)}"
        for name, out in (("encode", z), ("decode", y)):
            if out.dtype != x.dtype:
                yield f"{name} gives {out.dtype}, weights and input are {x.dtype}"
            if not torch.isfinite(out).all():
                yield f"{name} of {frames} frames gives NaN or infinity"


def _check_repeatable(tokenizer: VideoTokenizer, spec: TokenizerSpec, video: Tensor) -> Iterator[str]:
    z = tokenizer.encode(video)
    y = tokenizer.decode(z)
    if not torch.equal(z, tokenizer.encode(video)):
        yield "encode gives other latents the second time"
    if not torch.equal(y, tokenizer.decode(z)):
        yield "decode gives another video the second time"
    if not spec.discrete and not _close(z[:1], tokenizer.encode(video[:1])):
        yield "encode mixes the clips of a batch"
    if not _close(y[:1], tokenizer.decode(z[:1])):
        yield "decode mixes the clips of a batch"
    if not spec.discrete and torch.equal(z, tokenizer.encode(-video)):
        yield "encode ignores its input"


def _check_causal(tokenizer: VideoTokenizer, spec: TokenizerSpec, video: Tensor) -> Iterator[str]:
    """The clip has three latent frames; changing the last must leave the first two, and cutting it off too."""
    if not spec.causal:
        return
    changed = video.clone()
    changed[:, :, -spec.t :] *= -1
    z, z_changed = tokenizer.encode(video), tokenizer.encode(changed)
    if not _close(z[:, :, :2], z_changed[:, :, :2]):
        yield "latents depend on later frames"
    if not spec.discrete and not _close(z[:, :, :2], tokenizer.encode(video[:, :, : -spec.t])[:, :, :2]):
        yield "latents of a prefix are not the prefix of the latents"
    other = z.clone()
    other[:, :, 2] *= -1
    if not _close(tokenizer.decode(z)[:, :, : -spec.t], tokenizer.decode(other)[:, :, : -spec.t]):
        yield "decoded frames depend on later latents"


def _check_statistics(tokenizer: VideoTokenizer, spec: TokenizerSpec, video: Tensor) -> Iterator[str]:
    z = tokenizer.encode(video).repeat(1, 1, 12, 1, 1)  # more latent frames than any published statistics
    normal = tokenizer.normalize(z)
    if normal.shape != z.shape or normal.dtype != z.dtype:
        yield f"normalize turns {z.dtype} {list(z.shape)} into {normal.dtype} {list(normal.shape)}"
    elif not _close(tokenizer.denormalize(normal), z):
        yield "denormalize does not undo normalize"


def _check_discrete(tokenizer: Any, spec: TokenizerSpec, video: Tensor) -> Iterator[str]:
    if not spec.discrete:
        return
    if not (hasattr(tokenizer, "encode_indices") and hasattr(tokenizer, "decode_indices")):
        yield "spec has levels, but encode_indices or decode_indices is missing"
        return
    z, indices = tokenizer.encode(video), tokenizer.encode_indices(video)
    size = 1
    for level in spec.levels:
        size *= level
    if indices.is_floating_point() or indices.shape != (len(z), *z.shape[2:]):
        yield f"encode_indices gives {indices.dtype} {list(indices.shape)}, not integers {[len(z), *z.shape[2:]]}"
    elif indices.min() < 0 or indices.max() >= size:
        yield f"indices from {int(indices.min())} to {int(indices.max())} leave the codebook of {size} codes"
    elif not _close(tokenizer.decode_indices(indices), tokenizer.decode(z)):
        yield "decode_indices(encode_indices(x)) differs from decode(encode(x))"


def _dtype_and_device(tokenizer: Any) -> tuple[torch.dtype, torch.device]:
    """Of the weights if it is a module with any, else float32 on the CPU."""
    weight = next(tokenizer.parameters(), None) if isinstance(tokenizer, torch.nn.Module) else None
    return (weight.dtype, weight.device) if weight is not None else (torch.float32, torch.device("cpu"))


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding, relative to the largest value."""
    if a.shape != b.shape:
        return False
    scale = max(float(b.abs().max()), 1e-6)
    return float((a - b).abs().max()) <= TOLERANCE.get(a.dtype, HALF_TOLERANCE) * scale
