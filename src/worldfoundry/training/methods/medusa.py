"""Training of Medusa heads (arXiv 2401.10774; arXiv 2501.03575, section 5.2.3): guess the tokens after the next one.

The backbone stays as it is, or its last blocks and the unembedding learn along, with its own next-token loss beside the heads'.

Axis legend: B batch, T H W latent frames/rows/columns, P places, K heads, V vocabulary, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from worldfoundry.autoregressive.medusa import MedusaHeads
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.core.errors import UsageError
from worldfoundry.training.config import MedusaConfig, TokenLossConfig
from worldfoundry.training.method import Share, StepOutput
from worldfoundry.training.methods.autoregressive import AutoregressiveMethod, compile_blocks, token_losses, training_flops


class MedusaMethod:
    """Minimise the heads' cross-entropies, later heads counting less."""

    def __init__(
        self, network: Transformer, config: MedusaConfig, tokens: TokenLossConfig, texts: TextContext | None = None
    ) -> None:
        """Freezes what is not to learn. Raises UsageError for a network without heads, or with fewer blocks than are to learn."""
        if network.medusa is None:
            raise UsageError("This network has no Medusa heads.", "Give their number, for example --medusa.heads 5.")
        if config.last_layers > len(network.blocks):
            raise UsageError(f"The network has {len(network.blocks)} blocks, not {config.last_layers!r} that could learn.")
        self.module, self.config, self.heads = network, config, network.medusa
        self.tokens = AutoregressiveMethod(network, tokens, texts)
        network.requires_grad_(False)
        learning = [network.medusa, *(list(network.blocks)[-config.last_layers :] if config.last_layers else [])]
        learning += [network.norm, network.unembed] if config.last_layers else []
        for part in learning:
            part.requires_grad_(True)

    @property
    def share(self) -> Share:
        return self.tokens.share

    @share.setter
    def share(self, share: Share) -> None:
        self.tokens.share = share

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`batch` is that of `AutoregressiveMethod`. `confirmed`: guesses that greedy decoding would confirm per pass, on average."""
        hidden_BPD, targets_BP, text_rows, shape = self.tokens.read(batch, generator)
        nll_K, right_BPK = head_losses(self.module, self.heads, hidden_BPD, targets_BP)
        weights_K = self.config.decay ** torch.arange(len(nll_K), device=nll_K.device)
        loss = (nll_K * weights_K).sum() / weights_K.sum()
        if self.config.last_layers:
            nll, z = token_losses(self.module.logits(hidden_BPD).float(), targets_BP)
            loss = loss + nll + self.tokens.config.z_weight * z
        metrics = {f"accuracy_{k + 1}": float(a) for k, a in enumerate(right_BPK.float().mean(dim=(0, 1)))}
        confirmed = float(right_BPK.float().cumprod(dim=-1).sum(dim=-1).mean())
        flops = training_flops(self.module.config, shape, 0, text_rows)
        flops = flops if self.config.last_layers else flops // 3  # forward alone
        B, P, D = hidden_BPD.shape
        flops += 6 * B * P * len(nll_K) * D * (D + self.module.config.vocab_size)
        return StepOutput(loss=loss, metrics={"confirmed": confirmed, **metrics}, flops=flops)

    def compile(self) -> None:
        """Compile the backbone block by block."""
        compile_blocks(self.module)


def head_losses(network: Transformer, heads: MedusaHeads, hidden_BPD: Tensor, targets_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Each head's cross-entropy [K], and which likeliest guesses are right, at the places where every head has a target.

    `targets` are what the network itself predicts at these places; head k guesses the target k + 1 places further.
    """
    K, places = heads.num_heads, targets_BP.shape[1] - heads.num_heads
    guesses_BPKD = heads(hidden_BPD[:, :places])
    losses, right = [], []
    for k in range(K):  # one head's logits at a time: together they would be K times the network's
        logits_BPV = network.logits(guesses_BPKD[:, :, k]).float()
        wanted_BP = targets_BP[:, 1 + k : 1 + k + places]
        losses.append(F.cross_entropy(logits_BPV.flatten(0, 1), wanted_BP.flatten()))
        right.append(logits_BPV.detach().argmax(dim=-1) == wanted_BP)
    return torch.stack(losses), torch.stack(right, dim=-1)
