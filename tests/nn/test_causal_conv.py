import pytest
import torch

from worldfoundry.nn.causal_conv import CausalConv3d, FactorizedConv3d


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [lambda: CausalConv3d(2, 3, (3, 3, 3), pad_hw=1), lambda: FactorizedConv3d(2, 3)])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shape_is_kept_and_the_prefix_is_enough(make, frames):
    conv, x = make(), noise(2, 2, 6, 4, 5)
    whole = conv(x)
    assert whole.shape == (2, 3, 6, 4, 5)
    torch.testing.assert_close(conv(x[:, :, :frames]), whole[:, :, :frames], atol=1e-6, rtol=0)


def test_a_still_clip_stays_still():
    """The past is the first frame repeated: padding with zeros would make the first frames differ."""
    conv = FactorizedConv3d(2, 3)
    still = conv(noise(1, 2, 1, 4, 5).expand(-1, -1, 6, -1, -1))
    torch.testing.assert_close(still, still[:, :, :1].expand_as(still), atol=1e-6, rtol=0)


def test_equals_a_convolution_over_hand_padded_frames():
    conv, x = CausalConv3d(2, 3, (3, 1, 1)), noise(1, 2, 4, 3, 3)
    padded = torch.cat((x[:, :, :1], x[:, :, :1], x), dim=2)
    torch.testing.assert_close(conv(x), torch.nn.functional.conv3d(padded, conv.weight, conv.bias))


@pytest.mark.parametrize(("frames", "kept"), [(2, 1), (3, 1), (4, 2), (6, 3)])
def test_time_stride_pads_one_frame_less(frames, kept):
    conv = CausalConv3d(1, 1, (3, 1, 1), stride=(2, 1, 1))
    assert conv.pad_t == 1
    assert conv(noise(1, 1, frames, 2, 2)).shape[2] == kept


def test_outside_the_picture_is_zero():
    conv = CausalConv3d(1, 1, (1, 3, 3), pad_hw=1)
    torch.nn.init.ones_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    sums = conv(torch.ones(1, 1, 1, 3, 3))[0, 0, 0]
    assert sums.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
