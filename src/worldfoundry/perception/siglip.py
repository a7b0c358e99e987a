"""The picture tower of SigLIP (arXiv 2303.15343): a vision transformer whose answer is read out by one learned query.

so400m-patch14-384, which Cosmos' frame filter uses: 27 layers, 1152 wide, 16 heads, 4304 in the feed-forward, 27 x 27 patches.
Pre-norm blocks, tanh-GELU, learned positions, no class token. Names in the state dict are those of the published checkpoint
(`vision_model.…`), of which the text tower is not read.
Legend: B pictures, C channels, H height, W width, L patches, D width.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill, read_weights
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_fields

# The published defaults of fields that a config.json may leave out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}


TOWER = "vision_model."


class Attention(nn.Module):
    """Full self-attention among the patches."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v = (
            project(x_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Widen, tanh-GELU, narrow."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BLD), approximate="tanh"))


class Layer(nn.Module):
    """Attention and feed-forward, each on the normalised input and added to it."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.layer_norm1, self.self_attn = nn.LayerNorm(width, eps=eps), Attention(width, heads)
        self.layer_norm2, self.mlp = nn.LayerNorm(width, eps=eps), MLP(width, inner)

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.self_attn(self.layer_norm1(x_BLD))
        return x_BLD + self.mlp(self.layer_norm2(x_BLD))


class Readout(nn.Module):
    """One learned query attends to all patches."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layernorm, self.mlp = nn.LayerNorm(width, eps=eps), MLP(width, inner)

    def forward(self, x_BLD: Tensor) -> Tensor:
        y_BLD = self.attention(self.probe.expand(len(x_BLD), -1, -1), x_BLD, x_BLD, need_weights=False)[0]
        return (y_BLD + self.mlp(self.layernorm(y_BLD)))[:, 0]


class SiglipVision(nn.Module):
    """Pictures in [-1, 1] in, one vector each out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        fields = DEFAULTS | config
        width, heads, inner = (fields[k] for k in ("hidden_size", "num_attention_heads", "intermediate_size"))
        self.size, self.width = fields["image_size"], width
        eps, patch = fields["layer_norm_eps"], fields["patch_size"]
        self.embeddings = nn.ModuleDict(
            {
                "patch_embedding": nn.Conv2d(3, width, patch, patch),
                "position_embedding": nn.Embedding((self.size // patch) ** 2, width),
            }
        )
        layers = [Layer(width, heads, inner, eps) for _ in range(fields["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.post_layernorm, self.head = nn.LayerNorm(width, eps=eps), Readout(width, heads, inner, eps)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, 3, size, size] in [-1, 1] → [B, D], not normalised."""
        x_BLD = self.embeddings["patch_embedding"](x_BCHW).flatten(2).transpose(1, 2)
        x_BLD = x_BLD + self.embeddings["position_embedding"].weight
        for layer in self.encoder["layers"].children():
            x_BLD = layer(x_BLD)
        return self.head(self.post_layernorm(x_BLD))


def _is_ours(name: str) -> bool:
    """Whether a tensor belongs to the picture tower: it has its prefix, or is from a file that holds this tower alone."""
    return name.startswith((TOWER, "embeddings.patch", "embeddings.position", "encoder.", "post_layernorm.", "head."))


def load_siglip_vision(folder: Path) -> SiglipVision:
    """Read `config.json` and `model.safetensors` of a SigLIP folder (both towers, or the picture tower alone).

    Raises UsageError or CheckpointError for a folder that is absent, damaged or another network's.
    """
    fields = read_fields(folder / "config.json")
    fields = fields.get("vision_config", fields)
    if not str(fields.get("model_type", "")).startswith("siglip"):
        raise CheckpointError(f"{str(folder)!r} holds a {fields.get('model_type')!r}, but a SigLIP is needed here.")
    if fields.get("vision_use_head", True) is False or fields.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise CheckpointError(f"{str(folder)!r} is a SigLIP without a readout, or with another activation.")
    state = {name.removeprefix(TOWER): tensor.float() for name, tensor in read_weights(folder).items() if _is_ours(name)}
    net = SiglipVision(fields)
    fill(net, state, where=str(folder))
    return net.eval().requires_grad_(False)
