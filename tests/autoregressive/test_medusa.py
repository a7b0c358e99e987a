"""All heads in one product: the same as head by head, and at the start each is the backbone's own prediction."""

import torch
import torch.nn.functional as F

from worldfoundry.autoregressive.config import ar_size
from worldfoundry.autoregressive.medusa import MedusaHeads
from worldfoundry.autoregressive.transformer import Transformer


def test_merged_heads_equal_separate_heads():
    generator = torch.Generator().manual_seed(0)
    heads, hidden = MedusaHeads(12, 3), torch.randn(2, 5, 12, generator=generator)
    torch.nn.init.normal_(heads.merged.weight, generator=generator)
    separate = [hidden + F.silu(hidden @ weight.T) for weight in heads.merged.weight.chunk(3)]
    torch.testing.assert_close(heads(hidden), torch.stack(separate, dim=2), atol=1e-5, rtol=1e-5)


def test_at_the_start_every_head_predicts_as_the_backbone_does():
    network = Transformer(ar_size("debug"))
    assert network.medusa is not None
    hidden = network.hidden(torch.arange(6)[None])
    guesses = network.logits(network.medusa(hidden))
    assert guesses.shape == (1, 6, network.medusa.num_heads, 1000)
    for k in range(network.medusa.num_heads):
        assert torch.equal(network.medusa(hidden)[:, :, k], hidden)
        torch.testing.assert_close(guesses[:, :, k], network.logits(hidden))
