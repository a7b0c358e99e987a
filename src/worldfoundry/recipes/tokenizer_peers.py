"""Anything that stores clips as latents, for one table: our tokenizers, and the autoencoders of an installed `diffusers`.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldfoundry.core.errors import CheckpointError, MissingExtraError, did_you_mean
from worldfoundry.inference.load import load_tokenizer
from worldfoundry.inference.tokens import to_frames
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer

LATENT_BITS = 16  # a continuous value is counted as bfloat16, in which latents are stored and used


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One clip through a tokenizer: uint8 THWC, what was stored in between, and how long each way took.

    `codes` are the indices, for discrete tokenizers.
    """

    frames: np.ndarray
    values: int
    bits: float
    encode_s: float
    decode_s: float
    codes: np.ndarray | None


class Peer(Protocol):
    """A row of the table. `rule` are the factors of time, height and width; `codebook` is 0 for continuous latents.

    Clips have 1 + `frame_step`·k frames.
    """

    name: str
    rule: tuple[int, int, int]
    frame_step: int
    channels: int
    codebook: int
    parameters: int
    dtype: str

    def encode(self, x_BCTHW: Tensor) -> Tensor: ...
    def decode(self, z: Tensor) -> Tensor: ...


class OurTokenizer:
    """A tokenizer of this package; `encode` gives latents or indices."""

    def __init__(self, name: str, network: Tokenizer) -> None:
        self.name, self.network, spec = name, network, network.spec
        self.rule, self.frame_step, self.channels = (spec.t, spec.h, spec.w), spec.t, spec.channels
        self.codebook, self.parameters = network.config.codebook_size, _count(network)
        self.dtype = str(network.dtype).removeprefix("torch.")

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        if isinstance(self.network, DiscreteTokenizer):
            return self.network.encode_indices(x_BCTHW)
        return self.network.encode(x_BCTHW)

    def decode(self, z: Tensor) -> Tensor:
        return self.network.decode_indices(z) if isinstance(self.network, DiscreteTokenizer) else self.network.decode(z)


class DiffusersTokenizer:
    """An autoencoder of `diffusers`: `encode(x)` with a `latent_dist` (its mode is taken), `latents` or `latent`, `decode(z).sample`.

    Video goes in as [B, 3, 1 + t·k, H, W] in [-1, 1], the range of all of them; pictures' autoencoders see frames as a batch.
    The factors are measured on a small clip, not read from fields that each class calls otherwise.
    """

    codebook = 0

    def __init__(self, name: str, network: Any) -> None:
        self.name, self.network, self.parameters = name, network.eval().requires_grad_(False), _count(network)
        weight = next(iter(network.parameters()))
        self.device, self._dtype = weight.device, weight.dtype
        self.dtype = str(weight.dtype).removeprefix("torch.")
        self.is_video = any(isinstance(layer, torch.nn.Conv3d) for layer in network.modules())
        self.rule, self.channels = self._measure()
        self.frame_step = self._measure_step()

    @torch.inference_mode()
    def _measure(self) -> tuple[tuple[int, int, int], int]:
        """From a clip of 17 frames of 64x64: 1 + 16/t latent frames, 64/h rows."""
        z = self.encode(torch.zeros(1, 3, 17 if self.is_video else 1, 64, 64, device=self.device))
        frames, height, width = z.shape[2:]
        t = 16 // (frames - 1) if frames > 1 else 1
        return (t, 64 // height, 64 // width), z.shape[1]

    @torch.inference_mode()
    def _measure_step(self) -> int:
        """The factor of time, or twice that for a decoder (CogVideoX) that gives the right length for odd latent frames only."""
        t, h, w = self.rule
        back = self.decode(self.encode(torch.zeros(1, 3, 1 + t, 2 * h, 2 * w, device=self.device))) if self.is_video else None
        return t if back is None or back.shape[2] == 1 + t else 2 * t

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        x = x_BCTHW.to(self._dtype)
        found = self.network.encode(x if self.is_video else x[0].movedim(0, 1))
        z = found.latent_dist.mode() if hasattr(found, "latent_dist") else getattr(found, "latents", None)
        z = found.latent if z is None else z
        return z if self.is_video else z.movedim(0, 1)[None]

    def decode(self, z: Tensor) -> Tensor:
        x = self.network.decode(z if self.is_video else z[0].movedim(0, 1)).sample
        return x if self.is_video else x.movedim(0, 1)[None]


def load_ours(name: str, device: torch.device, dtype: torch.dtype | None) -> OurTokenizer:
    """A shipped name or a checkpoint folder. Raises CheckpointError for anything but a tokenizer."""
    return OurTokenizer(our_name(name), load_tokenizer(name, dtype=dtype, device=device))


def our_name(name: str) -> str:
    """What the table calls the tokenizer that is loaded by this name or folder."""
    return Path(name).name if Path(name).name != "vae" else str(Path(name))


def load_peer(place: str, device: torch.device, dtype: torch.dtype | None) -> DiffusersTokenizer:
    """An autoencoder by folder or Hugging Face id, `:SUBFOLDER` behind it for a part. Raises MissingExtraError, CheckpointError."""
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError("diffusers", "dev") from error
    source, _, subfolder = place.partition(":")
    options: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    try:
        fields: Any = diffusers.AutoencoderKL.load_config(source, **options)
        class_name = str(fields.get("_class_name"))
        found = getattr(diffusers, class_name, None)
        if str(fields.get("format")).startswith("worldfoundry/"):
            raise CheckpointError(f"{place!r} is in the layout of this package.", "Give it as --tokenizer.")
        if found is None or not hasattr(found, "encode") or not hasattr(found, "decode"):
            known = [one for one in dir(diffusers) if one.startswith("Autoencoder")]
            raise CheckpointError(f"{place!r} holds a {class_name!r}, no autoencoder.", did_you_mean(class_name, known[:6]))
        network = found.from_pretrained(source, torch_dtype=dtype or torch.float32, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise CheckpointError(f"{place!r} cannot be loaded with diffusers: {reason}") from error
    label = f"{Path(source).name or source} ({class_name.removeprefix('Autoencoder')})"
    return DiffusersTokenizer(label, network.to(device))


@torch.inference_mode()
def reconstruct(peer: Peer, frames_THWC: np.ndarray, device: torch.device) -> Reconstruction:
    """Pad by repetition to what the peer takes, encode, decode, crop. Stored values are counted with the padding."""
    count, height, width = frames_THWC.shape[:3]
    x = torch.from_numpy(np.ascontiguousarray(frames_THWC)).to(device)[None].movedim(-1, 1).float() / 127.5 - 1
    _, h, w = peer.rule
    x = F.pad(x, (0, -width % w, 0, -height % h, 0, -(count - 1) % peer.frame_step), mode="replicate")
    z, encode_s = _timed(device, lambda: peer.encode(x))
    y, decode_s = _timed(device, lambda: peer.decode(z))
    if tuple(y.shape) != tuple(x.shape):
        raise CheckpointError(f"{peer.name} gave {list(y.shape)} for {list(x.shape)}.", "It is no tokenizer of this kind.")
    bits_each = float(np.log2(peer.codebook)) if peer.codebook else LATENT_BITS
    return Reconstruction(
        frames=to_frames(y[:, :, :count, :height, :width])[0].numpy(),
        values=z.numel(),
        bits=z.numel() * bits_each,
        encode_s=encode_s,
        decode_s=decode_s,
        codes=z.cpu().numpy() if peer.codebook else None,
    )


def _timed(device: torch.device, call: Any) -> tuple[Tensor, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    out = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return out, time.perf_counter() - start


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
