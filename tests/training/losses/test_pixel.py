"""Pixel errors: their formula, and that moving pixels are those that move."""

import pytest
import torch

from worldfoundry.training.config import TokenizerLossConfig
from worldfoundry.training.losses.pixel import moving_pixels, pixel_loss


def test_moving_pixels_are_those_that_leave_their_median():
    x = torch.zeros(1, 3, 5, 4, 4)
    x[:, 1, 4, 2, 3] = 0.5
    mask = moving_pixels(x, 0.15)
    assert mask.sum() == 1
    assert mask[0, 0, 4, 2, 3] == 1


def test_a_constant_error_costs_l1_e_plus_l2_e_squared():
    x = torch.zeros(2, 3, 5, 4, 4)
    assert pixel_loss(x, x + 0.5, TokenizerLossConfig(l1=2.0, l2=3.0)) == pytest.approx(2 * 0.5 + 3 * 0.25)
    assert pixel_loss(x, x, TokenizerLossConfig()) == 0


def test_an_error_at_a_moving_pixel_counts_more():
    x = torch.zeros(1, 3, 3, 2, 2)
    x[..., 2, 0, 0] = 1.0
    still, moving = x.clone(), x.clone()
    still[..., 2, 1, 1] += 0.5
    moving[..., 2, 0, 0] -= 0.5
    config = TokenizerLossConfig(moving=3.0)
    assert pixel_loss(x, moving, config) == pytest.approx(4 * float(pixel_loss(x, still, config)))


def test_one_frame_has_nothing_that_moves():
    x = torch.rand(1, 3, 1, 4, 4)
    assert pixel_loss(x, x + 0.1, TokenizerLossConfig(l1=1.0, l2=0.0, moving=9.0)) == pytest.approx(0.1, rel=1e-4)
