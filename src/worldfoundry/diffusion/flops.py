"""How many floating-point operations a forward of the DiT takes, by formula: matrix products alone, a multiply-add as two.

Legend: B batch, T H W latent frames/rows/columns, L context rows, N tokens of a clip, D width, R rank, K action features.
"""

from math import prod

from worldfoundry.diffusion.config import DiTConfig


def forward_flops(config: DiTConfig, shape_BTHW: tuple[int, int, int, int], context_rows: int) -> int:
    """One forward of B clips, each with its own noise level, actions (where the network takes them) and prefix."""
    B, T, H, W = shape_BTHW
    D, p, pt = config.model_channels, config.patch_spatial, config.patch_temporal
    patch = pt * p * p
    N = (T // pt) * (H // p) * (W // p)
    macs = N * D * patch * config.network_in_channels + 4 * D * D  # tokens; the noise level's MLP
    macs += config.num_blocks * _block_macs(config, N, context_rows)
    macs += D * config.adaln_lora_dim * 3 + N * D * patch * config.out_channels  # final modulation and projection
    if config.action_dim:
        macs += T * D * (config.action_dim + 5 * D)  # two layers, to the tokens, to the modulation
    macs += N * D * patch * config.coarse_channels
    if config.prefix_context:
        macs += (N // T) * D * patch * config.in_channels
    if config.skip_gates:
        macs += N * D * 2 * patch
    return 2 * B * macs


def training_flops(config: DiTConfig, shape_BTHW: tuple[int, int, int, int], context_rows: int) -> int:
    """Forward and backward: three forwards. Recomputation (activation checkpointing) is not counted, as is usual for
    model-FLOP utilisation (arXiv 2204.02311, appendix B)."""
    return 3 * forward_flops(config, shape_BTHW, context_rows)


def _block_macs(config: DiTConfig, N: int, L: int) -> int:
    D = config.model_channels
    attention = 4 * N * D * D + 2 * N * N * D  # q, k, v, out; scores and their sum of values
    cross = 2 * N * D * D + 2 * L * config.crossattn_emb_channels * D + 2 * N * L * D
    mlp = 2 * N * D * int(D * config.mlp_ratio)
    modulations = 3 * 4 * D * config.adaln_lora_dim  # down to the rank, up to three vectors
    return attention + cross + mlp + modulations


def tokens(config: DiTConfig, shape_THW: tuple[int, int, int]) -> int:
    """Tokens of a clip of this many latent frames, rows and columns."""
    p = config.patch_spatial
    return prod(size // patch for size, patch in zip(shape_THW, (config.patch_temporal, p, p), strict=True))
