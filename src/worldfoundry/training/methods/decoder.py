"""Training of a diffusion decoder: a frozen world with low-rank additions learns to draw what tokens stand for."""

import torch
from torch import Tensor, nn

from worldfoundry.diffusion.coarse import CoarseInput
from worldfoundry.nn.lora import LoRA
from worldfoundry.training.method import Share, StepOutput
from worldfoundry.training.methods.diffusion import DiffusionMethod


class DecoderParts(nn.Module):
    """What is trained: the additions, and the network's own input for tokens."""

    def __init__(self, lora: LoRA, coarse: CoarseInput) -> None:
        super().__init__()
        self.lora, self.coarse = lora, coarse


class DecoderMethod:
    """The denoising loss of a network with a LoRA attached; beside it only the network's coarse input is trained."""

    def __init__(self, lora: LoRA, world: DiffusionMethod) -> None:
        """`world` draws noise levels, drops tokens, and holds the network, which becomes frozen but for its coarse input."""
        coarse = world.module.coarse_input
        if coarse is None:
            raise ValueError("the network has no input for tokens: set token_codes")
        self.world, self.module = world, DecoderParts(lora, coarse)
        world.module.requires_grad_(False)
        coarse.requires_grad_(True)

    @property
    def share(self) -> Share:
        return self.world.share

    @share.setter
    def share(self, share: Share) -> None:
        self.world.share = share

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`batch` is that of `DiffusionMethod`, with `tokens` [B, T, rows, columns]."""
        with self.module.lora.attached(self.world.module):
            return self.world.training_step(batch, generator)

    def compile(self) -> None:
        """Compile block by block."""
        self.world.compile()
