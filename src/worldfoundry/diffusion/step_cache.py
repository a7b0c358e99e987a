"""Steps that skip the blocks: what they add to the tokens is taken from an earlier step while their input hardly changes.

Training-free, after TeaCache (arXiv 2411.19108): the modulated input of the first block tells how much the output would change.
Its relative changes are summed up over steps; while the sum stays below a threshold, the blocks' residual of the last computed
step is added again. TeaCache also fits a polynomial that rescales the change for each published network; here the change is
taken as it is, so a threshold means the same for any network and only roughly the same quality.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from worldfoundry.diffusion.dit import DiT, DiTBlock
from worldfoundry.nn.adaln import modulate


@dataclass
class _Past:
    """Of the last step under the same text and batch size."""

    signal: Tensor
    residual: Tensor
    change: float = 0.0


class StepCache(nn.Module):
    """Stands where a network's blocks stood, for one sample; `computed` and `reused` count its calls.

    While `must_compute` is set every call is computed.
    """

    def __init__(self, blocks: nn.ModuleList, threshold: float) -> None:
        super().__init__()
        self.blocks, self.threshold = blocks, threshold
        self.computed = self.reused = 0
        self.must_compute = False
        self._past: dict[Any, _Past] = {}

    def forward(
        self, x_BtSD: Tensor, position_tSD: Tensor | None, embedding: Tensor, base: Tensor, context_BLD: Tensor, *rest: Any
    ) -> Tensor:
        first = self.blocks[0]
        assert isinstance(first, DiTBlock)
        # Blocks may wait beside the device (offloading) and come for their own forward only; this small part is asked before.
        weights = {name: tensor.to(x_BtSD.device) for name, tensor in first.modulation_self.state_dict().items()}
        shift, scale, _ = functional_call(first.modulation_self, weights, (embedding, base))
        signal = modulate(x_BtSD if position_tSD is None else x_BtSD + position_tSD, shift, scale)
        key = (tuple(x_BtSD.shape), float(context_BLD.float().abs().sum()))  # branches of guidance differ in their text alone
        past = self._past.get(key)
        if past is not None and not self.must_compute:
            change = past.change + float((signal - past.signal).abs().mean() / past.signal.abs().mean())
            if change < self.threshold:
                self._past[key] = _Past(signal, past.residual, change)
                self.reused += 1
                return x_BtSD + past.residual
        out_BtSD = x_BtSD
        for block in self.blocks:
            out_BtSD = block(out_BtSD, position_tSD, embedding, base, context_BLD, *rest)
        self._past[key] = _Past(signal, out_BtSD - x_BtSD)
        self.computed += 1
        return out_BtSD


@contextmanager
def step_cache(network: DiT, threshold: float) -> Iterator[StepCache | None]:
    """Within, the network's blocks may be skipped. None and nothing changed for a threshold of 0."""
    if not threshold:
        yield None
        return
    blocks, cache = network.blocks, StepCache(network.blocks, threshold)
    network.blocks = nn.ModuleList([cache])
    try:
        yield cache
    finally:
        network.blocks = blocks
