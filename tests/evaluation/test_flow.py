"""Motion that is known: a texture that slides, one that rests, and what constant velocity makes of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from worldfoundry.evaluation.baselines import copy_last_frame
from worldfoundry.evaluation.flow import constant_velocity, lucas_kanade, warp


def texture(height, width, seed=0):
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)
    return (255 * smooth).round().to(torch.uint8).permute(1, 2, 0).numpy()


def sliding(dx, dy, frames=6, size=48):
    """One clip (1, T, H, W, 3) whose content moves by (dx, dy) whole pixels per frame."""
    wide = texture(size + 80, size + 80)
    return np.stack([wide[40 - dy * t :, 40 - dx * t :][:size, :size] for t in range(frames)])[None]


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (0, -2), (3, 2), (-5, 4)])
def test_the_flow_of_a_sliding_texture_is_its_shift(dx, dy):
    clip = sliding(dx, dy)[0]
    flow = lucas_kanade(clip[0], clip[1])[:, 8:-8, 8:-8]
    np.testing.assert_allclose(flow.mean((1, 2)), [dx, dy], atol=0.15)
    assert (flow - torch.tensor([dx, dy]).view(2, 1, 1)).abs().quantile(0.9) < 0.4


def test_without_texture_nothing_moves():
    flat = np.full((32, 32, 3), 120, np.uint8)
    assert lucas_kanade(flat, flat).abs().max() < 1e-3


def test_warp_fetches_from_where_the_flow_points():
    picture = torch.arange(20.0).view(1, 4, 5)
    flow = torch.stack([torch.ones(4, 5), torch.zeros(4, 5)])
    torch.testing.assert_close(warp(picture, flow)[0, :, :-1], picture[0, :, 1:])
    torch.testing.assert_close(warp(picture, flow)[0, :, -1], picture[0, :, -1])


def test_constant_velocity_goes_on_where_copying_stands_still():
    clip = sliding(2, 1)
    made, copied = constant_velocity(clip, 2), copy_last_frame(clip, 2)
    np.testing.assert_array_equal(made[:, :2], clip[:, :2])
    middle = np.s_[:, 2:, 14:-14, 14:-14]
    error, standing = (np.abs(x[middle].astype(int) - clip[middle].astype(int)).mean() for x in (made, copied))
    assert error < 0.35 * standing


def test_what_rests_stays_and_one_prefix_frame_is_copied():
    still = np.repeat(texture(32, 32)[None, None], 5, axis=1)
    assert np.abs(constant_velocity(still, 2).astype(int) - still).max() <= 1
    clip = sliding(3, 0)
    np.testing.assert_array_equal(constant_velocity(clip, 1), copy_last_frame(clip, 1))
