"""The layout of the published `model.pt` files (nvidia-cosmos/cosmos-predict1) to ours and back.

Names differ and nothing else; only Medusa heads have no published layout. Tensor-parallel training there writes one state dict
per rank (`model_mp_0`, …): each matrix is cut into equal parts by rows or by columns, norms are whole on every rank.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.checkpoint import fill, weightless
from worldfoundry.core.errors import CheckpointError

# Constructor arguments of the original network → fields of TransformerConfig.
FIELDS = {
    "vocab_size": "vocab_size",
    "dim": "dim",
    "n_layers": "num_layers",
    "n_heads": "num_heads",
    "n_kv_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "ffn_hidden_size": "ffn_hidden_size",
    "norm_eps": "norm_eps",
    "use_qk_normalization": "qk_norm",
    "rope_theta": "rope_theta",
    "video_latent_shape": "latent_shape",
    "apply_abs_pos_emb": "abs_pos_emb",
    "insert_cross_attn_every_k_layers": "cross_attn_every",
}
YARN_FIELDS = {
    "yarn_scale": "scale",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
    "original_latent_shape": "original_latent_shape",
}
# Arguments that must have this value for the network to be this one.
REQUIRED = {"norm_type": "rmsnorm", "pytorch_rope_version": "v2"}
BOV_TRAINING = "text_to_video"
ROPE = {"3D": "3d", "1D": "1d"}
# Matrices whose rows, or whose columns, lie on several ranks.
ROW_SPLIT = {"tok_embeddings", "output", "wq", "wk", "wv", "w1", "w3"}
COLUMN_SPLIT = {"wo", "w2"}
# The published checkpoints by name → our sizes.
PUBLISHED = {
    f"{family}{size}": ours
    for family in ("Cosmos-Predict1-", "Cosmos-1.0-Autoregressive-")
    for size, ours in (
        ("4B", "4b"),
        ("5B-Video2World", "5b-video2world"),
        ("12B", "12b"),
        ("13B-Video2World", "13b-video2world"),
    )
}
# Our names → the original's; within a block `layers.{i}.` is left out.
TOP = {"embed.weight": "tok_embeddings.weight", "norm.weight": "norm.weight", "unembed.weight": "output.weight"}
ATTENTION = {"to_q": "wq", "to_k": "wk", "to_v": "wv", "to_out": "wo", "norm_q": "q_norm", "norm_k": "k_norm"}
BLOCK = {
    "attention_norm.weight": "attention_norm.weight",
    "cross_attention_norm.weight": "cross_attention_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "ffn.gate.weight": "feed_forward.w1.weight",
    "ffn.up.weight": "feed_forward.w3.weight",
    "ffn.down.weight": "feed_forward.w2.weight",
} | {f"{part}.{o}.weight": f"{part}.{t}.weight" for part in ("attention", "cross_attention") for o, t in ATTENTION.items()}


def config_from_original(kwargs: Mapping[str, Any]) -> TransformerConfig:
    """TransformerConfig from the original constructor's arguments, of which those that change nothing here are passed over.

    Raises CheckpointError for a network that is not this one.
    """
    for name, wanted in REQUIRED.items():
        if kwargs.get(name, wanted) != wanted:
            raise CheckpointError(f"The original config has {name} = {kwargs[name]!r}; only {wanted!r} is this network.")
    rope = kwargs.get("rope_dim", "3D")
    if rope not in ROPE:
        raise CheckpointError(f"The original config has rope_dim = {rope!r}; only '3D' and '1D' are known.")
    fields = {ours: kwargs[theirs] for theirs, ours in FIELDS.items() if kwargs.get(theirs) is not None}
    if "dim" in fields and "num_heads" in fields:  # what the original derives where it is not given
        fields.setdefault("head_dim", fields["dim"] // fields["num_heads"])
        fields.setdefault("num_kv_heads", fields["num_heads"])
    fields["rope"] = ROPE[rope]
    fields["bov"] = rope == "3D" and kwargs.get("training_type") == BOV_TRAINING
    if kwargs.get("insert_cross_attn"):
        fields["context_dim"] = kwargs["context_dim"]
    if rope == "3D" and kwargs.get("apply_yarn"):
        fields["yarn"] = {ours: kwargs[theirs] for theirs, ours in YARN_FIELDS.items() if kwargs.get(theirs) is not None}
    T, H, W = fields.get("latent_shape", TransformerConfig().latent_shape)
    clip = fields["bov"] + T * H * W if rope == "3D" else 1
    fields["max_seq_len"] = max(kwargs.get("max_seq_len") or 0, clip)
    return TransformerConfig.from_dict(fields, where="original config")


def config_to_original(config: TransformerConfig) -> dict[str, Any]:
    """The original constructor's arguments. Raises CheckpointError for Medusa heads, which its layout does not know."""
    refuse_heads(config)
    yarn = {} if config.yarn is None else {t: getattr(config.yarn, o) for t, o in YARN_FIELDS.items()}
    plain = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    return {
        **{name: list(value) if isinstance(value, tuple) else value for name, value in (plain | yarn).items()},
        **REQUIRED,
        "rope_dim": next(theirs for theirs, ours in ROPE.items() if ours == config.rope),
        "max_seq_len": config.max_seq_len,
        "apply_yarn": config.yarn is not None,
        "training_type": BOV_TRAINING if config.bov else "video_to_video",
        "insert_cross_attn": config.context_dim > 0,
        "context_dim": config.context_dim,
        "expand_vocab_embedding_rows": config.embedding_rows,
    }


