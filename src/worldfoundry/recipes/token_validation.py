"""How well a network predicts the tokens of held-out clips, beside what copying the previous latent frame would get right.

No text is given here, whatever the network was trained with.

Axis legend: N windows, T H W latent frames/rows/columns, P predicted tokens, K Medusa heads, V vocabulary, D width.
"""

import copy
from collections.abc import Callable, Mapping
from math import log

import torch
from torch import Tensor

from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.training.ema import EMA
from worldfoundry.training.methods.autoregressive import shifted
from worldfoundry.training.methods.medusa import head_losses

BATCH = 16


def token_validator(
    network: Transformer, sets: Mapping[str, Tensor], prefix_latents: int
) -> Callable[[int, EMA], dict[str, float]]:
    """A callback of the training loop: scores of the averaged weights on sets of indices [N, T, H, W], pooled and by set."""
    averaged = copy.deepcopy(network).eval().requires_grad_(False)

    def validate(step: int, ema: EMA) -> dict[str, float]:
        ema.copy_to(averaged)
        return token_scores(averaged, sets, prefix_latents)

    return validate


def token_scores(network: Transformer, sets: Mapping[str, Tensor], prefix_latents: int) -> dict[str, float]:
    """`held_out_nll` in nats per token (`uniform_nll` = ln V for a model that knows nothing), `held_out_accuracy` of the likeliest
    token, `copy_accuracy` of the one at the same place of the latent frame before; of each set alone under NAME/…"""
    sums = {name: _sums(network, indices, prefix_latents) for name, indices in sets.items()}
    pooled = _means([sum(values) for values in zip(*sums.values(), strict=True)])
    alone = {f"{name}/{what}": value for name, values in sums.items() for what, value in _means(values).items()}
    return {**pooled, "uniform_nll": round(log(network.config.vocab_size), 4), **(alone if len(sets) > 1 else {})}


def _means(sums: list[float]) -> dict[str, float]:
    nll, right, copied, count = sums
    return {
        "held_out_nll": round(nll / count, 4),
        "held_out_accuracy": round(right / count, 4),
        "copy_accuracy": round(copied / count, 4),
    }


@torch.inference_mode()
def _sums(network: Transformer, indices_NTHW: Tensor, prefix_latents: int) -> list[float]:
    """Summed over all predicted tokens: nats, the likeliest token right, the copied one right, one."""
    device, sums = network.embed.weight.device, torch.zeros(4, dtype=torch.float64)
    for batch_NTHW in indices_NTHW.to(device).split(BATCH):
        inputs, targets_NP = shifted(network.config, batch_NTHW, prefix_latents)
        P = targets_NP.shape[1]
        logits_NPV = network.logits(network.hidden(inputs)[:, -P:]).float()
        nll_NP = torch.nn.functional.cross_entropy(logits_NPV.transpose(1, 2), targets_NP, reduction="none")
        right_NP = logits_NPV.argmax(dim=-1) == targets_NP
        same_NTHW = batch_NTHW[:, 1:] == batch_NTHW[:, :-1]
        copied = same_NTHW.flatten(1)[:, -P:]
        sums += torch.tensor([float(nll_NP.sum()), float(right_NP.sum()), float(copied.sum()), targets_NP.numel()])
    return sums.tolist()


def head_validator(
    network: Transformer, sets: Mapping[str, Tensor], prefix_latents: int
) -> Callable[[int, EMA], dict[str, float]]:
    """A callback of the training loop: `head_scores` of the averaged weights."""
    averaged = copy.deepcopy(network).eval().requires_grad_(False)

    def validate(step: int, ema: EMA) -> dict[str, float]:
        ema.copy_to(averaged)
        return head_scores(averaged, sets, prefix_latents)

    return validate


@torch.inference_mode()
def head_scores(network: Transformer, sets: Mapping[str, Tensor], prefix_latents: int) -> dict[str, float]:
    """`held_out_nll` of the network itself; `accuracy_K` of the head that guesses K tokens after the next one, and `confirmed`, how
    many guesses of a pass greedy decoding would confirm if the clip were what it generates; over all windows of all sets."""
    assert network.medusa is not None
    device, rights, confirmed = network.embed.weight.device, [], []
    for indices_NTHW in sets.values():
        for batch_NTHW in indices_NTHW.to(device).split(BATCH):
            inputs, targets_NP = shifted(network.config, batch_NTHW, prefix_latents)
            hidden_NPD = network.hidden(inputs)[:, -targets_NP.shape[1] :]
            _, right_NPK = head_losses(network, network.medusa, hidden_NPD, targets_NP)
            rights.append(right_NPK.float().mean(dim=1))
            confirmed.append(right_NPK.float().cumprod(dim=-1).sum(dim=-1).mean(dim=1))
    accuracy_K = torch.cat(rights).mean(dim=0)
    return {
        "held_out_nll": token_scores(network, sets, prefix_latents)["held_out_nll"],
        "confirmed": round(float(torch.cat(confirmed).mean()), 4),
        **{f"accuracy_{k + 1}": round(float(value), 4) for k, value in enumerate(accuracy_K)},
    }
