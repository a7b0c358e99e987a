"""The tokenizer of Cosmos-Predict2's worlds (`AutoencoderKLWan`, which NVIDIA took unmodified), run by diffusers.

Axis legend: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldfoundry.core.checkpoint import check_fit
from worldfoundry.core.contracts import TokenizerSpec
from worldfoundry.core.errors import CheckpointError, MissingExtraError

CLASS_NAME = "AutoencoderKLWan"


class WanTokenizer(nn.Module):
    """diffusers' network behind `core.contracts.VideoTokenizer`; latents are the mean of its posterior."""

    def __init__(self, network: nn.Module, fields: Mapping[str, Any]) -> None:
        """`fields` are those of the network's config.json, defaults filled in."""
        super().__init__()
        self.network, self.config = network, dict(fields)

    @property
    def spec(self) -> TokenizerSpec:
        time, space = self.config["scale_factor_temporal"], self.config["scale_factor_spatial"]
        return TokenizerSpec(t=time, h=space, w=space, channels=self.config["z_dim"], causal=True)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; inputs are cast to it."""
        return next(self.network.parameters()).dtype

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        """Video in [-1, 1], [B, 3, 1 + t·k, H, W] → latents [B, C, 1 + k, H/h, W/w], not normalised."""
        network: Any = self.network
        return network.encode(x_BCTHW.to(self.dtype)).latent_dist.mode()

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Latents → video in the weights' dtype; diffusers clamps it to [-1, 1]."""
        network: Any = self.network
        return network.decode(z_BCTHW.to(self.dtype)).sample

    def normalize(self, z_BCTHW: Tensor) -> Tensor:
        """(z − mean) / std per channel, with the statistics of the config."""
        mean_C111, std_C111 = self._statistics(z_BCTHW.device)
        return ((z_BCTHW - mean_C111) / std_C111).to(z_BCTHW.dtype)

    def denormalize(self, z_BCTHW: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        mean_C111, std_C111 = self._statistics(z_BCTHW.device)
        return (z_BCTHW * std_C111 + mean_C111).to(z_BCTHW.dtype)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """In float32, whatever the weights are cast to."""
        mean_C, std_C = (torch.tensor(self.config[name], device=device) for name in ("latents_mean", "latents_std"))
        return mean_C.view(-1, 1, 1, 1), std_C.view(-1, 1, 1, 1)


def from_diffusers(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> WanTokenizer:
    """Weights and `config.json` of an AutoencoderKLWan → a tokenizer, in the stored dtype.

    Raises MissingExtraError without diffusers, CheckpointError for weights that do not fit the config.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError("diffusers", "dev") from error
    network: Any = getattr(diffusers, CLASS_NAME).from_config(dict(config))
    fields = dict(network.config)
    if not len(fields["latents_mean"]) == len(fields["latents_std"]) == fields["z_dim"]:
        raise CheckpointError(f"The Wan config has z_dim {fields['z_dim']!r}, but not as many latents_mean and latents_std.")
    want = {name: tensor.shape for name, tensor in network.state_dict().items()}
    check_fit(want, state_dict, what="Weights and config of the Wan tokenizer disagree")
    network.load_state_dict(dict(state_dict))
    return WanTokenizer(network, fields).to(next(iter(state_dict.values())).dtype).eval().requires_grad_(False)
