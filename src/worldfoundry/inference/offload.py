"""Worlds that are larger than their device: weights wait in the computer's memory and come to the device to work.

Levels: `none`, all weights stay on the device; `parts`, text encoder, network and tokenizer come in turn; `sequential`, the
network comes block by block. Weights never change, so nothing is copied back. What is computed is the same at every level.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Level = Literal["none", "parts", "sequential"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of the weights of a world's parts, and of what the network and the tokenizer hold while they work."""

    text: int
    network: int
    tokenizer: int
    denoise: int
    decode: int


def choose_level(sizes: Sizes, free: int) -> Level:
    """The fastest level that `free` bytes are enough for; `sequential` where none is."""
    if sizes.text + sizes.network + sizes.tokenizer + max(sizes.denoise, sizes.decode) <= free:
        return "none"
    if max(sizes.text, sizes.network + sizes.denoise, sizes.tokenizer + sizes.decode) <= free:
        return "parts"
    return "sequential"


class Offloader:
    """Parks parts and brings them to `device` while they work. `parked` is where they wait (tests use the meta device)."""

    def __init__(self, device: torch.device, level: Level, *, parked: torch.device | str = "cpu") -> None:
        self.device, self.level, self.parked = device, level, torch.device(parked)
        self._places: dict[int, list[_Place]] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def park(self, part: nn.Module, blocks: nn.ModuleList | None = None) -> None:
        """Send a part away. With `blocks` (sequential) each of them comes for its own forward only."""
        apart = set() if blocks is None or self.level != "sequential" else set(blocks.modules())
        self._places[id(part)] = _places(part, self.parked, apart)
        for block in blocks or () if apart else ():
            self._places[id(block)] = _places(block, self.parked, set())
            self._hooks.append(block.register_forward_pre_hook(lambda module, _: self._bring(module)))
            self._hooks.append(block.register_forward_hook(lambda module, *_: self._send(module)))
        for module in (part, *(blocks or () if apart else ())):
            self._send(module)

    @contextmanager
    def at_work(self, part: nn.Module) -> Iterator[None]:
        """While this part runs on the device."""
        self._bring(part)
        try:
            yield
        finally:
            self._send(part)

    def release(self) -> None:
        """Parts are whole again, in the memory that they waited in; the caller moves them on."""
        for hook in self._hooks:
            hook.remove()
        for places in self._places.values():
            for place in places:
                place.put(place.master)
        self._places, self._hooks = {}, []

    def _bring(self, module: nn.Module) -> None:
        for place in self._places[id(module)]:
            place.put(place.master.to(self.device, non_blocking=True))

    def _send(self, module: nn.Module) -> None:
        for place in self._places[id(module)]:
            place.put(place.waiting)


@dataclass(frozen=True)
class _Place:
    """Where a module holds a tensor, the tensor itself, and what stands there while it is away."""

    owner: nn.Module
    name: str
    master: Tensor
    waiting: Tensor

    def put(self, tensor: Tensor) -> None:
        if self.name in self.owner._parameters:
            is_parameter = isinstance(tensor, nn.Parameter)
            self.owner._parameters[self.name] = tensor if is_parameter else nn.Parameter(tensor, requires_grad=False)
        else:
            self.owner._buffers[self.name] = tensor


def _places(part: nn.Module, parked: torch.device, apart: set[nn.Module]) -> list[_Place]:
    """All tensors of a part but those of the modules in `apart`. What lies on the device is not kept there beside the parked one."""
    return [
        _Place(owner, name, tensor if parked.type == "meta" else waiting, waiting)
        for owner in part.modules()
        if owner not in apart
        for held in (owner._parameters, owner._buffers)
        for name, tensor in held.items()
        if tensor is not None
        for waiting in [tensor if tensor.device == parked else tensor.to(parked)]
    ]
