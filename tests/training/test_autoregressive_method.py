"""The next-token objective: what is masked, the z-loss, text that is dropped or not yet there, counted operations."""

from math import log

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.training.config import TokenLossConfig
from worldfoundry.training.methods.autoregressive import AutoregressiveMethod, shifted, token_losses, training_flops

SMALL = TransformerConfig(
    vocab_size=20, dim=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 2, 2),
    max_seq_len=64,
)  # fmt: skip
TEXTS = TextContext(rows_BMD=torch.randn(2, 3, 8), mask_BM=torch.tensor([[True, True, False], [True, True, True]]))


def network(**changes):
    made = Transformer(SMALL.replace(**changes))
    for i, parameter in enumerate(made.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
    return made


def batch(frames=3):
    indices = torch.randint(0, 20, (2, frames, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    return {"indices": indices, "caption": torch.tensor([0, 1])}


@pytest.mark.parametrize("bov", [False, True])
def test_each_place_is_asked_for_the_token_after_it(bov):
    config = SMALL.replace(bov=bov)
    indices = torch.arange(24).view(2, 3, 2, 2)
    inputs, targets = shifted(config, indices, 1)
    assert targets.tolist() == indices.flatten(1)[:, 4:].tolist()
    shown = torch.cat([inputs, targets[:, -1:]], dim=1)[:, int(bov) :]
    assert torch.equal(shown, indices.flatten(1))
    assert inputs[:, 0].tolist() == ([20, 20] if bov else [0, 12])


@pytest.mark.parametrize(("bov", "learned"), [(False, 3), (True, 4)])
def test_of_an_image_all_is_learned(bov, learned):
    assert shifted(SMALL.replace(bov=bov), torch.zeros(2, 1, 2, 2, dtype=torch.int32), 1)[1].shape == (2, learned)


def test_the_given_frame_has_no_part_in_the_loss():
    """Whatever the network predicts inside of the prefix, the gradient of its logits is zero there."""
    made = network()
    seen = {}
    made.unembed.register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0]))
    AutoregressiveMethod(made, TokenLossConfig(prefix_latents=2)).training_step(batch(), torch.Generator())
    assert seen["hidden"].shape == (2, 4, 12)


def test_the_loss_is_cross_entropy_and_the_squared_log_normaliser():
    logits, targets = torch.zeros(2, 3, 20), torch.zeros(2, 3, dtype=torch.long)
    nll, z = token_losses(logits, targets)
    assert (float(nll), float(z)) == (pytest.approx(log(20)), pytest.approx(log(20) ** 2))
    shifted_nll, shifted_z = token_losses(logits + 2, targets)
    assert float(shifted_nll) == pytest.approx(log(20), rel=1e-5)  # softmax does not see it, the z-loss does
    assert float(shifted_z) == pytest.approx((log(20) + 2) ** 2, rel=1e-5)
    made = network()
    nn.init.zeros_(made.unembed.weight)
    output = AutoregressiveMethod(made, TokenLossConfig(z_weight=0.5)).training_step(batch(), torch.Generator())
    assert float(output.loss) == pytest.approx(log(20) + 0.5 * log(20) ** 2, rel=1e-5)
    assert output.metrics["nll"] == pytest.approx(log(20), rel=1e-5)


def test_text_before_its_start_leaves_no_trace():
    made = network(context_dim=8)
    method = AutoregressiveMethod(made, TokenLossConfig(text_start=0.5, text_dropout=0), TEXTS)
    found = {}
    for progress in (0.0, 0.49, 0.5):
        method.begin_step(progress)
        made.zero_grad()
        output = method.training_step(batch(), torch.Generator().manual_seed(0))
        output.loss.backward()
        found[progress] = (float(output.loss.detach()), made.blocks[0].cross_attention.to_v.weight.grad is not None)
    assert found[0.0] == found[0.49]
    assert not found[0.0][1]
    assert found[0.5][1]
    assert found[0.5][0] != found[0.0][0]


def test_dropped_text_is_as_no_text():
    made = network(context_dim=8)
    dropped = AutoregressiveMethod(made, TokenLossConfig(text_dropout=1), TEXTS).training_step(batch(), torch.Generator())
    without = AutoregressiveMethod(made, TokenLossConfig()).training_step(batch(), torch.Generator())
    torch.testing.assert_close(dropped.loss, without.loss)


@pytest.mark.parametrize("text", [False, True])
def test_counted_operations_are_those_of_the_products(text):
    made = network(context_dim=8 if text else 0)
    method = AutoregressiveMethod(made, TokenLossConfig(text_dropout=0), TEXTS if text else None)
    with FlopCounterMode(display=False) as counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        method.training_step(batch(), torch.Generator())
    formula = training_flops(made.config, torch.Size((2, 11)), 8, 3 if text else 0)
    hidden_half = 6 * 2 * made.config.num_layers * (11 * 10) * 12  # scores that causality leaves out, which the kernel computes
    assert 3 * counter.get_total_flops() == formula + hidden_half
