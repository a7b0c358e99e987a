"""The diffusion decoder: discrete tokens → the latents of a continuous tokenizer → pixels (arXiv 2501.03575, section 5.2.4).

A coarse tokenizer's own decoder has to give every picture in one pass, so what the tokens do not tell comes out blurred. Here a
diffusion world that is shown the tokens draws it. Ours is a world of this package with an adapter: low-rank additions, the table
of token embeddings and the layer that reads them.

FOLDER/config.json         what it reads, which world it belongs to, how it samples
FOLDER/model.safetensors   the adapter alone
FOLDER/provenance.json     how it was made
FOLDER/README.md           model card

Axis legend: B batch, C latent channels, T latent frames, r c token rows/columns, H W latent rows/columns, F pixel frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from worldfoundry.conditioning.condition import Condition
from worldfoundry.core.checkpoint import check_fit, read_config, read_weights, write_component
from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Denoiser
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.core.files import atomic_folder, read_fields
from worldfoundry.core.shipped import model_place
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.parametrization import NetworkDenoiser, parametrization
from worldfoundry.diffusion.samplers import initial_noise, sampler
from worldfoundry.inference.adapters import base_hashes
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.inference.decoding import to_bytes
from worldfoundry.inference.load import TOKEN_DECODER, load, load_tokenizer
from worldfoundry.inference.sampling import sampling_levels
from worldfoundry.inference.windows import plan_windows
from worldfoundry.nn.lora import LoRA, LowRank, parts_of
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer, Tokenizer

if TYPE_CHECKING:
    from worldfoundry.inference.world import DiffusionWorld

KIND = TOKEN_DECODER
COARSE, LORA = "coarse_input.", "lora."


class TokenDecoderConfig(Config):
    """What a decoder reads, which world it is an adapter of, and how it samples."""

    world: str
    """Name or folder of the world whose network and continuous tokenizer it uses."""
    world_weights: tuple[str, ...]
    """Hashes of that network's weights (`adapters.base_hashes`)."""
    tokenizer: str
    """Name or folder of the discrete tokenizer whose tokens it reads."""
    tokenizer_weights: tuple[str, ...]
    """Hashes of that tokenizer's weights."""
    token_codes: int = Field(ge=1)
    """Codes of that tokenizer."""
    token_channels: int = Field(ge=1)
    """Width of a token's embedding."""
    lora_scale: float = 1.0
    """How much the low-rank additions count."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """Noise levels and sampler."""
    num_inference_steps: int = Field(default=10, ge=1)
    """Steps of the sampler."""
    guidance_scale: float = Field(default=0.0, ge=0)
    """g of cond + g · (cond − uncond), where uncond sees token 0 everywhere."""
    chunk_frames: int = Field(default=8, ge=1)
    """Latent frames that are made together."""
    overlap_frames: int = Field(default=2, ge=1)
    """Latent frames that neighbouring chunks share."""
    blend_frames: int = Field(default=2, ge=0)
    """Pixel frames over which one chunk fades into the next, the last of those that they share."""


class TokenDecoder:
    """Decodes token grids to video. Made by `load_token_decoder`."""

    def __init__(
        self, network: DiT, latents: Tokenizer, tokens: DiscreteTokenizer, config: TokenDecoderConfig, context_rows: int,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """`latents` is the world's tokenizer, `tokens` the one that the token grids come from."""
        self.network, self.latents, self.tokens, self.config = network, latents, tokens, config
        self.context_rows, self.provenance = context_rows, dict(provenance or {})
        target = parametrization(config.scheduler.parametrization, config.scheduler.sigma_data)
        self.denoiser: Denoiser = NetworkDenoiser(network, target, frame_levels=config.scheduler.frame_levels)

    @torch.inference_mode()
    def decode(
        self, indices_BTrc: Tensor, *, fps: float, generators: Sequence[torch.Generator], num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Tokens of clips → uint8 frames [B, F, height, width, 3], F = 1 + t·(T − 1). One CPU generator per clip draws its noise.

        Clips longer than `config.chunk_frames` are made in chunks that share latent frames, and their noise; each decodes as a
        clip of its own and fades into the next. Raises UsageError for tokens that are none of the tokenizer's, or too few generators.
        """
        self._check(indices_BTrc, generators)
        indices_BTrc = indices_BTrc.to(self.device)
        sigmas = sampling_levels(self.config.scheduler, num_inference_steps or self.config.num_inference_steps)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        noise_BCTHW = self._noise(indices_BTrc, generators)
        video_BCFHW, t = None, self.latents.spec.t
        for window in plan_windows(indices_BTrc.shape[1], self.config.chunk_frames, self.config.overlap_frames):
            span = slice(
                window.start, window.start + window.length
            )  # the last may be shorter: there are no tokens beyond the clip
            condition = self._condition(indices_BTrc[:, span], fps)
            z_BCTHW = self._sample(noise_BCTHW[:, :, span], condition, sigmas, scale)
            chunk_BCFHW = self.latents.decode(z_BCTHW).float().clamp(-1, 1)
            before = chunk_BCFHW if video_BCFHW is None else video_BCFHW
            video_BCFHW = fade(before, chunk_BCFHW, window.start * t, self.config.blend_frames)
        assert video_BCFHW is not None  # a plan has a window
        return to_bytes(video_BCFHW)

    def check_tokenizer(self, tokenizer: nn.Module) -> None:
        """Whether tokens of this tokenizer are the ones that it reads. Raises CheckpointError."""
        if not set(base_hashes(tokenizer)) & set(self.config.tokenizer_weights):
            raise CheckpointError(
                f"The diffusion decoder reads tokens of {self.config.tokenizer!r}, and this tokenizer has other weights.",
                "Give that one, or train a decoder for this one (`worldfoundry train decoder`).",
            )

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _noise(self, indices_BTrc: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The whole clip's, so that chunks begin with the same where they overlap."""
        (_, T, r, c), tokens, latents = indices_BTrc.shape, self.tokens.spec, self.latents.spec
        shape, scheduler = (latents.channels, T, r * tokens.h // latents.h, c * tokens.w // latents.w), self.config.scheduler
        noise = [initial_noise(shape, scheduler.sigma_max, g, sigma_data=scheduler.sigma_data) for g in generators]
        return torch.stack(noise).to(self.device)

    def _sample(self, x_BCTHW: Tensor, condition: Condition, sigmas: Tensor, guidance_scale: float) -> Tensor:
        """Raw latents of a chunk."""
        without = replace(condition, coarse=torch.zeros_like(condition.coarse)) if condition.coarse is not None else None
        denoise = guided(self.denoiser, condition, without, guidance_scale, interval=self.config.scheduler.guidance_interval)
        x_BCTHW = sampler(self.config.scheduler.sampler)(denoise, x_BCTHW, sigmas, None)
        return self.latents.denormalize(x_BCTHW.float() / self.config.scheduler.sigma_data)

    def _condition(self, indices_BTrc: Tensor, fps: float) -> Condition:
        """The tokens; no text, no actions, nothing given."""
        (B, T, *_), net = indices_BTrc.shape, self.network.config
        return Condition(
            context_BLD=torch.zeros(B, self.context_rows, net.crossattn_emb_channels, device=self.device),
            fps_B=torch.full((B,), fps, device=self.device),
            actions_BTA=torch.zeros(B, T, net.action_dim, device=self.device) if net.action_dim else None,
            coarse=indices_BTrc,
        )

    def _check(self, indices_BTrc: Tensor, generators: Sequence[torch.Generator]) -> None:
        codes = self.config.token_codes
        if indices_BTrc.ndim != 4 or 0 in indices_BTrc.shape or indices_BTrc.is_floating_point():
            raise UsageError(
                f"Tokens are integers [batch, frames, rows, columns], not {indices_BTrc.dtype} {list(indices_BTrc.shape)!r}."
            )
        low, high = int(indices_BTrc.min()), int(indices_BTrc.max())
        if low < 0 or high >= codes:
            raise UsageError(
                f"The tokens go from {low!r} to {high!r}, but {self.config.tokenizer!r} has the codes 0 to {codes - 1}.",
                "Give tokens of that tokenizer.",
            )
        if len(generators) != len(indices_BTrc):
            raise UsageError(f"{len(indices_BTrc)} clips need as many generators, not {len(generators)!r}.")
        self.network.check_size((min(indices_BTrc.shape[1], self.config.chunk_frames), *self._noise_size(indices_BTrc)))

    def _noise_size(self, indices_BTrc: Tensor) -> tuple[int, int]:
        (_, _, r, c), tokens, latents = indices_BTrc.shape, self.tokens.spec, self.latents.spec
        return r * tokens.h // latents.h, c * tokens.w // latents.w


def fade(before_BCFHW: Tensor, after_BCFHW: Tensor, start: int, blend: int) -> Tensor:
    """Two pieces of a video, the second of which begins at frame `start` of the first: the first, fading into the second.

    The fade takes the last `blend` of the frames that they share (all, if they share fewer); before it only the first is seen.
    """
    shared = before_BCFHW.shape[2] - start
    n = min(blend, shared)
    weight = torch.arange(1, n + 1, device=before_BCFHW.device)[:, None, None] / (n + 1)
    first, own = before_BCFHW.split([before_BCFHW.shape[2] - n, n], dim=2)
    faded = own + weight * (after_BCFHW[:, :, shared - n : shared] - own)
    return torch.cat([first, faded, after_BCFHW[:, :, shared:]], dim=2)


# --- on disk ---------------------------------------------------------------------------------------------------------


def save_token_decoder(
    folder: Path, lora: LoRA, coarse: nn.Module, config: TokenDecoderConfig, *, provenance: Mapping[str, Any], card: str,
    dtype: torch.dtype = torch.bfloat16, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write a decoder folder, atomically: the trained additions and the coarse input of the network (`diffusion.coarse`)."""
    state = {f"{COARSE}{name}": tensor for name, tensor in coarse.state_dict().items()}
    for name, layer in lora.layers().items():
        state |= {f"{LORA}{name}.down": layer.down.detach(), f"{LORA}{name}.up": layer.up.detach()}
    stored = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in state.items()}
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        write_component(temporary, config.to_dict(), stored, kind=KIND, provenance=provenance, card=card)
    return folder


def load_token_decoder(
    name_or_folder: str | Path, *, world: "DiffusionWorld | None" = None, tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None, device: torch.device | None = None,
) -> TokenDecoder:  # fmt: skip
    """Read a shipped decoder or a folder, with the world and the tokenizer that it names, or the given ones.

    `dtype=None` keeps that of the world's weights. Raises CheckpointError for what is no decoder, and for a world or a tokenizer
    with other weights than those that it was made for.
    """
    from worldfoundry.inference.world import DiffusionWorld

    folder = model_place(name_or_folder)
    fields = read_config(folder)
    if (kind := fields.pop("kind")) != KIND:
        raise CheckpointError(f"{str(name_or_folder)!r} holds a {kind!r}, not a diffusion decoder.")
    config = TokenDecoderConfig.from_dict(fields, where=str(folder / "config.json"))
    world = load(config.world, dtype=dtype, device=device) if world is None else world
    if not isinstance(world, DiffusionWorld) or not isinstance(world.tokenizer, Tokenizer):
        raise CheckpointError(f"{config.world!r}, which the decoder {str(name_or_folder)!r} belongs to, is no diffusion world.")
    if not set(base_hashes(world.network)) & set(config.world_weights):
        raise CheckpointError(
            f"The decoder {str(name_or_folder)!r} is an adapter of {config.world!r}, and this world has other weights.",
            "Give that one, or train a decoder for this one (`worldfoundry train decoder`).",
        )
    tokenizer = load_tokenizer(config.tokenizer, dtype=dtype, device=device) if tokenizer is None else tokenizer
    check_tokenizers(tokenizer, world.tokenizer, config)
    assert isinstance(tokenizer, DiscreteTokenizer)
    network = with_adapter(world.network, config, read_weights(folder), where=str(folder))
    provenance = read_fields(folder / "provenance.json") if (folder / "provenance.json").is_file() else {}
    decoder = TokenDecoder(network, world.tokenizer, tokenizer, config, world.config.context_rows, provenance)
    decoder.check_tokenizer(tokenizer)
    return decoder


def check_tokenizers(tokens: nn.Module, latents: Tokenizer, config: TokenDecoderConfig | None = None) -> None:
    """Whether a decoder can read these tokens and make those latents. Raises CheckpointError."""
    if not isinstance(tokens, DiscreteTokenizer):
        raise CheckpointError("A diffusion decoder reads tokens, and this tokenizer is continuous.", "Give a discrete one.")
    if tokens.spec.t != latents.spec.t or tokens.spec.h % latents.spec.h or tokens.spec.w % latents.spec.w:
        raise CheckpointError(
            f"The tokens are {tokens.spec.t}x{tokens.spec.h}x{tokens.spec.w}, which does not fit latents of "
            f"{latents.spec.t}x{latents.spec.h}x{latents.spec.w}.",
            "Give a tokenizer with as many frames per latent frame, and whole multiples of its height and width.",
        )
    if config is not None and tokens.config.codebook_size != config.token_codes:
        raise CheckpointError(
            f"The diffusion decoder reads {config.token_codes!r} codes of {config.tokenizer!r}, and this tokenizer has "
            f"{tokens.config.codebook_size!r}.",
            "Give the tokenizer that it was trained for.",
        )


@torch.no_grad()
def with_adapter(base: DiT, config: TokenDecoderConfig, stored: Mapping[str, Tensor], *, where: str) -> DiT:
    """A network with the base's weights and what a decoder folder stores; merged in float32, in the base's dtype. The base stays."""
    network = decoder_network(base, config.token_codes, config.token_channels)
    coarse = {name.removeprefix(COARSE): t.float() for name, t in stored.items() if name.startswith(COARSE)}
    assert network.coarse_input is not None
    wanted = {name: tensor.shape for name, tensor in network.coarse_input.state_dict().items()}
    check_fit(wanted, coarse, what=f"The token embeddings of {where!r} and its config disagree")
    network.coarse_input.load_state_dict(coarse)
    lora = _lora({name.removeprefix(LORA): t for name, t in stored.items() if name.startswith(LORA)}, config.lora_scale, where)
    lora.check(network)
    lora.to(network.patch_embed.weight.device).merge(network)
    return network.to(base.patch_embed.weight.dtype).eval().requires_grad_(False)


def decoder_network(base: DiT, codes: int, channels: int, *, seed: int = 0) -> DiT:
    """A float32 network of its own that has the base's weights and zero token embeddings: it computes what the base does."""
    network = DiT(base.config.replace(token_codes=codes, token_channels=channels), seed=seed)
    network.load_state_dict({name: tensor.float() for name, tensor in base.state_dict().items()}, strict=False)
    return network.to(base.patch_embed.weight.device)


def _lora(stored: Mapping[str, Tensor], scale: float, where: str) -> LoRA:
    layers = {}
    for name in sorted({name.rpartition(".")[0] for name in stored}):
        down, up = stored.get(f"{name}.down"), stored.get(f"{name}.up")
        if down is None or up is None or down.ndim != 3 or up.ndim != 3 or down.shape[1] != up.shape[2]:
            raise CheckpointError(f"The low-rank matrices of {name!r} in {where!r} do not belong together.", "Copy it again.")
        layer = LowRank(down.shape[2], len(up) * up.shape[1], down.shape[1], scale=scale, parts=parts_of(name))
        if (layer.down.shape, layer.up.shape) != (down.shape, up.shape):
            raise CheckpointError(f"The low-rank matrices of {name!r} in {where!r} have other parts than the layer.")
        layer.down.data, layer.up.data = down.float(), up.float()
        layers[name] = layer
    return LoRA(layers)
