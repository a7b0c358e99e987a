"""Weights in 8 bits: exact where they are representable, within half a step elsewhere."""

import pytest
import torch
from torch import nn

from worldfoundry.nn.int8 import FEW_ROWS, Int8Linear, quantize_linears


def test_rows_of_whole_steps_are_exact():
    linear = nn.Linear(4, 2)
    linear.weight.data = torch.tensor([[127.0, -3.0, 0.0, 64.0], [-12.7, 0.1, 6.4, 0.0]])
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Int8Linear(linear)(x), linear(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_weight_is_within_half_a_step_of_its_row(dtype):
    linear = nn.Linear(64, 16, bias=False).to(dtype)
    small = Int8Linear(linear)
    error = (small.weight.float() * small.scale.float()[:, None] - linear.weight.float()).abs()
    rounding = 0.01 if dtype == torch.bfloat16 else 1e-5
    assert (error <= small.scale.float()[:, None] * 0.5 + rounding * linear.weight.float().abs()).all()
    assert small.weight.dtype == torch.int8
    assert small(torch.ones(2, 64, dtype=dtype)).dtype == dtype


def test_half_precision_reaches_as_far_as_with_whole_weights():
    """Sums over 8-bit weights as such would be 127 / max|w| times larger: infinite here."""
    linear = nn.Linear(4096, 2, bias=False).half()
    nn.init.constant_(linear.weight, 0.02)
    x = torch.ones(1, 4096, dtype=torch.float16)
    torch.testing.assert_close(Int8Linear(linear)(x), linear(x), rtol=2e-3, atol=0)


def test_a_row_of_zeros_stays_zero_and_all_linears_are_replaced():
    network = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    nn.init.zeros_(network[0].weight)
    nn.init.zeros_(network[0].bias)
    assert quantize_linears(network) == 2
    assert not any(type(module) is nn.Linear for module in network.modules())
    assert torch.equal(network[0](torch.ones(1, 3)), torch.zeros(1, 3))


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_few_rows_of_bfloat16_give_what_many_rows_give(bias):
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(64, 48, bias=bias).bfloat16())
    many = torch.randn(2, FEW_ROWS, 64).bfloat16()
    few = torch.stack([layer(rows) for rows in many])
    assert few.dtype == torch.bfloat16
    torch.testing.assert_close(few, layer(many), atol=2e-2, rtol=2e-2)


@torch.inference_mode()
def test_joined_layers_stand_side_by_side():
    torch.manual_seed(0)
    layers = [Int8Linear(nn.Linear(8, rows, bias=False)) for rows in (3, 5)]
    x, other = torch.randn(2, 8), torch.randn(2, 8)
    whole, apart = Int8Linear.joined(layers), torch.cat([layer(x) for layer in layers], dim=-1)
    torch.testing.assert_close(whole(x), apart)
    torch.testing.assert_close(whole.silu(x), nn.functional.silu(apart))
    torch.testing.assert_close(whole.plus(x, other), apart + other)
    torch.testing.assert_close(whole.times(x, other), apart * other)
