"""A diffusion world: guard → encode the given frames → sample → decode → guard.

Axis legend: B batch, C latent channels, T frames, H height, W width, L context rows, D context width, A action numbers.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from worldfoundry.conditioning.t5 import T5TextEncoder
from worldfoundry.conditioning.text import TextEncoder, text_encoder
from worldfoundry.conditioning.upsampler import PromptUpsampler, prompt_upsampler
from worldfoundry.core.contracts import Verdict, WorldVideo
from worldfoundry.core.devices import free_memory
from worldfoundry.core.errors import ResourceError, UsageError
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.parametrization import NetworkDenoiser, parametrization
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.inference.adapters import add_adapter
from worldfoundry.inference.canvas import fit_picture
from worldfoundry.inference.conditions import start_frames
from worldfoundry.inference.config import Request, SchedulerConfig, WorldDefaults
from worldfoundry.inference.frames import rate_among, read_frames
from worldfoundry.inference.memory import (
    GIB,
    TILE,
    decode_bytes,
    denoise_bytes,
    memory_errors_explained,
    module_bytes,
    video_bytes,
    what_fits,
)
from worldfoundry.inference.offload import Level, Offloader, Sizes, choose_level
from worldfoundry.inference.record import guarded, record_of
from worldfoundry.inference.request import (
    check_actions,
    check_lengths,
    check_prompts,
    check_request,
    check_takes_frames,
    complete_request,
    prompts_of,
    settle_size,
)
from worldfoundry.inference.rollout import Given, Rollout, canvas_of, latent_shape, plan, window_length
from worldfoundry.inference.sampling import StepCallback
from worldfoundry.inference.upsampling import tell, wants_upsampling
from worldfoundry.nn.int8 import quantize_linears
from worldfoundry.tokenizers.tokenizer import Tokenizer

Frames = str | Path | np.ndarray


class DiffusionWorld:
    """Generates video of the world it was trained on. Made by `wf.load(folder)`; satisfies `core.contracts.World`."""

    def __init__(
        self,
        network: DiT,
        tokenizer: Tokenizer,
        scheduler: SchedulerConfig,
        defaults: WorldDefaults,
        *,
        encoder: TextEncoder | None = None,
        policy: GuardPolicy | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.tokenizer, self.scheduler, self.config = network, tokenizer, scheduler, defaults
        self.provenance = dict(provenance or {})
        self.guardrails = Guardrails.from_policy(policy or GuardPolicy())
        self.encoder = encoder
        self.upsampler: PromptUpsampler = prompt_upsampler()  # reads nothing before its first prompt
        self.denoiser = NetworkDenoiser(
            network,
            parametrization(scheduler.parametrization, scheduler.sigma_data),
            frame_levels=scheduler.frame_levels,
        )
        self.offloader: Offloader | None = None
        self.adapters: dict[str, float] = {}  # name → weight of what `load_adapter` merged
        self.base_weights = ""

    # -- the public call --------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        input: Frames | None = None,
        actions: np.ndarray | None = None,
        camera: Any = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        seed: int = 0,
        callback_on_step_end: StepCallback | None = None,
        *,
        end: Frames | None = None,
        aspect: str | None = None,
        num_prefix_frames: int | None = None,
        keep_input: bool = True,
        upsample_prompt: bool | None = None,
        step_cache: float = 0.0,
    ) -> WorldVideo:
        """One video that follows `input` (an image, a video, or uint8 frames), `prompt` and `actions`, and arrives at `end`.

        Of an input video the last `num_prefix_frames` (default: what the world was trained for) are the prefix, and of
        those the last 1 + t·k condition; of `end` the first ones, in whole latent frames. `actions` is
        [num_frames − 1 or more, A] in the dataset's units, action i acting between frames i and i + 1 of the output.
        The output's size is asked for by `height` and `width`, or by `aspect` (one of `config.shapes`); a world of several
        shapes follows the given frames else. What the picture leaves of a trained shape is padded, and cropped afterwards.
        The output starts and ends with the given frames' own pixels (`keep_input`) or with their reconstruction.
        A video longer than the world was trained for is made window by window; several prompts share it out evenly.
        `callback_on_step_end(step, steps, x0)` sees the present estimate of a window's latents. `step_cache` above 0 skips
        work in steps that change little (`diffusion.step_cache`).
        `upsample_prompt` lets `self.upsampler` detail the prompt first; None does so for published worlds that are given no frames.
        Raises UsageError for a request that cannot be met, BlockedError or GuardUnavailable from the guards.
        """
        if camera is not None:
            raise UsageError("This world has no camera control.", "Use a world post-trained for cameras.")
        fps = fps if fps is not None else rate_among(input, self.config.frame_rates)
        request = complete_request(self.config, {
            "prompt": prompt, "negative_prompt": negative_prompt, "num_frames": num_frames, "height": height, "width": width,
            "fps": fps, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "seed": seed,
            "num_prefix_frames": num_prefix_frames, "keep_input": keep_input, "step_cache": step_cache,
        })  # fmt: skip
        verdicts = self._guard_texts(request)  # before anything is said about what this world can do
        check_request(request, self.config, self.scheduler)
        start, ending = (self._read(name, source, request) for name, source in (("input", input), ("end", end)))
        sized, shown = (height, width) != (None, None), start if start is not None else ending
        request = settle_size(request, self.config, aspect, shown, sized=sized)
        self._check_size(request)
        size = request.height, request.width
        start, ending = (None if f is None else fit_picture(f, self.config.shapes, *size) for f in (start, ending))
        self._check_plan(request, start, ending)
        for name, frames in (("input", start), ("end", ending)):
            verdicts += () if frames is None else self.guardrails.enforce_video(frames, request.fps, what=name)
        acts = check_actions(actions, self.config.action_names, request.num_frames)
        wanted = wants_upsampling(upsample_prompt, prompts_of(request), self.config, frames_given=shown is not None)
        told = tell(prompts_of(request), self.upsampler if wanted else None, self.guardrails, seed=seed)
        request = request.replace(prompt=told.prompts[0], later_prompts=told.prompts[1:])
        with memory_errors_explained(lambda: self._too_large(request)):
            frames = self.sample(
                request, [start], None if acts is None else acts[None], ends=[ending], callback_on_step_end=callback_on_step_end
            )[0]
        frames, said = self.guardrails.release(frames, request.fps)
        verdicts += told.verdicts + said
        record = self._record(request, acts, input=input, end=end) | told.record | guarded(self.guardrails.policy, verdicts)
        return WorldVideo(frames=frames, fps=request.fps, seed=seed, config=record, verdicts=verdicts)

    def resolve(self, **asked: Any) -> Request:
        """Fill what was not asked (None) with the world's defaults and check it. Raises UsageError with the field's name."""
        request = complete_request(self.config, asked)
        check_request(request, self.config, self.scheduler)
        return request

    def sample(
        self,
        request: Request,
        prefixes: Sequence[np.ndarray | None],
        actions_BFA: np.ndarray | None,
        *,
        ends: Sequence[np.ndarray | None] = (None,),
        callback_on_step_end: StepCallback | None = None,
    ) -> np.ndarray:
        """The unguarded middle of `generate` for a batch of prefixes of one length: uint8 [B, T, H, W, 3].

        For evaluation, where the frames are compared and not handed out. Sample i has the noise of `request.seed + i`.
        """
        given = Given(starts=prefixes, ends=ends, actions_BFA=actions_BFA)
        video = Rollout(self, request, given, callback_on_step_end).video()
        video = canvas_of(self, request).crop(video)[:, : request.num_frames]
        return self._with_own_pixels(video, given) if request.keep_input else video

    def sample_latents(
        self,
        request: Request,
        prefixes: Sequence[np.ndarray | None],
        actions_BFA: np.ndarray | None,
        *,
        ends: Sequence[np.ndarray | None] = (None,),
        callback_on_step_end: StepCallback | None = None,
    ) -> Tensor:
        """What `sample` decodes: normalised latents [B, C, T, H, W] in float32, which `tokenizer.denormalize` takes."""
        given = Given(starts=prefixes, ends=ends, actions_BFA=actions_BFA)
        return Rollout(self, request, given, callback_on_step_end).latents()

    @torch.inference_mode()
    def encode_text(self, text: str) -> Tensor:
        """[1, L, D]; zeros for no text, which is what dropped text was in training."""
        rows, width = self.config.context_rows, self.network.config.crossattn_emb_channels
        if not text:
            return torch.zeros(1, rows, width, device=self.device)
        if self.encoder is None:
            self.encoder = text_encoder(self.config.text_encoder, rows)
        return self.encoder.encode([text]).to(self.device)

    def load_adapter(self, name_or_folder: str | Path, weight: float = 1.0) -> None:
        """Merge `weight` times a LoRA into the network; where it brings defaults (steps, scheduler) they take over.

        Adapters loaded one after another add up. Raises CheckpointError for one that was made for another world.
        """
        add_adapter(self, name_or_folder, weight)

    def quantize(self) -> None:
        """Round the weights of the network's blocks to 8 bits, once; adapters have to be loaded before, and `place` comes after.

        Raises UsageError where weights are offloaded.
        """
        if self.offloader is not None:
            raise UsageError("Weights that are offloaded cannot be rounded.", "Quantise the world before it is placed.")
        quantize_linears(self.network.blocks)
        self.provenance["weights"] = "int8"

    # -- where it runs ----------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where it computes; where weights wait is the offloader's business."""
        return self.offloader.device if self.offloader is not None else next(self.network.parameters()).device

    def place(self, device: torch.device, level: Level | Literal["auto"] = "auto") -> Level:
        """Move to a device at an offload level; `auto` takes the fastest that the free memory is enough for, and returns it."""
        if self.offloader is not None:
            self.offloader.release()
            self.offloader = None
        if level == "auto":
            level = "none" if device.type == "cpu" else choose_level(self._sizes(), free_memory(device))
        if level == "none":
            self.network.to(device), self.tokenizer.to(device)
        else:
            self.offload(Offloader(device, level))
        if isinstance(self.encoder, T5TextEncoder):
            fits = level != "sequential" or self.encoder.stored_bytes <= free_memory(device)
            self.encoder.device = device if fits else None
        return level

    def offload(self, offloader: Offloader) -> None:
        """Let an offloader keep the network and the tokenizer."""
        offloader.park(self.network, self.network.blocks)
        offloader.park(self.tokenizer)
        self.offloader = offloader

    def running(self, part: nn.Module) -> AbstractContextManager[None]:
        """Within, a part's weights are on the device."""
        return nullcontext() if self.offloader is None else self.offloader.at_work(part)

    def release_text(self) -> None:
        """Once a request's texts are encoded: let go of a large encoder that shares the device with what comes next."""
        if self.offloader is not None and isinstance(self.encoder, T5TextEncoder):
            self.encoder.release()

    def _sizes(self) -> Sizes:
        request = complete_request(self.config, {})
        (_, _, rows, columns), place = latent_shape(self, request), canvas_of(self, request)
        window = (window_length(self, request), rows, columns)
        return Sizes(
            text=self.encoder.stored_bytes if isinstance(self.encoder, T5TextEncoder) else 0,
            network=module_bytes(self.network),
            tokenizer=module_bytes(self.tokenizer),
            denoise=denoise_bytes(self.network.config, 1, window, self.dtype),
            decode=decode_bytes(self.tokenizer, place.height, place.width, tile=TILE),
        )

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    # -- before and after -------------------------------------------------------------------------------------------

    def _read(self, name: str, source: Frames | None, request: Request) -> np.ndarray | None:
        """Given frames at their own size: the last ones of an input, the first ones of an end."""
        if source is None:
            return None
        check_takes_frames(request, self.network.config, name)
        frames, count = read_frames(source), request.num_prefix_frames
        return frames[-count:] if name == "input" else frames[:count]

    def _with_own_pixels(self, video: np.ndarray, given: Given) -> np.ndarray:
        start, end = given.start_BFHWC, given.end_BFHWC
        if start is not None:
            kept = start_frames(start, self.tokenizer.spec.t)
            video[:, : kept.shape[1]] = kept
        if end is not None:
            video[:, -end.shape[1] :] = end
        return video

    def _check_plan(self, request: Request, start: np.ndarray | None, end: np.ndarray | None) -> None:
        """Whether given frames and prompts fit the windows that make the clip. Raises UsageError."""
        latent_frames = latent_shape(self, request)[1]
        check_lengths(request, start, end, self.tokenizer.spec.t, latent_frames, window_length(self, request))
        starts, ends = (0 if frames is None else len(frames) for frames in (start, end))
        check_prompts(prompts_of(request), plan(self, request, start=starts, end=ends), latent_frames)

    def _check_size(self, request: Request) -> None:
        """Whether the network covers such frames, and the memory holds them. Raises UsageError or ResourceError."""
        _, frames, rows, columns = latent_shape(self, request)
        self.network.check_size((min(frames, window_length(self, request)), rows, columns))
        if not self._fits(request):
            raise self._too_large(request)

    def _bytes(self, request: Request) -> int:
        """What a request takes on the device besides the weights."""
        (_, _, rows, columns), place = latent_shape(self, request), canvas_of(self, request)
        window = (window_length(self, request), rows, columns)
        denoise = denoise_bytes(self.network.config, 1, window, self.dtype)
        return max(denoise, decode_bytes(self.tokenizer, place.height, place.width, tile=TILE))

    def _fits(self, request: Request) -> bool:
        if self.device.type == "cpu":
            return self._bytes(request) + video_bytes(request) <= free_memory(self.device)
        return self._bytes(request) <= free_memory(self.device) and video_bytes(request) <= free_memory(torch.device("cpu"))

    @property
    def _could_offload(self) -> bool:
        return self.offloader is None and self.device.type != "cpu"

    def _too_large(self, request: Request) -> ResourceError:
        work, out, free = (n / GIB for n in (self._bytes(request), video_bytes(request), free_memory(self.device)))
        return ResourceError(
            f"{request.num_frames} frames of {request.width}x{request.height} need about {work:.1f} GiB besides the weights and "
            f"{out:.1f} GiB for the video; {free:.1f} GiB are free on {str(self.device)!r}.",
            what_fits(request, self._fits) + (" Offloading frees what the weights take." if self._could_offload else ""),
        )

    def _guard_texts(self, request: Request) -> tuple[Verdict, ...]:
        texts = (*prompts_of(request), request.negative_prompt)
        return tuple(verdict for text in texts if text for verdict in self.guardrails.enforce_text(text))

    def _record(self, request: Request, actions: np.ndarray | None, **sources: Frames | None) -> dict[str, Any]:
        record = record_of(request, self.provenance, **sources)
        record |= {"adapters": self.adapters} if self.adapters else {}
        return {**record, "actions": None if actions is None else actions.tolist()}
