"""Going on from an existing autoregressive model: its weights in a network that may have more than it.

Legend: V embedding rows, D width.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from worldfoundry.autoregressive.config import TransformerConfig, ar_size
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.inference.load import load
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer
from worldfoundry.training.methods.autoregressive import zero_cross_attention

FREE = {
    "vocab_size", "latent_shape", "max_seq_len", "context_dim", "cross_attn_every", "abs_pos_emb", "bov", "yarn", "medusa_heads",
}  # fmt: skip
"""Fields that the tokenizer, the window, the text encoder or the stage of a training decide, not the size."""
ADDED = ("cross_attention", "medusa.")


@dataclass(frozen=True, kw_only=True)
class TokenBase:
    """A loaded model to go on from, in float32 on the CPU; its tokenizer, where it is a world; a hash of its weights."""

    network: Transformer
    tokenizer: DiscreteTokenizer | None
    weights: str


def read_token_base(init: Path | None) -> TokenBase | None:
    """What `init` names. Raises CheckpointError for anything but an autoregressive world or checkpoint."""
    if init is None:
        return None
    found = load(init, dtype=torch.float32)
    network = found if isinstance(found, Transformer) else getattr(found, "network", None)
    if not isinstance(network, Transformer):
        raise CheckpointError(
            f"{str(init)!r} is no autoregressive model.", "Give --init an autoregressive world or checkpoint."
        )
    tokenizer = getattr(found, "tokenizer", None)
    return TokenBase(
        network=network,
        tokenizer=tokenizer if isinstance(tokenizer, DiscreteTokenizer) else None,
        weights=weights_hash(network),
    )


def weights_hash(network: Transformer) -> str:
    """A short hash of all weights by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def token_size(model: str | None, base: TokenBase | None, init: Path | None) -> TransformerConfig:
    """The named size, or the base's. Raises UsageError where the two differ in more than what may be added."""
    if base is None:
        return ar_size(model or "nano")
    own = base.network.config
    if model is None:
        return own
    asked = ar_size(model)
    for name in TransformerConfig.model_fields:
        if name not in FREE and getattr(asked, name) != getattr(own, name):
            raise UsageError(
                f"{str(init)!r} has {name} {getattr(own, name)!r}, but {model!r} has {getattr(asked, name)!r}: its weights do not fit.",
                "Leave --model out, or train without --init.",
            )
    return asked


@torch.no_grad()
def start_network(config: TransformerConfig, base: TokenBase | None, seed: int) -> Transformer:
    """A new network whose cross-attention adds nothing yet, with the base's weights where it has them.

    Raises UsageError for another vocabulary than the base's.
    """
    network = Transformer(config, seed=seed)
    zero_cross_attention(network)
    if base is None:
        return network
    before = base.network.config.vocab_size
    if before != config.vocab_size:
        raise UsageError(
            f"The base predicts {before} codes, but the tokenizer has {config.vocab_size!r}.",
            "Give the tokenizer that it was trained with.",
        )
    own, state = network.state_dict(), base.network.state_dict()
    for name, tensor in own.items():
        if name == "embed.weight":
            state[name] = _rows(state[name], tensor)
        elif name not in state or (name.startswith("medusa.") and state[name].shape != tensor.shape):
            state[name] = tensor
    network.load_state_dict({name: tensor for name, tensor in state.items() if name in own or not _added(name)})
    return network


def _added(name: str) -> bool:
    return any(part in name for part in ADDED)


def _rows(base_VD: Tensor, new_VD: Tensor) -> Tensor:
    """The base's rows of the embedding; rows that only one of the two has (begin-of-video and padding) stay new or go."""
    shared = min(len(base_VD), len(new_VD))
    return torch.cat([base_VD[:shared], new_VD[shared:]])
