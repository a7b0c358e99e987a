"""The two kinds of tokenizer, each around a video or an image network (contract: core.contracts.VideoTokenizer).

    encode: network → 1x1x1 convolution → latents (continuous), or FSQ codes (discrete)
    decode: 1x1x1 convolution → network → video

Latents are the raw bottleneck. Mean and deviation of latents are stored beside the weights, per channel and latent frame
(the first frame, an image, has other statistics than those after it), and only `normalize`/`denormalize` use them; they stay
float32 whatever the weights are cast to.

Axis legend: B batch, C channels, T frames, H height, W width, F latent frames with stored statistics.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.nn.causal_conv import FrameConv
from worldfoundry.nn.frame_cache import FrameCache
from worldfoundry.tokenizers.chunks import frame_chunks, latent_chunks
from worldfoundry.tokenizers.config import TokenizerConfig
from worldfoundry.tokenizers.fsq import FSQ
from worldfoundry.tokenizers.image_network import ImageDecoder, ImageEncoder
from worldfoundry.tokenizers.video_network import VideoDecoder, VideoEncoder

STATISTICS = ("latent_mean", "latent_std")
OVERSHOOT = 0.02  # beyond ±1: rounding of half precision, no more


class Tokenizer(nn.Module):
    """What both kinds share: networks, input checks, statistics. Use ContinuousTokenizer or DiscreteTokenizer."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        z, latent = config.z_channels, config.latent_channels
        if config.modality == "video":
            self.encoder, self.decoder = VideoEncoder(config), VideoDecoder(config)
            self.to_latent, self.from_latent = FrameConv(z, latent), FrameConv(latent, z)
        else:
            self.encoder, self.decoder = ImageEncoder(config), ImageDecoder(config)
            self.to_latent, self.from_latent = nn.Conv2d(z, latent, 1), nn.Conv2d(latent, z, 1)
        self.register_buffer("latent_mean", torch.zeros(latent, config.statistics_frames))
        self.register_buffer("latent_std", torch.ones(latent, config.statistics_frames))
        self._order_kernels()

    @property
    def spec(self) -> TokenizerSpec:
        """Compression factors, channels, levels."""
        return self.config.spec

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; inputs are cast to it."""
        return self.to_latent.weight.dtype

    def encode(self, x_BCTHW: Tensor, *, strict: bool = True) -> Tensor:
        """Float video in [-1, 1], [B, 3, 1 + t·k, H, W] → latents [B, C, 1 + k, H/h, W/w], not normalised.

        Discrete tokenizers give codes in [-1, 1], and gradients pass the rounding straight through. With `strict=False` any
        frames, height and width are taken: `pad_to_multiple` does the padding, and `decode(z, size=...)` undoes it.
        Without gradients, clips of any length are encoded in chunks that need a bounded memory (see encode_chunk).
        Raises UsageError for a shape or dtype that does not fit, values outside [-1, 1] or NaN; DataError if the result
        overflows in half precision.
        """
        self._check_kind(x_BCTHW)
        x_BCTHW = x_BCTHW if strict else pad_to_multiple(x_BCTHW, self.spec)
        self._check_video(x_BCTHW)
        return self._bottleneck(self._checked_output(self._features(x_BCTHW), x_BCTHW, "encode"))

    def decode(self, z_BCTHW: Tensor, *, size: tuple[int, int, int] | None = None) -> Tensor:
        """Latents [B, C, 1 + k, H, W] → video [B, 3, 1 + t·k, H·h, W·w] in the model's dtype, not clamped to [-1, 1].

        `size` (frames, height, width) crops what padding added; UsageError if the video is smaller than that. Chunks and errors
        are as in `encode`.
        """
        self._check_latents(z_BCTHW)
        video = self._checked_output(self._video(z_BCTHW), z_BCTHW, "decode")
        if size is None:
            return video
        if any(asked > has for asked, has in zip(size, video.shape[2:], strict=True)):
            raise UsageError(
                f"These latents give {list(video.shape[2:])!r} frames, rows and columns, not the {size!r} asked for."
            )
        return video[:, :, : size[0], : size[1], : size[2]]

    def encode_chunk(self, x_BCTHW: Tensor, cache: FrameCache | None = None) -> tuple[Tensor, FrameCache]:
        """The next frames of a clip → their latents, and the cache for the chunk after them.

        The first chunk (cache None) has 1 + t·k frames and gives 1 + k latent frames, later ones t·k and k, k ≥ 1. All chunks together
        give what `encode` gives for the whole clip; memory does not depend on how many there are. Errors as in `encode`.
        """
        self._check_video(x_BCTHW, is_first=cache is None)
        following = FrameCache.following(cache)
        return self._bottleneck(self._checked_output(self._encode(x_BCTHW, following), x_BCTHW, "encode")), following

    def decode_chunk(self, z_BCTHW: Tensor, cache: FrameCache | None = None) -> tuple[Tensor, FrameCache]:
        """The next latent frames of a clip → their frames, and the cache for the chunk after them.

        The first chunk (cache None) has 1 + k latent frames and gives 1 + t·k frames, later ones k ≥ 1 and t·k.
        """
        self._check_latents(z_BCTHW)
        following = FrameCache.following(cache)
        return self._checked_output(self._decode(z_BCTHW, following), z_BCTHW, "decode"), following

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """The reconstruction of a video, for training: no check of values."""
        self._check_shape(x_BCTHW)
        return self._video(self._bottleneck(self._features(x_BCTHW)))

    def normalize(self, z_BCTHW: Tensor) -> Tensor:
        """(z − mean) / std with the stored statistics; frames beyond the stored ones take the last one's."""
        mean, std = self._statistics(z_BCTHW)
        return ((z_BCTHW - mean) / std).to(z_BCTHW.dtype)

    def denormalize(self, z_BCTHW: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        mean, std = self._statistics(z_BCTHW)
        return (z_BCTHW * std + mean).to(z_BCTHW.dtype)

    def set_statistics(self, mean_CF: Tensor, std_CF: Tensor) -> None:
        """Store latent statistics of F ≥ 1 latent frames. Raises DataError for a wrong shape or a deviation ≤ 0."""
        channels = self.config.latent_channels
        if mean_CF.shape != std_CF.shape or mean_CF.ndim != 2 or len(mean_CF) != channels or mean_CF.shape[1] < 1:
            raise DataError(
                f"Latent statistics must both be [{channels}, frames], not {list(mean_CF.shape)!r} and {list(std_CF.shape)!r}."
            )
        if not (torch.isfinite(mean_CF).all() and torch.isfinite(std_CF).all() and (std_CF > 0).all()):
            raise DataError("Latent statistics must be finite with positive deviations.", "Measure them on more clips.")
        self.latent_mean, self.latent_std = mean_CF.to(self.latent_mean), std_CF.to(self.latent_std)
        self.config = self.config.replace(statistics_frames=mean_CF.shape[1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to` and its kin run over every tensor; statistics follow to the device, not to a dtype."""
        kept = {name: getattr(self, name) for name in STATISTICS}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        self._order_kernels()
        return self

    def _order_kernels(self) -> None:
        """Lay kernels out in memory as the convolutions read them, channels last; else each call would copy them."""
        for kernel in self.parameters():
            if kernel.ndim == 5:
                kernel.data = kernel.data.contiguous(memory_format=torch.channels_last_3d)

    def _bottleneck(self, features_BCTHW: Tensor) -> Tensor:
        """What a discrete tokenizer rounds."""
        return features_BCTHW

    def _features(self, x_BCTHW: Tensor) -> Tensor:
        """Video → what stands before the bottleneck, in chunks where that saves memory."""
        whole = self._records_gradients(x_BCTHW)
        return self._through(self._encode, [x_BCTHW] if whole else frame_chunks(self.config, x_BCTHW, self.dtype))

    def _video(self, z_BCTHW: Tensor) -> Tensor:
        """The inverse."""
        whole = self._records_gradients(z_BCTHW)
        return self._through(self._decode, [z_BCTHW] if whole else latent_chunks(self.config, z_BCTHW, self.dtype))

    def _records_gradients(self, x: Tensor) -> bool:
        """Whether a pass is recorded for a backward pass, which needs all of the clip anyway."""
        return torch.is_grad_enabled() and (x.requires_grad or any(weight.requires_grad for weight in self.parameters()))

    def _through(self, network: Callable[[Tensor, FrameCache], Tensor], chunks: Sequence[Tensor]) -> Tensor:
        parts, past = [], {}
        for number, chunk in enumerate(chunks, start=1):
            cache = FrameCache(past, keep=number < len(chunks))
            past.clear()  # the cache alone holds it now, and lets it go piece by piece
            parts.append(network(chunk, cache))
            past = cache.future
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _encode(self, x_BCTHW: Tensor, cache: FrameCache) -> Tensor:
        """Encoder and 1x1x1 convolution in the model's dtype; an image network sees frames as a batch."""
        x = x_BCTHW.to(self.dtype)
        if isinstance(self.encoder, ImageEncoder):
            z = self.to_latent(self.encoder(_pictures(x)))
            return rearrange(z, "(b t) c h w -> b c t h w", b=len(x))
        return self.to_latent(self.encoder(x, cache)).movedim(-1, 1).contiguous()

    def _decode(self, z_BCTHW: Tensor, cache: FrameCache) -> Tensor:
        """1x1x1 convolution and decoder."""
        z = z_BCTHW.to(self.dtype)
        if isinstance(self.decoder, ImageDecoder):
            x = self.decoder(self.from_latent(_pictures(z)))
            return rearrange(x, "(b t) c h w -> b c t h w", b=len(z))
        return self.decoder(self.from_latent(z.movedim(1, -1).contiguous()), cache)

    def _statistics(self, z_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation [C, T, 1, 1] for the frames of z, on z's device (cached latents lie on the CPU)."""
        self._check_latents(z_BCTHW)
        frame = torch.arange(z_BCTHW.shape[2], device=z_BCTHW.device).clamp(max=self.latent_mean.shape[1] - 1)
        mean, std = self.latent_mean.to(z_BCTHW.device), self.latent_std.to(z_BCTHW.device)
        return mean[:, frame, None, None], std[:, frame, None, None]

    def _check_video(self, x: Tensor, *, is_first: bool = True) -> None:
        self._check_shape(x, is_first=is_first)
        low, high = (float(value) for value in x.detach().aminmax()) if x.device.type != "meta" else (0.0, 0.0)
        if not max(-low, high) <= 1 + OVERSHOOT:  # so that NaN is caught as well
            raise UsageError(
                f"The tokenizer takes video in [-1, 1], not from {low:.4g} to {high:.4g}.",
                "Divide bytes by 127.5 and subtract 1; clamp what a filter overshot.",
            )

    def _check_kind(self, x: Tensor) -> None:
        channels, shape = self.config.in_channels, list(x.shape)
        if x.ndim != 5 or shape[1] != channels or 0 in shape:
            raise UsageError(
                f"The tokenizer takes video [batch, {channels}, frames, height, width], not {shape!r}.",
                "An image is a video of one frame.",
            )
        if not x.is_floating_point():
            raise UsageError(f"The tokenizer takes float video in [-1, 1], not {x.dtype}.", "Divide by 127.5 and subtract 1.")

    def _check_shape(self, x: Tensor, *, is_first: bool = True) -> None:
        self._check_kind(x)
        spec, shape = self.spec, list(x.shape)
        if (shape[2] - is_first) % spec.t:
            rule = f"1 + {spec.t}·k" if is_first else f"a multiple of {spec.t} in a later chunk"
            padded = f"Cut the clip, or pass strict=False to have it padded to {spec.round_up_frames(shape[2])} frames."
            raise UsageError(
                f"The number of frames must be {rule}, not {shape[2]!r}.",
                padded if is_first else "Keep the rest for the next chunk, as encode_stream does.",
            )
        if not all(side % factor == 0 for side, factor in zip(shape[3:], (spec.h, spec.w), strict=True)):
            raise UsageError(
                f"Height and width must be multiples of {spec.h} and {spec.w}, not {shape[3]!r} and {shape[4]!r}.",
                "Resize the clip, or pass strict=False to have it padded.",
            )

    def _checked_output(self, out: Tensor, given: Tensor, verb: str) -> Tensor:
        """`out`, unless it holds NaN or infinity: too large for half precision, or broken weights or latents."""
        if out.device.type == "meta" or torch.isfinite(out).all():
            return out
        half = self.dtype in (torch.float16, torch.bfloat16) and bool(torch.isfinite(given).all())
        raise DataError(
            f"The tokenizer's {verb} gave NaN or infinity in {self.dtype}.",
            "Load it with dtype='float32'." if half else "Its input or its weights hold NaN or infinity.",
        )

    def _check_latents(self, z: Tensor) -> None:
        if z.ndim != 5 or z.shape[1] != self.config.latent_channels or 0 in z.shape[2:] or not z.is_floating_point():
            channels = self.config.latent_channels
            raise UsageError(
                f"This tokenizer's latents are floats [batch, {channels}, frames, height, width], "
                f"not {z.dtype} {list(z.shape)!r}."
            )


class ContinuousTokenizer(Tokenizer):
    """Real-valued latents. Published: CI and CV."""


class DiscreteTokenizer(Tokenizer):
    """Latents rounded to the codes of an FSQ grid, or their indices. Published: DI and DV."""

    @property
    def quantizer(self) -> FSQ:
        return FSQ(self.config.levels)

    def _bottleneck(self, features_BCTHW: Tensor) -> Tensor:
        return self.quantizer.quantize(features_BCTHW)

    def encode_indices(self, x_BCTHW: Tensor, *, strict: bool = True) -> Tensor:
        """Video → int32 indices [B, 1 + k, H/h, W/w] in [0, codebook_size)."""
        return self.quantizer.codes_to_indices(self.encode(x_BCTHW, strict=strict))

    def decode_indices(self, indices_BTHW: Tensor, *, size: tuple[int, int, int] | None = None) -> Tensor:
        """Indices → video. Raises DataError for an index outside the codebook."""
        if indices_BTHW.ndim != 4:
            raise UsageError(f"Indices are [batch, frames, height, width], not {list(indices_BTHW.shape)!r}.")
        return self.decode(self.quantizer.indices_to_codes(indices_BTHW, self.dtype), size=size)


def _pictures(x_BCTHW: Tensor) -> Tensor:
    """Frames as a batch of images."""
    return rearrange(x_BCTHW, "b c t h w -> (b t) c h w").contiguous()


def pad_to_multiple(x_BCTHW: Tensor, spec: TokenizerSpec) -> Tensor:
    """Repeat the last frame, row and column until the tokenizer takes the video; crop what it decodes to undo it."""
    frames, height, width = x_BCTHW.shape[2:]
    pad = (0, -width % spec.w, 0, -height % spec.h, 0, spec.round_up_frames(frames) - frames)
    return F.pad(x_BCTHW, pad, mode="replicate")
