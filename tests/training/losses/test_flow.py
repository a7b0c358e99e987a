"""Flow terms: a translation that is reconstructed costs nothing, flicker costs what it flickers, occluded pixels are left out."""

import sys

import pytest
import torch

from worldfoundry.core.errors import MissingExtraError
from worldfoundry.training.losses.flow import (
    ESTIMATORS,
    dense_inverse_search,
    flow_network_loss,
    random_pairs,
    visible_flow,
    warp,
    warped_neighbour_loss,
)


@pytest.fixture(params=["dis", "lucas-kanade"])
def estimator(request):
    if request.param == "dis":
        pytest.importorskip("cv2")
    return ESTIMATORS[request.param]


def texture(height=48, width=64, seed=0):
    """A smooth random picture, [3, H, W] in [-1, 1]."""
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0].clamp(0, 1) * 2 - 1


def panning(frames=4, step=2, size=48):
    """A camera that moves `step` pixels to the right per frame: content moves left. [1, 3, T, 48, 48]."""
    wide = texture(size, size + 16)
    return torch.stack([wide[:, :, step * t : step * t + size] for t in range(frames)], dim=1)[None]


def test_the_search_finds_a_translation(estimator):
    x = panning()
    flow = estimator(x[:, :, 0], x[:, :, 1])
    assert flow.shape == (1, 2, 48, 48)
    inner = flow[0, :, 8:-8, 8:-8]
    assert inner[0].median() == pytest.approx(-2, abs=0.2)
    assert inner[1].median() == pytest.approx(0, abs=0.2)


def test_warping_by_the_true_flow_is_shifting():
    x = torch.rand(2, 3, 8, 10)
    flow = torch.zeros(2, 2, 8, 10)
    flow[:, 0], flow[:, 1] = 3, -1
    warped = warp(x, flow)
    assert torch.allclose(warped[:, :, 1:, :-3], x[:, :, :-1, 3:], atol=1e-5)
    assert torch.allclose(warp(x, torch.zeros_like(flow)), x, atol=1e-6)


def test_a_reconstructed_translation_costs_almost_nothing_and_flicker_costs_its_size(estimator):
    x = panning()
    pairs = [0, 1, 2]
    assert warped_neighbour_loss(x, x, pairs, estimator) < 0.02
    flicker = x.clone()
    flicker[:, :, 1::2] += 0.25
    assert warped_neighbour_loss(x, flicker, pairs, estimator) == pytest.approx(0.25, abs=0.02)


def test_a_still_copy_of_a_moving_clip_costs_more_than_the_clip(estimator):
    x = panning()
    frozen = x[:, :, :1].expand_as(x)
    assert warped_neighbour_loss(x, frozen, [0, 1, 2], estimator) > 3 * warped_neighbour_loss(x, x, [0, 1, 2], estimator)


def test_exactly_what_a_moving_square_covers_is_hidden():
    """A square moves 8 pixels to the right over a still background; `exact` knows the true motion both ways."""

    def exact(a, b):
        flow = torch.zeros(1, 2, 48, 48)
        left, shift = (12, 8) if a is first else (20, -8)
        flow[:, 0, 16:32, left : left + 16] = shift
        return flow

    first, second = torch.zeros(1, 3, 48, 48), torch.zeros(1, 3, 48, 48)
    flow, visible = visible_flow(first, second, exact)
    covered = torch.zeros(1, 1, 48, 48)
    covered[:, :, 16:32, 28:36] = 1  # background in the first frame, square in the second
    assert torch.equal(visible, 1 - covered)
    assert torch.equal(flow, exact(first, second))


def test_what_leaves_the_picture_is_hidden():
    def right(a, b):
        flow = torch.zeros(1, 2, 8, 8)
        flow[:, 0] = 3 if a is first else -3
        return flow

    first = torch.zeros(1, 3, 8, 8)
    _, visible = visible_flow(first, first.clone(), right)
    assert torch.equal(visible[0, 0], torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0]).expand(8, 8))


def test_with_everything_hidden_the_loss_is_nought_not_nan():
    def away(a, b):
        return torch.full((len(a), 2, *a.shape[-2:]), 1000.0)

    x = torch.rand(1, 3, 2, 32, 32)
    assert warped_neighbour_loss(x, -x, [0], away) == 0


def test_without_opencv_the_search_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="cv2"):
        dense_inverse_search(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_a_flow_network_is_compared_forward_and_backward():
    def mean_shift(a, b):
        return (b - a).mean(1, keepdim=True).expand(-1, 2, -1, -1)

    x = torch.zeros(1, 3, 3, 16, 16)
    brighter = x + torch.tensor([0.0, 0.3, 0.6]).view(1, 1, 3, 1, 1)
    brighter.requires_grad_()
    loss = flow_network_loss(x, brighter, [0, 1], mean_shift)
    assert float(loss.detach()) == pytest.approx(0.3, rel=1e-5)
    loss.backward()
    assert brighter.grad.any()
    assert flow_network_loss(x, x, [0, 1], mean_shift) == 0


def test_pairs_are_different_neighbours():
    pairs = random_pairs(5, 3, torch.Generator().manual_seed(0))
    assert len(set(pairs)) == 3
    assert set(random_pairs(5, 99, torch.Generator().manual_seed(0))) == {0, 1, 2, 3}
