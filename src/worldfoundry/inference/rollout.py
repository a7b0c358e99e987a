"""One request carried out: the windows of the clip one after the other, each told what it is given, sampled, and decoded.

Axis legend: B batch, C latent channels, T latent frames, F pixel frames, H height, W width, L context rows, D context width,
A action numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.core.devices import free_memory
from worldfoundry.core.progress import say
from worldfoundry.diffusion.step_cache import step_cache
from worldfoundry.inference.canvas import Canvas, canvas
from worldfoundry.inference.conditions import encode_frames, end_frames, start_frames, to_unit_range, window_actions
from worldfoundry.inference.config import Request
from worldfoundry.inference.decoding import StreamDecoder, decode_whole
from worldfoundry.inference.frames import end_latents, prefix_latents
from worldfoundry.inference.memory import TILE, decode_bytes, denoise_bytes
from worldfoundry.inference.request import prompts_of
from worldfoundry.inference.sampling import StepCallback, sample_window, sampling_levels, seeded
from worldfoundry.inference.windows import Window, plan_windows, prompt_at
from worldfoundry.tokenizers.tiling import TiledTokenizer
from worldfoundry.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from worldfoundry.inference.world import DiffusionWorld


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a batch of samples is given, all of one length each: frames uint8 [F, H, W, 3] at the output's size, actions."""

    starts: Sequence[np.ndarray | None]
    ends: Sequence[np.ndarray | None] = (None,)
    actions_BFA: np.ndarray | None = None

    @property
    def start_BFHWC(self) -> np.ndarray | None:
        """All starts, or None without."""
        frames = [start for start in self.starts if start is not None]
        return np.stack(frames) if frames else None

    @property
    def end_BFHWC(self) -> np.ndarray | None:
        """All ends, or None without."""
        frames = [end for end in self.ends if end is not None]
        return np.stack(frames) if frames else None


