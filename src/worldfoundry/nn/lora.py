"""Low-rank additions to the linear layers of a network: W + scale · B A (LoRA, arXiv 2106.09685, section 4.1).

Legend: I inputs, O outputs, r rank, P parts. A fused layer holds several layers one above the other (`to_qkv`: q, k and v);
each of them has an addition of its own, as in networks that keep them apart, so adapters travel both ways unchanged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.errors import CheckpointError, UsageError

FUSED = {"to_qkv": 3, "to_kv": 2}
"""Last part of a layer's name → how many layers it holds."""
PREFIXES = ("base_model.model.", "transformer.")
"""What PEFT, and diffusers' pipelines, put before a layer's name."""


class LowRank(nn.Module):
    """The addition to one layer, zero at first: A (`down`) is drawn, B (`up`) is zero."""

    def __init__(self, inputs: int, outputs: int, rank: int, *, scale: float = 1.0, parts: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Parameter(torch.zeros(parts, rank, inputs))
        self.up = nn.Parameter(torch.zeros(parts, outputs // parts, rank))

    @property
    def rank(self) -> int:
        return self.down.shape[1]

    def delta(self) -> Tensor:
        """What it adds to the weight: [O, I] in float32."""
        return self.scale * (self.up.float() @ self.down.float()).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] → what it adds to the output, [..., O]."""
        low = F.linear(x, self.down.flatten(0, 1).to(x.dtype)).chunk(len(self.up), dim=-1)
        added = [F.linear(part, up.to(part.dtype)) for part, up in zip(low, self.up, strict=True)]
        return self.scale * (added[0] if len(added) == 1 else torch.cat(added, dim=-1))


class LoRA(nn.Module):
    """Additions to layers of a network, by the layers' names. It holds nothing of the network: its state is the adapter alone."""

    def __init__(self, layers: Mapping[str, LowRank]) -> None:
        super().__init__()
        self.additions = nn.ModuleDict({name.replace(".", "/"): layer for name, layer in layers.items()})

    def layers(self) -> dict[str, LowRank]:
        """The additions by the dotted names of their layers."""
        found = {name.replace("/", "."): layer for name, layer in self.additions.items()}
        return {name: layer for name, layer in found.items() if isinstance(layer, LowRank)}

    @contextmanager
    def attached(self, network: nn.Module, weight: float = 1.0) -> Iterator[None]:
        """Inside the block the network's layers add `weight` times what is here to their outputs. Several add up."""
        handles = [_linear(network, name).register_forward_hook(_adder(layer, weight)) for name, layer in self.layers().items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def check(self, network: nn.Module) -> None:
        """Whether the network has all the layers, in their sizes. Raises CheckpointError."""
        for name, layer in self.layers().items():
            has, wanted = (
                tuple(_linear(network, name).weight.shape),
                (layer.up.shape[0] * layer.up.shape[1], layer.down.shape[2]),
            )
            if has != wanted:
                raise CheckpointError(
                    f"The adapter's addition to {name!r} is {wanted!r}, but the layer is {has!r}.",
                    "Load it into the network that it was trained for.",
                )

    @torch.no_grad()
    def merge(self, network: nn.Module, weight: float = 1.0) -> None:
        """Put `weight` times the additions into the network's own weights; with -weight they are taken out again.

        In float32 that is exact to rounding; half-precision weights keep what their precision holds.
        """
        for name, layer in self.layers().items():
            own = _linear(network, name).weight
            own.copy_((own.float() + weight * layer.delta().to(own.device)).to(own.dtype))


def new_lora(
    network: nn.Module, targets: Sequence[str] = ("blocks.*",), *, rank: int = 16, alpha: float | None = None, seed: int = 0
) -> LoRA:
    """Zero additions for all linear layers whose names match one of the `targets` (`*` stands for anything).

    They are scaled by alpha / rank (None: 1). Raises UsageError if nothing matches.
    """
    generator, layers = torch.Generator().manual_seed(seed), {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and any(fnmatchcase(name, target) for target in targets):
            scale = 1.0 if alpha is None else alpha / rank
            layer = LowRank(module.in_features, module.out_features, rank, scale=scale, parts=parts_of(name))
            nn.init.uniform_(layer.down, -(module.in_features**-0.5), module.in_features**-0.5, generator=generator)
            layers[name] = layer
    if not layers:
        raise UsageError(f"No linear layer of the network matches {', '.join(targets)!r}.", "Try 'blocks.*'.")
    return LoRA(layers).to(next(network.parameters()).device)


def parts_of(name: str) -> int:
    """How many layers a layer of this name holds."""
    return FUSED.get(name.rpartition(".")[2], 1)


def _adder(layer: LowRank, weight: float) -> Any:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + weight * layer(inputs[0])

    return add


def _linear(network: nn.Module, name: str) -> nn.Linear:
    """Raises CheckpointError where the network has no linear layer of that name."""
    try:
        found = network.get_submodule(name)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear):
        raise CheckpointError(
            f"The network has no linear layer {name!r} that an adapter could add to.",
            "Load the adapter before the network is quantised, and only into the network that it was trained for.",
        )
    return found


# --- PEFT's names ----------------------------------------------------------------------------------------------------


def to_peft(lora: LoRA, names: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and config of a PEFT adapter folder. `names`: our layers → published ones, one per part; others keep theirs."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for ours, layer in lora.layers().items():
        parts = names.get(ours, (ours,))
        if len(parts) != len(layer.up):
            raise ValueError(f"{ours!r} has {len(layer.up)} parts, but {len(parts)} published names")
        for part, down, up in zip(parts, layer.down.detach(), layer.up.detach(), strict=True):
            tensors[f"{PREFIXES[0]}{part}.lora_A.weight"] = down.cpu().clone()
            tensors[f"{PREFIXES[0]}{part}.lora_B.weight"] = up.cpu().clone()
            ranks[part], alphas[part] = layer.rank, layer.scale * layer.rank
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    fields = {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": sorted(ranks), "bias": "none", "lora_dropout": 0.0,
        "fan_in_fan_out": False, "inference_mode": True, "use_rslora": False, "use_dora": False, "task_type": None,
        "rank_pattern": {re.escape(part): r for part, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(part): a for part, a in alphas.items() if a != alpha},
    }  # fmt: skip
    return tensors, fields


def from_peft(tensors: Mapping[str, Tensor], fields: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> LoRA:
    """A LoRA from a PEFT adapter. Parts of a fused layer that it leaves alone stay zero; smaller ranks are filled with zeros.

    Raises CheckpointError for another kind of adapter, and for tensors that are none of a LoRA's.
    """
    if fields.get("peft_type") != "LORA" or fields.get("use_dora") or fields.get("bias", "none") != "none":
        raise CheckpointError("The adapter is no plain LoRA (adapter_config.json: peft_type, use_dora, bias).")
    pairs = _pairs(tensors)
    ours = {part: (name, i) for name, parts in names.items() for i, part in enumerate(parts)}
    by_layer: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for part, (down, up) in pairs.items():
        name, i = ours.get(part, (part, 0))
        by_layer.setdefault(name, {})[i] = (down.float(), up.float() * _scale(part, len(down), fields))
    layers = {}
    for name, parts in by_layer.items():
        downs, ups = (([pair[side] for pair in parts.values()]) for side in (0, 1))
        if len({down.shape[1] for down in downs}) > 1 or len({len(up) for up in ups}) > 1:
            raise CheckpointError(
                f"The adapter's matrices for the parts of {name!r} differ in size.", "Copy or download it again."
            )
        rank, outputs = max(len(down) for down in downs), len(ups[0]) * len(names.get(name, (name,)))
        layer = LowRank(downs[0].shape[1], outputs, rank, parts=len(names.get(name, (name,))))
        with torch.no_grad():
            for i, (down, up) in parts.items():
                layer.down[i, : len(down)] = down
                layer.up[i, :, : len(down)] = up
        layers[name] = layer
    return LoRA(layers)


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Published layer name → its A and B. Raises CheckpointError."""
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        prefix = next((p for p in PREFIXES if key.startswith(p)), "")
        found = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", key.removeprefix(prefix))
        if found is None or tensor.ndim != 2:
            raise CheckpointError(f"The adapter holds {key!r}, which is no low-rank matrix of a linear layer.")
        sides.setdefault(found[1], {})[found[2]] = tensor
    for name, pair in sides.items():
        if pair.keys() != {"A", "B"} or len(pair["A"]) != pair["B"].shape[1]:
            raise CheckpointError(f"The adapter's matrices for {name!r} do not belong together.", "Copy or download it again.")
    if not sides:
        raise CheckpointError("The adapter holds no matrices.", "Copy or download it again.")
    return {name: (pair["A"], pair["B"]) for name, pair in sides.items()}


def _scale(part: str, rank: int, fields: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / √rank (rank-stabilised), with the layer's own alpha where the config names one."""
    patterns = fields.get("alpha_pattern") or {}
    own = next((a for pattern, a in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", part)), None)
    alpha = fields.get("lora_alpha", rank) if own is None else own
    if not isinstance(alpha, int | float):
        raise CheckpointError(f"The adapter's lora_alpha must be a number, not {alpha!r}.", "Copy or download it again.")
    return alpha / (rank**0.5 if fields.get("use_rslora") else rank)
