"""The Cosmos diffusion transformer (arXiv 2501.03575, section 5.1.2), exactly as the published networks compute.

Legend: B batch, C channels, T H W latent frames/rows/columns, t h w the same in patches, S = h·w tokens of a frame,
D width, L context rows, A action features.

What is notable:
- one token is a 1x2x2 patch of [latents, condition mask, padding mask]; the order of features out differs from the order in
- attention over all tokens of the clip at once, queries and keys RMS-normalised per head, 3-D RoPE that knows the fps
- besides RoPE a learnable position table, RMS-normalised, is added again at the input of every block
- the noise level enters by AdaLN: one vector of 3·D shared by all sub-blocks, plus a low-rank correction in each; the
  correction reads the raw sinusoid of c_noise (RMS-normalised), the shared vector an MLP of it. Frames may have levels of
  their own (Cosmos-Predict2 tells given frames from noisy ones that way)
- cross-attention to text sees all rows, padding too; no biases anywhere; exact GELU
- adapters for post-training, off by default and zero at the start: actions, the last given frame as context, and the tokens
  or coarse latents that a diffusion decoder refines (`coarse.py`)
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.conditioning.action import ActionAdapter
from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.coarse import CoarseInput
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.nn.adaln import AdaLNLoRA, add_gated, modulate
from worldfoundry.nn.attention import CrossAttention, SelfAttention
from worldfoundry.nn.memo import Memo, remembered
from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.packed import packed
from worldfoundry.nn.patch import patchify, unpatchify
from worldfoundry.nn.rope import rope_tables


class TimeEmbedding(nn.Module):
    """c_noise of any shape → (the RMS-normalised sinusoid [..., D], the modulation base shared by all sub-blocks [..., 3·D])."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, width, bias=False)
        self.linear_2 = nn.Linear(width, 3 * width, bias=False)
        self.norm = RMSNorm(width)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        for linear in (self.linear_1, self.linear_2):
            nn.init.normal_(linear.weight, std=0.02, generator=generator)

    def forward(self, c_noise: Tensor) -> tuple[Tensor, Tensor]:
        half = self.norm.weight.shape[0] // 2
        exponents = torch.arange(half, device=c_noise.device, dtype=torch.float32) / half
        angles = c_noise.float()[..., None] * torch.exp(-math.log(10000.0) * exponents)
        sinusoid_D = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.norm(sinusoid_D), self.linear_2(F.silu(self.linear_1(sinusoid_D)))


