import pytest
import torch
import torch.nn.functional as F

from worldfoundry.nn.group_norm import FrameNorm, norm_silu


def test_each_frame_has_mean_zero_and_deviation_one():
    x = torch.randn(2, 3, 8, 8, 4, generator=torch.Generator().manual_seed(0)) * 5 + 3
    out = FrameNorm(4)(x)
    torch.testing.assert_close(out.mean(dim=(2, 3, 4)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=(2, 3, 4), correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)


def test_frames_do_not_see_each_other():
    norm, x = FrameNorm(4), torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 2] *= 100
    assert torch.equal(norm(x)[:, :2], norm(changed)[:, :2])


def test_scale_and_shift_are_per_channel():
    norm = FrameNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.randn(1, 1, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    plain = FrameNorm(2)(x)
    torch.testing.assert_close(norm(x)[..., 0], plain[..., 0] * 2)
    torch.testing.assert_close(norm(x)[..., 1], plain[..., 1] * 3 + 1)


@pytest.mark.parametrize("gradients", [True, False])
def test_norm_and_silu_leave_their_input_alone(gradients):
    norm, x = FrameNorm(2), torch.randn(1, 2, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with torch.set_grad_enabled(gradients):
        out = norm_silu(norm, x)
    assert torch.equal(x, before)
    torch.testing.assert_close(out, F.silu(norm(x)))


def test_a_large_mean_costs_no_digits():
    x = torch.randn(1, 2, 32, 32, 64, generator=torch.Generator().manual_seed(0)) + 30
    exact = F.layer_norm(x.double(), x.shape[2:])
    torch.testing.assert_close(FrameNorm(64)(x).double(), exact, atol=5e-5, rtol=0)
