"""Training of an autoregressive world model on tokens (arXiv 2501.03575, section 5.2): predict what follows a prefix, or images.

Axis legend: B batch, T H W latent frames/rows/columns, L tokens, P predicted tokens, V vocabulary, N captions, M text rows,
D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.training.config import TokenLossConfig
from worldfoundry.training.method import Share, StepOutput


class AutoregressiveMethod:
    """Minimise the cross-entropy of the tokens after the first latent frames, each given all tokens before it."""

    def __init__(self, network: Transformer, config: TokenLossConfig, texts: TextContext | None = None) -> None:
        """`texts` are the distinct captions' rows [N, M, D] and masks [N, M]; a batch names them by index. None: no text."""
        self.module, self.config, self.texts, self.share = network, config, texts, Share()
        self.with_text = texts is not None and config.text_start == 0

    def begin_step(self, progress: float) -> None:
        """Text is seen from a share of the budget on. Before, its weights get no gradient and stay what they were."""
        self.with_text = self.texts is not None and progress >= self.config.text_start

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`indices` [B, T, H, W]; `caption` [B] row numbers where there is text. With T = 1 it is a batch of images: all is learned."""
        hidden_BPD, targets_BP, text_rows, shape = self.read(batch, generator)
        logits_BPV = self.module.logits(hidden_BPD).float()
        nll, z = token_losses(logits_BPV, targets_BP)
        right = (logits_BPV.detach().argmax(dim=-1) == targets_BP).float().mean()
        return StepOutput(
            loss=nll + self.config.z_weight * z,
            metrics={"nll": float(nll.detach()), "accuracy": float(right)},
            flops=training_flops(self.module.config, shape, targets_BP.shape[1], text_rows),
        )

    def read(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor, int, torch.Size]:
        """The last layer [B, P, D] at the places that are learned, their targets [B, P], text rows, and the shape [B, L] of the input."""
        device = self.module.embed.weight.device
        inputs_BL, targets_BP = shifted(self.module.config, batch["indices"].to(device), self.config.prefix_latents)
        text = self._text(batch["caption"], generator) if self.with_text else None
        hidden_BPD = self.module.hidden(inputs_BL, text)[:, -targets_BP.shape[1] :]
        return hidden_BPD, targets_BP, 0 if text is None else text.rows_BMD.shape[1], inputs_BL.shape

    def _text(self, caption_B: Tensor, generator: torch.Generator) -> TextContext:
        """The captions' rows. A dropped text is rows of zeros, all of them attended to: cross-attention then adds nothing."""
        assert self.texts is not None
        device = self.module.embed.weight.device
        keep_B = self.share.of(torch.rand(len(caption_B) * self.share.count, generator=generator)) >= self.config.text_dropout
        rows_BMD = self.texts.rows_BMD[caption_B] * keep_B[:, None, None]
        mask_BM = self.texts.mask_BM[caption_B] | ~keep_B[:, None]
        return TextContext(rows_BMD=rows_BMD.to(device), mask_BM=mask_BM.to(device))

    def compile(self) -> None:
        """Compile block by block: one graph serves all blocks."""
        compile_blocks(self.module)


def compile_blocks(network: Transformer) -> None:
    """One graph serves all blocks; sequences of another length (images, shorter stages) get one of their own."""
    for block in network.blocks:
        block.compile(dynamic=False)


def shifted(config: TransformerConfig, indices_BTHW: Tensor, prefix_latents: int) -> tuple[Tensor, Tensor]:
    """Inputs [B, L] and the targets [B, P] of their last P places.

    A begin-of-video token comes first where the network has one. Given are the first `prefix_latents` latent frames of a clip and
    nothing of an image; without begin-of-video token the very first token cannot be predicted either.
    """
    B, T = indices_BTHW.shape[:2]
    tokens_BL = indices_BTHW.flatten(1).long()
    given = min(prefix_latents, T - 1) * config.tokens_per_frame
    if config.bov:
        start_B1 = tokens_BL.new_full((B, 1), config.vocab_size)
        return torch.cat([start_B1, tokens_BL[:, :-1]], dim=1), tokens_BL[:, given:]
    return tokens_BL[:, :-1], tokens_BL[:, max(given, 1) :]


def token_losses(logits_BPV: Tensor, targets_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats per token, and the mean of squared log normalisers that keeps logits small (z-loss).

    The released code squares logsumexp; the paper's text sums squared logits instead.
    """
    nll = F.cross_entropy(logits_BPV.flatten(0, 1), targets_BP.flatten())
    return nll, logits_BPV.logsumexp(dim=-1).square().mean()


def training_flops(config: TransformerConfig, shape_BL: torch.Size, predicted: int, text_rows: int) -> int:
    """Forward and backward (three forwards): matrix products alone, a multiply-add as two, of scores only the causal half."""
    B, L = shape_BL
    D, heads, groups = config.dim, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = L * D * (2 * heads + 2 * groups) + L * (L + 1) * heads
    macs = config.num_layers * (attention + 3 * L * D * config.ffn_hidden_size)
    if text_rows:
        crossed = -(-config.num_layers // config.cross_attn_every)
        macs += crossed * (2 * L * D * heads + 2 * text_rows * config.context_dim * groups + 2 * L * text_rows * heads)
    return 6 * B * (macs + predicted * D * config.vocab_size)


def zero_cross_attention(network: nn.Module) -> None:
    """Let cross-attention begin by adding nothing: a network that gets it computes what it did before."""
    for name, parameter in network.named_parameters():
        if name.endswith("cross_attention.to_out.weight"):
            nn.init.zeros_(parameter)
