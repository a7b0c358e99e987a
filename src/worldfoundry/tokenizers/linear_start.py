"""Start a tokenizer as the best linear one (PCA of Haar patches) instead of at random, for trainings of minutes.

The published network has no linear path: its last layers are norm → SiLU → convolution. Yet it can hold one exactly:
silu(x) − silu(−x) = x, so channels in pairs ±x pass the SiLU unharmed; and a pair of constant channels ±k much larger than
the rest fixes the deviation that the per-frame norm divides by. Residual branches start at zero and learn what PCA lacks.
Only networks without samplers are started so: nearest-neighbour upsampling cannot hold an exact linear inverse.

Axis legend: B batch, C channels, T frames, H height, W width, K channels of the Haar bands, N positions in all the sample,
O I output and input channels of a convolution.
"""

import torch
from torch import Tensor, nn

from worldfoundry.core.errors import UsageError
from worldfoundry.nn.causal_conv import CausalTimeConv, FactorizedConv3d, FrameConv
from worldfoundry.nn.haar import patchify_video
from worldfoundry.tokenizers.config import TokenizerConfig
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.tokenizers.video_network import Attention, ResBlock, VideoDecoder, VideoEncoder

ANCHOR = 6.0  # the constant channels' value; bands are within ±1, so frames differ in deviation by about a per mille


def can_start_linear(config: TokenizerConfig) -> bool:
    """Whether `linear_start` applies: a continuous video network of one level, without samplers, wide enough."""
    wide = config.channels >= 2 * config.latent_channels + 2 and config.z_channels >= config.latent_channels
    return config.modality == "video" and not config.levels and config.channels_mult == (1,) and wide


@torch.no_grad()
def linear_start(tokenizer: Tokenizer, x_BCTHW: Tensor) -> float:
    """Overwrite the weights so that decode(encode(x)) is the PCA reconstruction; returns the share of variance kept.

    `x` is a sample of training video in [-1, 1]. Latent i is the i-th principal component divided by λ^¼, between
    whitening (which would shout noise) and none (which would let brightness shout). Raises UsageError if the network
    is not of the kind described above.
    """
    config = tokenizer.config
    if not can_start_linear(config):
        raise UsageError("A linear start needs a continuous video tokenizer of one level without samplers.")
    mean_K, basis_KC, variance_C = _principal_components(patchify_video(x_BCTHW, config.patch_size))
    kept = float(variance_C[: config.latent_channels].sum() / variance_C.sum())
    bands = len(mean_K)
    features, latents = min((config.channels - 2) // 2, bands), min(config.latent_channels, bands)
    gain_C = variance_C[:latents].clamp(min=1e-8) ** 0.25
    _silence(tokenizer)

    encoder, decoder = tokenizer.encoder, tokenizer.decoder
    assert isinstance(encoder, VideoEncoder), "checked by can_start_linear"
    assert isinstance(decoder, VideoDecoder), "checked by can_start_linear"
    _pairs_in(encoder.conv_in, basis_KC[:, :features].T, -(mean_K @ basis_KC[:, :features]))
    _keep_deviation(encoder.norm_out, variance_C[:features].sum())
    _pairs_out(encoder.conv_out, torch.diag(1 / gain_C), features)
    _identity(tokenizer.to_latent)

    _identity(tokenizer.from_latent)
    _pairs_in(decoder.conv_in, torch.diag(gain_C), torch.zeros(latents))
    _keep_deviation(decoder.norm_out, variance_C[:latents].sum())
    _pairs_out(decoder.conv_out, basis_KC[:, :latents], latents)
    _bias(decoder.conv_out.spatial).copy_(mean_K)
    return kept


def _principal_components(bands_BKTHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [K], components [K, K] (columns, largest first) and their variances [K]."""
    rows_NK = bands_BKTHW.movedim(1, -1).flatten(0, -2).double()
    mean_K = rows_NK.mean(0)
    centred_NK = rows_NK - mean_K
    variance_K, basis_KK = torch.linalg.eigh(centred_NK.T @ centred_NK / len(rows_NK))
    return mean_K.float(), basis_KK.flip(1).float(), variance_K.flip(0).float()


def _silence(tokenizer: nn.Module) -> None:
    """Residual branches contribute nothing at first."""
    for module in tokenizer.modules():
        last = module.conv2.temporal if isinstance(module, ResBlock) else module.out if isinstance(module, Attention) else None
        if last is not None:
            last.weight.zero_()
            _bias(last).zero_()


def _pairs_in(conv: FactorizedConv3d, weight_OI: Tensor, bias_O: Tensor) -> None:
    """Outputs: +(weight·x + bias), then the same negated, then the two anchors, then nothing."""
    n, inputs = weight_OI.shape
    full, bias = torch.zeros(conv.spatial.out_channels, conv.spatial.in_channels), torch.zeros(conv.spatial.out_channels)
    full[:n, :inputs], full[n : 2 * n, :inputs] = weight_OI, -weight_OI
    bias[:n], bias[n : 2 * n], bias[-2], bias[-1] = bias_O, -bias_O, ANCHOR, -ANCHOR
    _pointwise(conv.spatial, full, bias)
    _identity(conv.temporal)


def _pairs_out(conv: FactorizedConv3d, weight_OI: Tensor, num_pairs: int) -> None:
    """weight · (silu(+x) − silu(−x)) over the first inputs of `num_pairs` pairs."""
    full = torch.zeros(conv.spatial.out_channels, conv.spatial.in_channels)
    outputs, inputs = weight_OI.shape
    full[:outputs, :inputs], full[:outputs, num_pairs : num_pairs + inputs] = weight_OI, -weight_OI
    _pointwise(conv.spatial, full, torch.zeros(len(full)))
    _identity(conv.temporal)


def _keep_deviation(norm: nn.GroupNorm, variance: Tensor) -> None:
    """Undo the division by the deviation, which anchors and pairs make nearly constant."""
    norm.weight.fill_(((2 * ANCHOR**2 + 2 * float(variance)) / norm.num_channels) ** 0.5)
    norm.bias.zero_()


def _identity(conv: nn.Module) -> None:
    assert isinstance(conv, FrameConv | CausalTimeConv), "video tokenizers convolve causally"
    _pointwise(conv, torch.eye(conv.out_channels, conv.in_channels), torch.zeros(conv.out_channels))


def _pointwise(conv: FrameConv | CausalTimeConv, weight_OI: Tensor, bias_O: Tensor) -> None:
    """Only the present frame's centre tap acts."""
    conv.weight.zero_()
    conv.weight[:, :, -1, conv.weight.shape[3] // 2, conv.weight.shape[4] // 2] = weight_OI
    _bias(conv).copy_(bias_O)


def _bias(conv: FrameConv | CausalTimeConv) -> Tensor:
    assert conv.bias is not None, "tokenizer convolutions have biases"
    return conv.bias
