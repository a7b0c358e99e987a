"""all-MiniLM-L6-v2: a BERT of 6 layers and width 384 that turns text into one vector per token (arXiv 2002.10957, 1810.04805).

Legend: B batch, L tokens, D width, h heads, d head width. The state dict keeps our names; `load_minilm` translates BERT's.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_json


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The fields of BERT's config.json that decide shapes."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


class BertLayer(nn.Module):
    """Self-attention and MLP, each added to its input and then normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(D, D) for _ in range(3))
        self.attention_out = nn.Linear(D, D)
        self.attention_norm = nn.LayerNorm(D, config.layer_norm_eps)
        self.mlp_up = nn.Linear(D, config.intermediate_size)
        self.mlp_down = nn.Linear(config.intermediate_size, D)
        self.mlp_norm = nn.LayerNorm(D, config.layer_norm_eps)

    def forward(self, x_BLD: Tensor, mask_B11L: Tensor) -> Tensor:
        q, k, v = (f(x_BLD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed_BLD = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11L).transpose(1, 2).flatten(2)
        x_BLD = self.attention_norm(x_BLD + self.attention_out(mixed_BLD))
        return self.mlp_norm(x_BLD + self.mlp_down(F.gelu(self.mlp_up(x_BLD))))


class MiniLM(nn.Module):
    """Token ids in, last hidden states out."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """[B, L] token ids and mask (1 = token, 0 = padding; at least one token each) → [B, L, D]."""
        return self.states(ids_BL, mask_BL)[-1]

    def states(self, ids_BL: Tensor, mask_BL: Tensor) -> list[Tensor]:
        """The hidden states [B, L, D] after each layer."""
        found = []
        positions = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        x_BLD = self.norm(self.words(ids_BL) + self.positions(positions) + self.types.weight[0])
        for layer in self.layers:
            x_BLD = layer(x_BLD, mask_BL.bool()[:, None, None])
            found.append(x_BLD)
        return found


# Ours → BERT's, outside and inside a layer. Every entry has a weight; all but embeddings a bias.
_TOP = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp_up": "intermediate.dense",
    "mlp_down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


def from_bert(state_dict: dict[str, Tensor], config: BertConfig) -> MiniLM:
    """An eval-mode MiniLM without gradients from BERT's tensors (the pooler, which pools for sentences, is not used)."""
    names = {theirs: ours for ours, theirs in _TOP.items()}
    for i in range(config.num_hidden_layers):
        names |= {f"encoder.layer.{i}.{theirs}": f"layers.{i}.{ours}" for ours, theirs in _LAYER.items()}
    unused = ("pooler.", "embeddings.position_ids")
    renamed = {}
    for name, tensor in state_dict.items():
        if not name.startswith(unused):
            module, _, kind = name.rpartition(".")
            renamed[f"{names.get(module, module)}.{kind}"] = tensor
    net = MiniLM(config)
    fill(net, renamed, where="the BERT checkpoint")
    return net.eval().requires_grad_(False)


def load_minilm(folder: Path) -> MiniLM:
    """Read `config.json` and `model.safetensors` of a BERT folder. Raises CheckpointError for another architecture."""
    from safetensors.torch import load_file

    fields = read_json(folder / "config.json")
    if fields.get("model_type") != "bert" or fields.get("hidden_act") != "gelu":
        kind = (fields.get("model_type"), fields.get("hidden_act"))
        raise CheckpointError(
            f"{str(folder)!r} holds a network of type and activation {kind!r}; only ('bert', 'gelu') is known."
        )
    shapes = {name: fields[name] for name in BertConfig.__dataclass_fields__ if name in fields}
    return from_bert(load_file(folder / "model.safetensors"), BertConfig(**shapes))