def from_original(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> Transformer:
    """An eval-mode transformer, without gradients, from a published state dict and the original constructor's arguments.

    Accepts the dict nested under `model`, the `model.` prefix or none; TransformerEngine's `_extra_state` entries are dropped,
    everything else must be used.
    """
    nested = state_dict.get("model")
    state = nested if isinstance(nested, Mapping) else state_dict
    tensors = {name.removeprefix("model."): t for name, t in state.items() if not name.endswith("_extra_state")}
    ours = config_from_original(config)
    names = {theirs: name for name, theirs in names_in_original(ours).items()}
    with weightless():
        network = Transformer(ours)
    fill(network, {names.get(name, name): tensor for name, tensor in tensors.items()}, where="the original checkpoint")
    return network.eval().requires_grad_(False)


def to_original(network: Transformer) -> dict[str, Tensor]:
    """The published layout, without a prefix. Raises CheckpointError for Medusa heads."""
    refuse_heads(network.config)
    state = network.state_dict()
    return {theirs: state[ours].detach().clone() for ours, theirs in names_in_original(network.config).items()}


def names_in_original(config: TransformerConfig) -> dict[str, str]:
    """Every tensor of ours → the original's name, without `model.`."""
    names = dict(TOP)
    for i in range(config.num_layers):
        crosses = config.context_dim > 0 and i % config.cross_attn_every == 0
        for ours, theirs in BLOCK.items():
            absent = (ours.startswith("cross_attention") and not crosses) or ("norm_" in ours and not config.qk_norm)
            if not absent:
                names[f"blocks.{i}.{ours}"] = f"layers.{i}.{theirs}"
    return names


def refuse_heads(config: TransformerConfig) -> None:
    """Raises CheckpointError where the config has something that the published layout cannot hold."""
    if config.medusa_heads:
        raise CheckpointError(
            f"This network has {config.medusa_heads!r} Medusa heads, which the published layout cannot hold.",
            "Convert a network without them.",
        )


def split_shards(state: Mapping[str, Tensor], num_shards: int) -> list[dict[str, Tensor]]:
    """A state dict in the published layout → one per rank of its tensor-parallel training.

    Raises CheckpointError where a matrix does not divide (heads, key and value heads, hidden width, vocabulary).
    """
    shards: list[dict[str, Tensor]] = [{} for _ in range(num_shards)]
    for name, tensor in state.items():
        axis = shard_axis(name)
        if axis is not None and tensor.shape[axis] % num_shards:
            raise CheckpointError(
                f"{name!r} of shape {list(tensor.shape)} does not divide into {num_shards!r} shards.",
                "Take a number of shards that divides the heads, the key and value heads, the hidden width and the vocabulary.",
            )
        parts = [tensor] * num_shards if axis is None else tensor.chunk(num_shards, dim=axis)
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part.clone()
    return shards


def merge_shards(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The state dicts of all ranks, in the order of the ranks → the whole one.

    Norms, which every rank holds whole, become the mean of all. Raises CheckpointError where ranks hold different tensors.
    """
    names = shards[0].keys()
    for rank, shard in enumerate(shards):
        if shard.keys() != names:
            odd = sorted(shard.keys() ^ names)
            raise CheckpointError(
                f"Shard {rank!r} and shard 0 hold different tensors, for example {odd[0]!r} ({len(odd)} in all).",
                "Give all shards of one checkpoint, and no others.",
            )
    merged = {}
    for name in names:
        parts, axis = [shard[name] for shard in shards], shard_axis(name)
        if axis is not None:
            merged[name] = torch.cat(parts, dim=axis)
        elif all(torch.equal(part, parts[0]) for part in parts):
            merged[name] = parts[0]
        else:
            merged[name] = torch.stack(parts).double().mean(dim=0).to(parts[0].dtype)
    return merged


def shard_axis(name: str) -> int | None:
    """The axis along which a published tensor is cut between ranks: rows where outputs are split, columns where inputs are."""
    layer = name.removesuffix(".weight").rpartition(".")[2]
    return 0 if layer in ROW_SPLIT else 1 if layer in COLUMN_SPLIT else None