class Rollout:
    """A request to a world, with what is given. `latents` or `video` runs it; each may be asked once."""

    def __init__(self, world: "DiffusionWorld", request: Request, given: Given, callback: StepCallback | None = None) -> None:
        self.world, self.request, self.given, self.callback = world, request, given, callback
        self.tokenizer, self.shape_CTHW, self.canvas = world.tokenizer, latent_shape(world, request), canvas_of(world, request)
        start, end = (0 if frames is None else frames.shape[1] for frames in (given.start_BFHWC, given.end_BFHWC))
        self.plan = plan(world, request, start=start, end=end)
        self.sigmas = sampling_levels(world.scheduler, request.num_inference_steps)
        self.generators = seeded(request.seed, len(given.starts))
        self._in_tiles: bool | None = None

    def latents(self) -> Tensor:
        """Normalised latents of the clip, [B, C, T, H, W] in float32."""
        parts = [z for z, _ in self._windows(decode=False)]
        with self.world.running(self.tokenizer):
            return self.tokenizer.normalize(torch.cat(parts, dim=2))

    def video(self) -> np.ndarray:
        """uint8 [B, F, H, W, 3], as many frames and pixels as the latents cover; `canvas` says where the picture is."""
        parts = list(self._windows(decode=True))
        pieces = [frames for _, frames in parts if frames is not None]
        if len(pieces) == len(parts):
            return np.concatenate(pieces, axis=1)
        with self.world.running(self.tokenizer):
            return decode_whole(self._tiled(), torch.cat([z for z, _ in parts], dim=2))

    # -- one window after the other -----------------------------------------------------------------------------------

    def _windows(self, *, decode: bool) -> Iterator[tuple[Tensor, np.ndarray | None]]:
        """The raw latents that each window adds to the clip, and their pixels where the clip is decoded as it grows."""
        world, total = self.world, self.shape_CTHW[1]
        contexts = [world.encode_text(prompt) for prompt in prompts_of(self.request)]
        negative = world.encode_text(self.request.negative_prompt) if self.request.guidance_scale else None
        world.release_text()
        decoder = self._decoder()
        re_encodes = decoder is not None and world.config.extension == "frames"
        with world.running(self.tokenizer):
            prefix, suffix = self._start(), self._end()
        for number, window in enumerate(self.plan):
            last = number == len(self.plan) - 1
            context = contexts[prompt_at(window, len(contexts), total)]
            condition = self._condition(window, context, prefix, suffix if last else None)
            z_BCTHW = self._sample(number, condition, negative)
            stop = total if last else self.plan[number + 1].first_new
            z_BCTHW = z_BCTHW[:, :, : stop - window.start]
            new_BCTHW = z_BCTHW[:, :, window.overlap :]
            frames = None
            if decoder is not None and (decode or (re_encodes and not last)):
                with world.running(self.tokenizer):
                    frames = decoder(new_BCTHW)
            yield new_BCTHW, frames
            if not last:
                overlap = self.plan[number + 1].overlap
                with world.running(self.tokenizer):
                    prefix = self._carried(z_BCTHW, decoder if re_encodes else None, overlap)

    def _sample(self, number: int, condition: Condition, negative_BLD: Tensor | None) -> Tensor:
        """Raw latents of window `number`."""
        world, steps = self.world, len(self.sigmas) - 1
        shape = (self.shape_CTHW[0], self.plan[number].length, *self.shape_CTHW[2:])
        negative = None if negative_BLD is None else condition.unconditional(negative_BLD)
        split = self._splits(shape[1:])
        with step_cache(world.network, self.request.step_cache) as cache, world.running(world.network):

            def tell(step: int, x0_BCTHW: Tensor) -> None:
                if cache is not None:
                    cache.must_compute = step + 2 >= steps  # the last step is what is seen
                if self.callback is not None:
                    self.callback(number * steps + step, len(self.plan) * steps, x0_BCTHW)

            normalized_BCTHW = sample_window(
                world.denoiser, world.scheduler, self.sigmas, condition, negative, self.request.guidance_scale,
                shape, self.generators, world.device, split=split, tell=tell,
            )  # fmt: skip
        if self.shape_CTHW[1] == 1 and world.config.image_latents is not None:
            normalized_BCTHW = world.config.image_latents.denormalize(normalized_BCTHW)
        with world.running(self.tokenizer):
            return self.tokenizer.denormalize(normalized_BCTHW)

    def _splits(self, latent_THW: tuple[int, int, int]) -> bool:
        """Whether both branches of guidance are too much for one pass."""
        both = denoise_bytes(self.world.network.config, 2 * len(self.given.starts), latent_THW, self.world.dtype)
        return both > free_memory(self.world.device)

    def _decoder(self) -> StreamDecoder | None:
        """For a clip of several windows; in tiles, or by a tokenizer that is not ours, only whole clips are decoded."""
        if len(self.plan) == 1:
            return None
        if self._tiled() is not self.tokenizer or not isinstance(self.tokenizer, Tokenizer):
            if self.world.config.extension == "frames":
                why = "in tiles" if isinstance(self.tokenizer, Tokenizer) else f"by a {type(self.tokenizer).__name__}"
                say(
                    f"windows go on from the latents of the one before, not from its frames: a clip decoded {why} is decoded whole"
                )
            return None
        most = max(window.overlap for window in self.plan)
        return StreamDecoder(self.tokenizer, keep=1 + (most - 1) * self.tokenizer.spec.t)

    def _tiled(self) -> VideoTokenizer:
        """The tokenizer, in tiles where one latent frame of the whole picture is more than the memory holds."""
        if self._in_tiles is None:
            batch, place = len(self.given.starts), self.canvas
            self._in_tiles = decode_bytes(self.tokenizer, place.height, place.width, batch) > free_memory(self.world.device)
        if not self._in_tiles:
            return self.tokenizer
        side = self.tokenizer.spec.h
        return TiledTokenizer(self.tokenizer, tile=TILE // side * side, overlap=64 // side * side)

    # -- what a window is told ----------------------------------------------------------------------------------------

    def _condition(self, window: Window, context_BLD: Tensor, prefix: Tensor | None, suffix: Tensor | None) -> Condition:
        world, tc, features = self.world, self.tokenizer.spec.t, None
        if self.given.actions_BFA is not None:
            actions = self.given.actions_BFA[:, : self.request.num_frames]
            frames = 1 + (window.length - 1) * tc
            features = window_actions(actions, window.start * tc, frames, world.config.action_rms, tc).to(world.device)
        padding = torch.from_numpy(self.canvas.mask()).to(world.device) if self.canvas.padded else None
        return Condition(
            context_BLD=context_BLD,
            fps_B=torch.tensor([self.request.fps], device=world.device),
            padding_mask_B1HW=None if padding is None else padding[None, None],
            prefix_BCTHW=prefix,
            suffix_BCTHW=suffix,
            augment_sigma=world.scheduler.augment_sigma,
            actions_BTA=features,
        )

    def _start(self) -> Tensor | None:
        """The user's first frames as latents of deviation sigma_data."""
        if (frames := self.given.start_BFHWC) is None:
            return None
        return self._scaled(self._encode(start_frames(frames, self.tokenizer.spec.t)))

    def _end(self) -> Tensor | None:
        """The user's last frames, normalised as the last ones of the last window."""
        if (frames := self.given.end_BFHWC) is None:
            return None
        z_BCTHW = self._encode(end_frames(frames, self.request.num_frames, self.tokenizer.spec.t))[:, :, 1:]
        before = z_BCTHW.new_zeros(*z_BCTHW.shape[:2], self.plan[-1].length - z_BCTHW.shape[2], *z_BCTHW.shape[3:])
        return self._scaled(torch.cat([before, z_BCTHW], dim=2))[:, :, before.shape[2] :]

    def _carried(self, z_BCTHW: Tensor, decoder: StreamDecoder | None, overlap: int) -> Tensor:
        """What the next window is given of a finished one: its last frames encoded as a clip of their own, or its latents."""
        if decoder is None or decoder.last is None:
            return self._scaled(z_BCTHW[:, :, -overlap:])
        frames = decoder.last[:, :, -(1 + (overlap - 1) * self.tokenizer.spec.t) :]
        return self._scaled(encode_frames(self.tokenizer, frames, 1))

    def _encode(self, frames_BFHWC: np.ndarray) -> Tensor:
        x_BCFHW = to_unit_range(self.canvas.pad(frames_BFHWC), self.world.device)
        return encode_frames(self.tokenizer, x_BCFHW, self.world.network.config.patch_spatial)

    def _scaled(self, z_BCTHW: Tensor) -> Tensor:
        """Raw latents from a clip's beginning on → deviation sigma_data."""
        return self.tokenizer.normalize(z_BCTHW) * self.world.scheduler.sigma_data


def canvas_of(world: "DiffusionWorld", request: Request) -> Canvas:
    """Where the request's picture lies in the frames that are sampled."""
    multiple = max(world.tokenizer.spec.h, world.tokenizer.spec.w) * world.network.config.patch_spatial
    return canvas(world.config.shapes, request.height, request.width, multiple)


def latent_shape(world: "DiffusionWorld", request: Request) -> tuple[int, int, int, int]:
    """Latents [C, T, H, W] that cover the request; rows and columns in whole patches."""
    spec, patch, place = world.tokenizer.spec, world.network.config.patch_spatial, canvas_of(world, request)
    frames = spec.latent_frames(spec.round_up_frames(request.num_frames))
    rows, columns = (-(-size // (step * patch)) * patch for size, step in ((place.height, spec.h), (place.width, spec.w)))
    return spec.channels, frames, rows, columns


def window_length(world: "DiffusionWorld", request: Request) -> int:
    """Latent frames of one pass: the whole clip, unless it is longer than the training's and can be continued."""
    spec, frames = world.tokenizer.spec, latent_shape(world, request)[1]
    if not world.network.config.condition_mask:
        return frames
    trained = world.config.trained_frames or world.config.num_frames
    return min(frames, spec.latent_frames(spec.round_up_frames(trained)))


def plan(world: "DiffusionWorld", request: Request, *, start: int = 0, end: int = 0) -> list[Window]:
    """The windows of a request with `start` and `end` given frames; each is given as many frames of the one before as the world
    was trained to continue."""
    tc = world.tokenizer.spec.t
    overlap, given = (prefix_latents(n, tc) for n in (max(world.config.num_prefix_frames, 1), start))
    taken = end_latents(end, request.num_frames, tc)
    length = window_length(world, request)
    return plan_windows(latent_shape(world, request)[1], length, overlap, given=given, end=taken)
