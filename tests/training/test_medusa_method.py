"""Medusa training: what heads are asked for, what stays frozen, that learning along moves only the last blocks."""

import pytest
import torch
from torch import nn

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.errors import UsageError
from worldfoundry.training.config import LoopConfig, MedusaConfig, OptimConfig, TokenLossConfig
from worldfoundry.training.loop import train
from worldfoundry.training.methods.medusa import MedusaMethod, head_losses
from worldfoundry.training.streams import TensorStream

SMALL = TransformerConfig(
    vocab_size=20, dim=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 2, 2),
    max_seq_len=64, medusa_heads=3,
)  # fmt: skip


def network(**changes):
    made = Transformer(SMALL.replace(**changes))
    for i, parameter in enumerate(made.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
    return made


def stream():
    rows = torch.randint(0, 20, (6, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    return TensorStream({"indices": rows}, 2, seed=0)


def test_head_k_is_asked_for_the_target_k_plus_one_further():
    """The token counts up and the unembedding reads a number off the hidden vector: heads that add k + 1 are always right."""
    made = network()
    counter = torch.arange(8.0)
    hidden_BPD = nn.functional.one_hot(counter.long(), 12).float()[None]

    class Ahead(nn.Module):
        num_heads = 3

        def forward(self, hidden_BPD):
            return torch.stack([hidden_BPD.roll(k + 1, dims=-1) for k in range(3)], dim=2)

    with torch.no_grad():
        made.unembed.weight.copy_(50 * torch.eye(20, 12))
    nll_K, right_BPK = head_losses(made, Ahead(), hidden_BPD, counter.long()[None])
    assert right_BPK.shape == (1, 5, 3)
    assert right_BPK.all()
    assert nll_K.max() < 1e-6


def test_a_head_of_zeros_guesses_what_the_network_predicts():
    made = network()
    nn.init.zeros_(made.medusa.merged.weight)
    hidden_BPD, targets_BP = torch.randn(2, 7, 12), torch.randint(0, 20, (2, 7))
    nll_K, _ = head_losses(made, made.medusa, hidden_BPD, targets_BP)
    logits = made.logits(hidden_BPD[:, :4])
    expected = [nn.functional.cross_entropy(logits.flatten(0, 1), targets_BP[:, 1 + k : 5 + k].flatten()) for k in range(3)]
    torch.testing.assert_close(nll_K, torch.stack(expected))


@pytest.mark.parametrize(("last_layers", "moving"), [(0, ("medusa.",)), (1, ("medusa.", "blocks.1.", "norm.", "unembed."))])
def test_only_what_is_to_learn_moves(tmp_path, last_layers, moving):
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    method = MedusaMethod(made, MedusaConfig(last_layers=last_layers), TokenLossConfig())
    loop = LoopConfig(steps=2, precision="float32", compile="off", optim=OptimConfig(lr=0.01, warmup_steps=0))
    train(method, stream(), loop, tmp_path)
    moved = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith(moving)}


def test_confirmed_counts_guesses_up_to_the_first_wrong_one():
    made = network()
    output = MedusaMethod(made, MedusaConfig(), TokenLossConfig()).training_step(stream().next_batch(), torch.Generator())
    accuracies = [output.metrics[f"accuracy_{k}"] for k in (1, 2, 3)]
    assert output.metrics["confirmed"] <= sum(accuracies)
    assert output.metrics["confirmed"] <= 3 * accuracies[0]
    assert output.flops > 0


def test_what_cannot_learn_is_one_clear_line():
    with pytest.raises(UsageError, match="no Medusa heads"):
        MedusaMethod(network(medusa_heads=0), MedusaConfig(), TokenLossConfig())
    with pytest.raises(UsageError, match="has 2 blocks, not 3 that could learn"):
        MedusaMethod(network(), MedusaConfig(last_layers=3), TokenLossConfig())
