"""Winograd's form of a convolution against torch's own, and against exact arithmetic."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worldfoundry.perception.hashing import weights_hash
from worldfoundry.perception.winograd import INPUT, KERNEL, OUTPUT, WinogradConv2d


def test_the_three_matrices_give_a_convolution():
    """In one dimension and whole numbers: four outputs of three taps from six inputs."""
    x, kernel = torch.tensor([3.0, -1, 4, 1, -5, 9], dtype=torch.float64), torch.tensor([2.0, 7, -1], dtype=torch.float64)
    to_input, to_kernel, back = (torch.tensor(m, dtype=torch.float64) for m in (INPUT, KERNEL, OUTPUT))
    found = back @ ((to_kernel @ kernel) * (to_input @ x))
    torch.testing.assert_close(found, F.conv1d(x[None, None], kernel[None, None])[0, 0])


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (7, 10), (16, 13)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_convolution(size, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, padding=1, bias=bias).double().requires_grad_(False)
    x = torch.randn(3, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(WinogradConv2d(conv)(x), conv(x))
    torch.testing.assert_close(WinogradConv2d(conv)(x.contiguous(memory_format=torch.channels_last)), conv(x))


def test_rounding_in_float32_stays_below_a_part_in_ten_thousand():
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 128, 16, 16)
    exact = copy.deepcopy(conv).double()(x.double())
    assert (WinogradConv2d(conv)(x) - exact).abs().max() < 1e-4 * exact.abs().max()


def test_weights_are_named_and_hashed_as_before():
    conv = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)
    assert weights_hash(WinogradConv2d(conv)) == weights_hash(conv)
