"""A diffusion world: guard → encode the prefix → sample → decode → guard.

Axis legend: B batch, C latent channels, T frames, H height, W width, L context rows, D context width, A action numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldfoundry import __version__
from worldfoundry.conditioning.action import action_features
from worldfoundry.conditioning.condition import Condition
from worldfoundry.conditioning.text import TextEncoder, text_encoder
from worldfoundry.core.contracts import Verdict, WorldVideo
from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.parametrization import NetworkDenoiser, parametrization
from worldfoundry.diffusion.samplers import initial_noise, sampler
from worldfoundry.diffusion.schedule import noise_levels
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.config import Request, SchedulerConfig, WorldDefaults
from worldfoundry.inference.frames import conditioning_length, read_prefix
from worldfoundry.tokenizers.tokenizer import Tokenizer

StepCallback = Callable[[int, int, Tensor], None]


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
        self.denoiser = NetworkDenoiser(network, parametrization(scheduler.parametrization, scheduler.sigma_data))

    # -- the public call --------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | None = None,
        input: str | Path | np.ndarray | None = None,
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
        num_prefix_frames: int | None = None,
        keep_input: bool = True,
    ) -> WorldVideo:
        """One video that follows `input` (an image, a video, or uint8 frames), `prompt` and `actions`.

        Of an input video the last `num_prefix_frames` (default: what the world was trained for) are the prefix, and of
        those the last 1 + t·k condition. `actions` is [num_frames − 1 or more, A] in the dataset's units, action i acting
        between frames i and i + 1 of the output. The output starts with the input's own pixels (`keep_input`) or
        with their reconstruction. `callback_on_step_end(step, steps, x0)` sees the present estimate of the latents.
        Raises UsageError for a request that cannot be met, BlockedError or GuardUnavailable from the guards.
        """
        if camera is not None:
            raise UsageError("This world has no camera control.", "Use a world post-trained for cameras.")
        request = self._request(
            prompt=prompt, negative_prompt=negative_prompt, num_frames=num_frames, height=height, width=width, fps=fps,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, seed=seed,
            num_prefix_frames=num_prefix_frames, keep_input=keep_input,
        )  # fmt: skip
        verdicts = self._guard_texts(request)  # before anything is said about what this world can do
        self._check_request(request)
        self.network.check_size(self._latent_shape(request)[1:])
        prefix = None
        if input is not None:
            if not self.network.config.condition_mask:
                raise UsageError("This world starts from text alone.", "Leave the input out, or use a video-to-world model.")
            if not request.num_prefix_frames:
                raise UsageError("With num_prefix_frames 0 the input would not be used.", "Raise it, or leave the input out.")
            prefix = read_prefix(input, request.num_prefix_frames, request.height, request.width)
            self._check_prefix(prefix, request)
            verdicts += self.guardrails.enforce_video(prefix, request.fps)
        acts = self._check_actions(actions, request)
        frames = self.sample(
            request, [prefix], acts[None] if acts is not None else None, callback_on_step_end=callback_on_step_end
        )[0]
        verdicts += self.guardrails.enforce_video(frames, request.fps)
        return WorldVideo(
            frames=frames, fps=request.fps, seed=seed, config=self._record(request, input, acts), verdicts=verdicts
        )

    def sample(
        self,
        request: Request,
        prefixes: Sequence[np.ndarray | None],
        actions_BFA: np.ndarray | None,
        *,
        callback_on_step_end: StepCallback | None = None,
    ) -> np.ndarray:
        """The unguarded middle of `generate` for a batch of prefixes of one length: uint8 [B, T, H, W, 3].

        For evaluation, where the frames are compared and not handed out. Sample i has the noise of `request.seed + i`.
        """
        latents = self.sample_latents(request, prefixes, actions_BFA, callback_on_step_end=callback_on_step_end)
        video = self._decode(latents)[:, : request.num_frames, : request.height, : request.width]
        if prefixes[0] is not None and request.keep_input:
            stacked = np.stack([prefix for prefix in prefixes if prefix is not None])
            kept = conditioning_length(stacked.shape[1], self.tokenizer.spec.t)
            video[:, :kept] = stacked[:, -kept:]
        return video

    def sample_latents(
        self,
        request: Request,
        prefixes: Sequence[np.ndarray | None],
        actions_BFA: np.ndarray | None,
        *,
        callback_on_step_end: StepCallback | None = None,
    ) -> Tensor:
        """What `sample` decodes: normalised latents [B, C, T, H, W] in float32, which `tokenizer.denormalize` takes."""
        condition = self._condition(request, self._encode_prefix(prefixes), actions_BFA)
        return self._denoise(request, condition, (len(prefixes), *self._latent_shape(request)), callback_on_step_end)

    # -- the request ------------------------------------------------------------------------------------------------

    def resolve(self, **asked: Any) -> Request:
        """Fill what was not asked (None) with the world's defaults and check it. Raises UsageError with the field's name."""
        request = self._request(**asked)
        self._check_request(request)
        return request

    def _request(self, **asked: Any) -> Request:
        given = {name: value for name, value in asked.items() if value is not None}
        defaults = {name: value for name, value in self.config.to_dict().items() if name in Request.model_fields}
        return Request.from_dict({**defaults, **given}, where="request")

    def _check_request(self, request: Request) -> None:
        if (request.prompt or request.negative_prompt) and self.config.text_encoder == "none":
            raise UsageError("This world was trained without text, so it cannot follow a prompt.", "Leave the prompt out.")
        if request.num_inference_steps < 2 and self.config.final_sigmas_type == "sigma_min":
            raise UsageError(
                f"This world needs num_inference_steps of at least 2, not {request.num_inference_steps!r}: its last one only "
                "arrives at sigma_min."
            )

    def _check_prefix(self, prefix: np.ndarray, request: Request) -> None:
        if conditioning_length(len(prefix), self.tokenizer.spec.t) >= request.num_frames:
            raise UsageError(
                f"The prefix has {len(prefix)} frames, but the output only {request.num_frames!r}.",
                "Raise num_frames, or lower num_prefix_frames.",
            )

    def _check_actions(self, actions: np.ndarray | None, request: Request) -> np.ndarray | None:
        """Actions as float32 [num_frames, A]; a world with actions gets zeros where none are given."""
        names = self.config.action_names
        if not names:
            if actions is not None:
                raise UsageError("This world takes no actions.", "Use a world that was trained with actions.")
            return None
        if actions is None:
            return np.zeros((request.num_frames, len(names)), np.float32)
        actions = np.asarray(actions, np.float32)
        if actions.ndim != 2 or actions.shape[1] != len(names) or not np.isfinite(actions).all():
            raise UsageError(
                f"Actions must be finite numbers [frames, {len(names)}] ({', '.join(names)}), not {list(actions.shape)!r}."
            )
        if len(actions) < request.num_frames - 1:
            raise UsageError(
                f"{request.num_frames} frames need {request.num_frames - 1} actions, but {len(actions)!r} were given.",
                "Give more actions, or ask for fewer frames.",
            )
        padded = np.concatenate([actions, np.zeros((1, len(names)), np.float32)])
        return padded[: request.num_frames]

    def _guard_texts(self, request: Request) -> tuple[Verdict, ...]:
        return tuple(
            v for text in (request.prompt, request.negative_prompt) if text for v in self.guardrails.enforce_text(text)
        )

    def _record(self, request: Request, source: Any, actions: np.ndarray | None) -> dict[str, Any]:
        record = {**request.to_dict(), "worldfoundry": __version__, "world": self.provenance.get("folder", "")}
        record["input"] = str(source) if isinstance(source, str | Path) else None if source is None else "array"
        record["actions"] = None if actions is None else actions.tolist()
        policy = self.guardrails.policy
        record["guards"] = policy.action + (f": {policy.reason}" if policy.reason else "")
        return record

    # -- the middle -------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _latent_shape(self, request: Request) -> tuple[int, int, int, int]:
        """Latents [C, T, H, W] that cover the request; rows and columns in whole patches."""
        spec, patch = self.tokenizer.spec, self.network.config.patch_spatial
        frames = spec.latent_frames(spec.round_up_frames(request.num_frames))
        rows, columns = (
            -(-size // (step * patch)) * patch for size, step in ((request.height, spec.h), (request.width, spec.w))
        )
        return spec.channels, frames, rows, columns

    @torch.inference_mode()
    def _encode_prefix(self, prefixes: Sequence[np.ndarray | None]) -> Tensor | None:
        """Prefix frames → latents of deviation sigma_data, one row per sample; None without a prefix."""
        given = [prefix for prefix in prefixes if prefix is not None]
        if not given:
            return None
        spec = self.tokenizer.spec
        frames = np.stack([prefix[-conditioning_length(len(prefix), spec.t) :] for prefix in given])
        x_BCTHW = torch.from_numpy(frames).to(self.device).movedim(-1, 1).float() / 127.5 - 1
        patch = self.network.config.patch_spatial
        down, right = -x_BCTHW.shape[3] % (spec.h * patch), -x_BCTHW.shape[4] % (spec.w * patch)
        x_BCTHW = torch.nn.functional.pad(x_BCTHW, (0, right, 0, down, 0, 0), mode="replicate")
        z_BCTHW = self.tokenizer.normalize(self.tokenizer.encode(x_BCTHW).float())
        return z_BCTHW * self.scheduler.sigma_data

    def _condition(self, request: Request, prefix: Tensor | None, actions_BFA: np.ndarray | None) -> Condition:
        features = None
        if actions_BFA is not None:
            spec, given = self.tokenizer.spec, actions_BFA[:, : request.num_frames]
            # The last latent frame may cover frames past the request: nothing acts there, but its first ones count.
            beyond = spec.round_up_frames(request.num_frames) - given.shape[1]
            padded = torch.nn.functional.pad(torch.from_numpy(given).float(), (0, 0, 0, beyond))
            features = action_features(padded, torch.tensor(self.config.action_rms), spec.t).to(self.device)
        return Condition(
            context_BLD=self._encode_text(request.prompt),
            fps_B=torch.tensor([request.fps], device=self.device),
            prefix_BCTHW=prefix,
            actions_BTA=features,
        )

    def _encode_text(self, text: str) -> Tensor:
        """[1, L, D]; zeros for no text, which is what dropped text was in training."""
        rows, width = self.config.context_rows, self.network.config.crossattn_emb_channels
        if not text:
            return torch.zeros(1, rows, width, device=self.device)
        if self.encoder is None:
            self.encoder = text_encoder(self.config.text_encoder, rows)
        return self.encoder.encode([text]).to(self.device)

    @torch.inference_mode()
    def _denoise(self, request: Request, condition: Condition, shape: tuple[int, ...], callback: StepCallback | None) -> Tensor:
        scheduler, steps = self.scheduler, request.num_inference_steps
        sigmas = noise_levels(
            scheduler.schedule, steps, sigma_min=scheduler.sigma_min, sigma_max=scheduler.sigma_max,
            rho=scheduler.rho, shift=scheduler.shift,
        )  # fmt: skip
        if self.config.final_sigmas_type == "sigma_min":
            sigmas = sigmas[:-1]  # the published sampler's last step goes from sigma_min to sigma_min: it changes nothing
        noise = [
            initial_noise(
                shape[1:], scheduler.sigma_max, torch.Generator().manual_seed(request.seed + i), sigma_data=scheduler.sigma_data
            )
            for i in range(shape[0])
        ]
        negative = self._encode_text(request.negative_prompt) if request.guidance_scale else None
        unconditional = condition.unconditional(negative) if request.guidance_scale else None
        denoise = guided(self.denoiser, condition, unconditional, request.guidance_scale, interval=scheduler.guidance_interval)
        tell = None if callback is None else lambda i, x, x0: callback(i, len(sigmas) - 1, x0)
        latents = sampler(scheduler.sampler)(denoise, torch.stack(noise).to(self.device), sigmas, tell)
        return latents.float() / scheduler.sigma_data

    @torch.inference_mode()
    def _decode(self, z_BCTHW: Tensor) -> np.ndarray:
        """Normalised latents → uint8 [B, T, H, W, 3]."""
        x_BCTHW = self.tokenizer.decode(self.tokenizer.denormalize(z_BCTHW)).float()
        return x_BCTHW.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