class PositionTable(nn.Module):
    """Learnable vectors per frame, row and column; their sum is normalised to unit RMS at every token."""

    def __init__(self, sizes: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.t, self.h, self.w = (nn.Parameter(torch.zeros(n, width)) for n in sizes)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        for table in (self.t, self.h, self.w):
            nn.init.trunc_normal_(table, std=0.02, a=-0.04, b=0.04, generator=generator)

    def check(self, t: int, h: int, w: int) -> None:
        """Raises UsageError for a clip of more patches than the table covers."""
        for what, asked, table in (("frames", t, self.t), ("rows", h, self.h), ("columns", w, self.w)):
            if asked > len(table):
                raise UsageError(
                    f"This model's position table covers {len(table)} patch {what}, but the clip has {asked!r}.",
                    "Generate fewer or smaller frames, or train with a larger max_frames, max_h, max_w.",
                )

    def forward(self, t: int, h: int, w: int) -> Tensor:
        """[t, h·w, D] for a clip of t x h x w patches. Raises UsageError beyond the table."""
        self.check(t, h, w)
        sum_thwD = self.t[:t, None, None] + self.h[None, :h, None] + self.w[None, None, :w]
        rms = torch.linalg.vector_norm(sum_thwD, dim=-1, keepdim=True, dtype=torch.float32) * sum_thwD.shape[-1] ** -0.5
        return (sum_thwD / (rms + 1e-6)).to(sum_thwD.dtype).flatten(1, 2)


class MLP(nn.Module):
    """Linear, exact GELU, linear; no biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        return self.down(F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden))


class DiTBlock(nn.Module):
    """Self-attention, cross-attention, MLP; each x + gate · f(modulated norm of x). A pure function of tensors."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        D, rank = config.model_channels, config.adaln_lora_dim
        self.self_attention = SelfAttention(D, config.num_heads)
        self.cross_attention = CrossAttention(D, config.crossattn_emb_channels, config.num_heads)
        self.mlp = MLP(D, int(D * config.mlp_ratio))
        self.modulation_self = AdaLNLoRA(D, rank)
        self.modulation_cross = AdaLNLoRA(D, rank)
        self.modulation_mlp = AdaLNLoRA(D, rank)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Beyond Xavier per layer: a fused layer is drawn as the layers it stands for, and the corrections start at zero."""
        for fused, parts in ((self.self_attention.to_qkv, 3), (self.cross_attention.to_kv, 2)):
            for part in fused.weight.chunk(parts):
                nn.init.xavier_uniform_(part, generator=generator)
        for modulation in (self.modulation_self, self.modulation_cross, self.modulation_mlp):
            nn.init.zeros_(modulation.up.weight)

    def forward(
        self,
        x_BtSD: Tensor,
        position_tSD: Tensor | None,
        embedding_Bt1D: Tensor,
        base_Bt1D3: Tensor,
        context_BLD: Tensor,
        cos: Tensor,
        sin: Tensor,
        memo: Memo | None = None,
    ) -> Tensor:
        frames = x_BtSD.shape[1:3]
        if position_tSD is not None:
            x_BtSD = x_BtSD + position_tSD
        shift, scale, gate = self.modulation_self(embedding_Bt1D, base_Bt1D3)
        tokens = modulate(x_BtSD, shift, scale).flatten(1, 2)
        x_BtSD = add_gated(x_BtSD, gate, self.self_attention(tokens, cos, sin).unflatten(1, frames))

        shift, scale, gate = self.modulation_cross(embedding_Bt1D, base_Bt1D3)
        tokens = modulate(x_BtSD, shift, scale).flatten(1, 2)
        x_BtSD = add_gated(x_BtSD, gate, self.cross_attention(tokens, context_BLD, memo).unflatten(1, frames))

        shift, scale, gate = self.modulation_mlp(embedding_Bt1D, base_Bt1D3)
        return add_gated(x_BtSD, gate, self.mlp(modulate(x_BtSD, shift, scale)))


class FinalLayer(nn.Module):
    """Modulated norm (no gate) and the projection to patches; with `skip_gates` two gates per latent position follow."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        patch = config.patch_temporal * config.patch_spatial**2
        self.modulation = AdaLNLoRA(config.model_channels, config.adaln_lora_dim, chunks=2)
        self.linear = nn.Linear(config.model_channels, patch * config.out_channels, bias=False)
        self.gates = nn.Linear(config.model_channels, 2 * patch, bias=False) if config.skip_gates else None

    def forward(self, x_BtSD: Tensor, embedding_Bt1D: Tensor, base_Bt1D3: Tensor) -> Tensor:
        shift, scale = self.modulation(embedding_Bt1D, base_Bt1D3)
        x_BtSD = modulate(x_BtSD, shift, scale)
        out_BtSK = self.linear(x_BtSD)
        return out_BtSK if self.gates is None else torch.cat([out_BtSK, self.gates(x_BtSD)], dim=-1)


class UncertaintyHead(nn.Module):
    """u(c_noise): the log of the loss that the network expects at a noise level, from fixed random Fourier features."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(features))  # 2π · N(0, 1)
        self.register_buffer("phases", torch.zeros(features))  # 2π · U(0, 1)
        self.weight = nn.Parameter(torch.zeros(1, features))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        self.freqs.normal_(generator=generator).mul_(2 * math.pi)
        self.phases.uniform_(generator=generator).mul_(2 * math.pi)
        nn.init.zeros_(self.weight)  # all noise levels count alike at first

    def forward(self, c_noise_B: Tensor) -> Tensor:
        angles = c_noise_B.float()[:, None] * self.freqs.float() + self.phases.float()
        return (math.sqrt(2) * angles.cos()) @ self.weight.float()[0]


class TokenSplit(Protocol):
    """Several ranks share the tokens of each clip: every rank takes its part of every frame, and all gather the outputs."""

    def take(
        self, tokens_BtSD: Tensor, position_tSD: Tensor | None, cos_B1Le: Tensor, sin_B1Le: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]: ...
    def gather(self, tokens_BtSD: Tensor) -> Tensor: ...


class DiT(nn.Module):
    """Noisy latents, noise level and conditions in; the raw network output (before any parametrisation) out."""

    def __init__(self, config: DiTConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        D, p, pt = config.model_channels, config.patch_spatial, config.patch_temporal
        self.patch_embed = nn.Linear(config.network_in_channels * pt * p * p, D, bias=False)
        self.position = PositionTable(config.position_sizes, D) if config.extra_pos_emb == "learnable" else None
        self.time = TimeEmbedding(D)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.num_blocks))
        self.final = FinalLayer(config)
        self.uncertainty = UncertaintyHead() if config.uncertainty else None
        self.action_adapter = ActionAdapter(config.action_dim, D) if config.action_dim else None
        self.prefix_embed = nn.Linear(config.in_channels * pt * p * p, D, bias=False) if config.prefix_context else None
        self.coarse_input = CoarseInput(config) if config.coarse_channels else None
        self.token_split: TokenSplit | None = None  # set where the tokens of a clip lie on several ranks
        device = self.patch_embed.weight.device
        if device.type != "meta":
            self.init_weights(torch.Generator(device).manual_seed(seed))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: Xavier, small time embedding, zero corrections, zero output, zero adapters."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
            elif isinstance(module, RMSNorm):
                nn.init.ones_(module.weight)
        for module in self.blocks.children():
            if isinstance(module, DiTBlock):
                module.init_weights(generator)
        nn.init.zeros_(self.final.modulation.up.weight)
        if self.final.gates is not None:
            nn.init.zeros_(self.final.gates.weight)
        nn.init.zeros_(self.final.linear.weight)  # the first prediction is c_skip · x, the best guess without knowledge
        for part in (self.time, self.position, self.uncertainty, self.action_adapter, self.coarse_input):
            if part is not None:
                part.init_weights(generator)
        if self.prefix_embed is not None:
            nn.init.zeros_(self.prefix_embed.weight)

    def forward(
        self,
        x_BCTHW: Tensor,
        c_noise: Tensor,
        context_BLD: Tensor,
        *,
        fps_B: Tensor | None = None,
        padding_mask_B1HW: Tensor | None = None,
        condition_mask_B1THW: Tensor | None = None,
        actions_BTA: Tensor | None = None,
        prefix_BCTHW: Tensor | None = None,
        coarse: Tensor | None = None,
        memo: Memo | None = None,
    ) -> Tensor:
        """The raw output [B, out_channels, T, H, W] in x's dtype.

        x: latents scaled by c_in, T a multiple of patch_temporal, H and W of patch_spatial. c_noise = ln(sigma) / 4: [B], [1]
        (one level for the batch, which is faster) or [B, T] (each frame's own; patch_temporal must be 1).
        context: text rows, zero past their length. fps: pixel frames per second, None = 24 (each sample has its own; the
        published code gives all the first one's). padding mask: any height and width, 1 = padded, None = nothing padded.
        condition mask: 1 on given frames, None = none given. actions: features per latent frame. prefix: the given frames
        as clean latents of unit variance (they fill the first frames; frames beyond the condition mask's count are
        ignored). coarse: what a decoder refines (see `coarse.py`). memo: an empty dict, handed to every call that differs from the
        first in x and c_noise only; what follows from the rest is then computed once (without gradients; see `nn.memo`).
        Raises UsageError for shapes that do not fit the config.
        """
        config = self.config
        self._check(x_BCTHW, c_noise, context_BLD, actions_BTA)
        dtype = self.patch_embed.weight.dtype
        t, h, w = _grid(x_BCTHW.shape[2:], config)
        masks_BCTHW = remembered(memo, "masks", lambda: self._masks(x_BCTHW, padding_mask_B1HW, condition_mask_B1THW))
        channels_BCTHW = torch.cat([x_BCTHW, *masks_BCTHW], dim=1).to(dtype)
        tokens_BtSD = self.patch_embed(patchify(channels_BCTHW, config.patch_temporal, config.patch_spatial))
        cos, sin = remembered(
            memo, "rope", lambda: rope_tables((t, h, w), config.head_dim, config.rope_ratios, fps_B, x_BCTHW.device)
        )
        position_tSD = None
        if self.position is not None:
            position_tSD = remembered(memo, "position", lambda position=self.position: position(t, h, w))
        embedding_BtD, base_BtD3 = self.time(c_noise.view(len(c_noise), -1))
        embedding_Bt1D, base_Bt1D3 = F.silu(embedding_BtD)[:, :, None], base_BtD3[:, :, None]
        if self.action_adapter is not None and actions_BTA is not None:
            adapter, actions_BTA = self.action_adapter, actions_BTA.to(dtype)
            to_tokens, to_base = remembered(memo, adapter, lambda: adapter(actions_BTA))
            tokens_BtSD, base_Bt1D3 = tokens_BtSD + to_tokens, base_Bt1D3 + to_base
        if self.prefix_embed is not None and prefix_BCTHW is not None:
            embed, last = self.prefix_embed, last_given_frame(prefix_BCTHW, condition_mask_B1THW)
            tokens_BtSD = tokens_BtSD + remembered(
                memo, embed, lambda: embed(patchify(last.to(dtype), 1, config.patch_spatial))
            )
        if self.coarse_input is not None:
            refined, shape_BTHW = self.coarse_input, (len(x_BCTHW), *x_BCTHW.shape[2:])
            tokens_BtSD = tokens_BtSD + remembered(memo, refined, lambda: refined(coarse, shape_BTHW))
        # Under autocast the products above come in half precision; the stream that blocks add to keeps the weights' own.
        tokens_BtSD, context_BLD = tokens_BtSD.to(dtype), context_BLD.to(dtype)
        if self.token_split is not None:
            tokens_BtSD, position_tSD, cos, sin = self.token_split.take(tokens_BtSD, position_tSD, cos, sin)
        with packed(self.blocks, memo):
            for block in self.blocks:
                tokens_BtSD = block(tokens_BtSD, position_tSD, embedding_Bt1D, base_Bt1D3, context_BLD, cos, sin, memo)
        tokens_BtSD = self.final(tokens_BtSD, embedding_Bt1D, base_Bt1D3)
        if self.token_split is not None:
            tokens_BtSD = self.token_split.gather(tokens_BtSD)
        return self._to_latents(tokens_BtSD, x_BCTHW, prefix_BCTHW, condition_mask_B1THW)

    def _to_latents(
        self, tokens_BtSD: Tensor, x_BCTHW: Tensor, prefix_BCTHW: Tensor | None, condition_mask_B1THW: Tensor | None
    ) -> Tensor:
        """Patches to latents, plus what the gates let through of x and of the last given frame."""
        config, rows = self.config, x_BCTHW.shape[3] // self.config.patch_spatial
        patch = config.patch_temporal * config.patch_spatial**2
        parts = tokens_BtSD.split([patch * config.out_channels, *([patch, patch] if config.skip_gates else [])], dim=-1)
        out_BCTHW, *gates_B1THW = (
            unpatchify(part, rows, config.patch_temporal, config.patch_spatial).to(x_BCTHW.dtype) for part in parts
        )
        if gates_B1THW:
            out_BCTHW = out_BCTHW + gates_B1THW[0] * x_BCTHW
            if prefix_BCTHW is not None:
                last_BC1HW = last_given_frame(prefix_BCTHW, condition_mask_B1THW).to(x_BCTHW.dtype)
                out_BCTHW = out_BCTHW + gates_B1THW[1] * last_BC1HW
        return out_BCTHW

    def check_size(self, shape_THW: Sequence[int]) -> None:
        """Whether latents of this size fit the position table, asked before they are made. Raises UsageError."""
        if self.position is not None:
            self.position.check(*_grid(shape_THW, self.config))

    def _masks(self, x_BCTHW: Tensor, padding_B1HW: Tensor | None, condition_B1THW: Tensor | None) -> list[Tensor]:
        """The channels appended to x: the condition mask, then the padding mask (resized to the latents by nearest sampling)."""
        B, _, T, H, W = x_BCTHW.shape
        channels = []
        if self.config.condition_mask:
            mask = x_BCTHW.new_zeros(()) if condition_B1THW is None else condition_B1THW.to(x_BCTHW.dtype)
            channels.append(mask.expand(B, 1, T, H, W))
        if self.config.concat_padding_mask:
            if padding_B1HW is None:
                mask = x_BCTHW.new_zeros(())
            else:
                mask = F.interpolate(padding_B1HW.to(x_BCTHW.dtype), size=(H, W), mode="nearest")[:, :, None]
            channels.append(mask.expand(B, 1, T, H, W))
        return channels

    def _check(self, x_BCTHW: Tensor, c_noise: Tensor, context_BLD: Tensor, actions_BTA: Tensor | None) -> None:
        """Shapes against the config, so that a wrong one is named rather than met deep inside a product."""
        config = self.config
        if x_BCTHW.shape[1] != config.in_channels:
            raise UsageError(f"This model takes latents of {config.in_channels} channels, not {x_BCTHW.shape[1]!r}.")
        pt, p = config.patch_temporal, config.patch_spatial
        if any(size % patch for size, patch in zip(x_BCTHW.shape[2:], (pt, p, p), strict=True)):
            raise UsageError(
                f"Latents of {tuple(x_BCTHW.shape[2:])!r} frames, rows, columns do not divide into patches of {(pt, p, p)!r}.",
                "Pad or crop the video.",
            )
        B, T = len(x_BCTHW), x_BCTHW.shape[2]
        allowed = ((B,), (1,), (B, T)) if pt == 1 else ((B,), (1,))
        if tuple(c_noise.shape) not in allowed:
            raise UsageError(
                f"c_noise must have the shape {' or '.join(map(repr, allowed))} here, not {tuple(c_noise.shape)!r}.",
                "Give one noise level for the batch, one per sample, or one per latent frame.",
            )
        if context_BLD.shape[-1] != config.crossattn_emb_channels:
            raise UsageError(
                f"This model takes context rows of width {config.crossattn_emb_channels}, not {context_BLD.shape[-1]!r}.",
                "Use the text encoder that it was trained with.",
            )
        if actions_BTA is not None and self.action_adapter is not None:
            wanted = (x_BCTHW.shape[2], config.action_dim)
            if tuple(actions_BTA.shape[1:]) != wanted:
                raise UsageError(
                    f"Actions must be (latent frames, features) = {wanted!r} per sample, not {tuple(actions_BTA.shape[1:])!r}."
                )


def last_given_frame(prefix_BCTHW: Tensor, condition_mask_B1THW: Tensor | None) -> Tensor:
    """The last frame of the prefix that the mask marks as given, [B, C, 1, H, W]; zeros where none is. No mask: the last.

    Frames that are given at the clip's end are no part of the prefix.
    """
    if condition_mask_B1THW is None:
        return prefix_BCTHW[:, :, -1:]
    given_B = condition_mask_B1THW[:, 0, :, 0, 0].cumprod(dim=1).sum(dim=1).long()
    index_B = (given_B - 1).clamp(0, prefix_BCTHW.shape[2] - 1)
    frames = prefix_BCTHW[torch.arange(len(prefix_BCTHW), device=index_B.device), :, index_B]
    return (frames * (given_B > 0).to(frames.dtype).view(-1, 1, 1, 1))[:, :, None]


def _grid(shape_THW: Sequence[int], config: DiTConfig) -> tuple[int, int, int]:
    """Patches along time, height and width."""
    T, H, W = shape_THW
    return T // config.patch_temporal, H // config.patch_spatial, W // config.patch_spatial
