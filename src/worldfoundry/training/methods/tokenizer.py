"""Training of a tokenizer: reconstruct the clip, judged by terms that set in one after another (arXiv 2501.03575, section 4.2).

Axis legend: B batch, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor

from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.config import TokenizerLossConfig
from worldfoundry.training.losses.adversarial import Adversary
from worldfoundry.training.losses.flow import (
    FlowEstimator,
    flow_estimator,
    flow_network_loss,
    random_pairs,
    warped_neighbour_loss,
)
from worldfoundry.training.losses.perceptual import VggFeatures, gram_loss, load_features, perceptual_loss, random_frames
from worldfoundry.training.losses.pixel import pixel_loss
from worldfoundry.training.method import StepOutput


class TokenizerMethod:
    """Minimise the staged loss of decode(encode(x)). Networks that no term needs are not loaded.

    `flow_network`, a differentiable one, makes the flow term the paper's.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: TokenizerLossConfig, *, mirror: bool, flow_network: FlowEstimator | None = None
    ) -> None:
        self.module, self.config, self.mirror, self.flow_network = tokenizer, config, mirror, flow_network
        measures = config.flow.weight and flow_network is None
        self.flow_estimator = flow_estimator(config.flow.estimator) if measures else None
        self.device = next(tokenizer.parameters()).device
        self.progress = 0.0
        looks = config.perceptual.weight or config.gram.weight
        self.features: VggFeatures | None = load_features(config.vgg).to(self.device) if looks else None
        self.adversary = Adversary(config.adversarial, self.device) if config.adversarial.weight else None

    def begin_step(self, progress: float) -> None:
        """The share of the budget that is spent decides which terms take part."""
        self.progress = progress

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`batch["video"]` is uint8 [B, T, H, W, 3]."""
        x_BCTHW = to_float(batch["video"]).to(next(self.module.parameters()).device)
        if self.mirror and torch.rand((), generator=generator) < 0.5:
            x_BCTHW = x_BCTHW.flip(-1)
        reconstruction_BCTHW = self.module(x_BCTHW).float()
        loss = pixel_loss(x_BCTHW, reconstruction_BCTHW, self.config)
        error = (reconstruction_BCTHW.detach() - x_BCTHW).square().mean()
        metrics = {"psnr": float(-10 * torch.log10(error / 4))}
        terms = self._perceptual_terms(x_BCTHW, reconstruction_BCTHW, generator)
        terms |= self._flow_term(x_BCTHW, reconstruction_BCTHW, generator)
        for name, (weight, value) in terms.items():
            loss, metrics[name] = loss + weight * value, float(value.detach())
        if self.adversary is not None and (weight := self.config.adversarial.at(self.progress)):
            metrics["discriminator"] = self.adversary.learn(x_BCTHW, reconstruction_BCTHW)
            value = self.adversary.term(reconstruction_BCTHW, loss, last_layer(self.module))
            loss, metrics["adversarial"] = loss + weight * value, float(value.detach())
        return StepOutput(loss=loss, metrics=metrics)

    def _flow_term(self, x: Tensor, reconstruction: Tensor, generator: torch.Generator) -> dict[str, tuple[float, Tensor]]:
        weight = self.config.flow.at(self.progress)
        if not weight or x.shape[2] == 1:  # an image does not move
            return {}
        pairs = random_pairs(x.shape[2], self.config.flow.pairs, generator)
        if self.flow_network is not None:
            return {"flow": (weight, flow_network_loss(x, reconstruction, pairs, self.flow_network))}
        assert self.flow_estimator is not None, "there is one where the term has a weight"
        return {"flow": (weight, warped_neighbour_loss(x, reconstruction, pairs, self.flow_estimator))}

    def _perceptual_terms(
        self, x: Tensor, reconstruction: Tensor, generator: torch.Generator
    ) -> dict[str, tuple[float, Tensor]]:
        perceptual, gram = self.config.perceptual.at(self.progress), self.config.gram.at(self.progress)
        if self.features is None or not (perceptual or gram):
            return {}
        true, made = random_frames([x, reconstruction], self.config.perceptual_frames, generator)
        with torch.no_grad():
            target = self.features(true)
        features = self.features(made)
        terms = {}
        if perceptual:
            terms["perceptual"] = perceptual, perceptual_loss(features, target)
        if gram:
            terms["gram"] = gram, gram_loss(features, target, len(true) // len(x))
        return terms

    def state_tensors(self) -> dict[str, Tensor]:
        """What is trained beside the tokenizer: the discriminator and its optimizer."""
        return {} if self.adversary is None else self.adversary.state_tensors()

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state_tensors`."""
        if self.adversary is not None:
            self.adversary.load_state_tensors(tensors)

    def compile(self) -> None:
        """Convolutions gain nothing from compilation on the machines measured."""


def last_layer(tokenizer: Tokenizer) -> Tensor:
    """The weights of the decoder's last convolution."""
    return [parameter for parameter in tokenizer.decoder.conv_out.parameters() if parameter.ndim > 1][-1]


def to_float(video_BTHWC: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] → float32 [B, C, T, H, W] in [-1, 1]."""
    return video_BTHWC.movedim(-1, 1).float().div_(127.5).sub_(1)


def to_uint8(x_BCTHW: Tensor) -> Tensor:
    """The inverse, clamped and rounded."""
    return x_BCTHW.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1)
