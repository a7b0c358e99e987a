import pytest
import torch
import torch.nn.functional as F

from worldfoundry.nn.causal_conv import (
    CausalTimeConv,
    FactorizedConv3d,
    FrameConv,
    enlarged_frames_conv,
    repeated_frames_conv,
)
from worldfoundry.nn.frame_cache import FrameCache


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def as_video(x_BTHWC):
    return x_BTHWC.movedim(-1, 1)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shape_is_kept_and_the_prefix_is_enough(frames):
    conv, x = FactorizedConv3d(2, 3), noise(2, 6, 4, 5, 2)
    whole = conv(x, FrameCache())
    assert whole.shape == (2, 6, 4, 5, 3)
    torch.testing.assert_close(conv(x[:, :frames], FrameCache()), whole[:, :frames], atol=1e-6, rtol=0)


def test_a_still_clip_stays_still():
    """The past is the first frame repeated: padding with zeros would make the first frames differ."""
    conv = FactorizedConv3d(2, 3)
    still = conv(noise(1, 1, 4, 5, 2).expand(-1, 6, -1, -1, -1), FrameCache())
    torch.testing.assert_close(still, still[:, :1].expand_as(still), atol=1e-6, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_time_convolution_equals_one_over_hand_padded_frames(stride):
    conv, x = CausalTimeConv(2, 3, stride=stride), noise(1, 5, 3, 4, 2)
    padded = torch.cat((x[:, :1], x[:, :1], x), dim=1)
    expected = F.conv3d(as_video(padded), conv.weight, conv.bias, stride=(stride, 1, 1))
    torch.testing.assert_close(as_video(conv(x, FrameCache())), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_frame_convolution_equals_one_over_hand_padded_pictures(stride):
    conv, x = FrameConv(2, 3, 3, stride=stride), noise(2, 3, 4, 6, 2)
    padded = F.pad(as_video(x), (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
    expected = F.conv3d(padded, conv.weight, conv.bias, stride=(1, stride, stride))
    torch.testing.assert_close(as_video(conv(x)), expected, atol=1e-6, rtol=0)


def test_outside_the_picture_is_zero():
    conv = FrameConv(1, 1, 3)
    torch.nn.init.ones_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    sums = conv(torch.ones(1, 1, 3, 3, 1))[0, 0, :, :, 0]
    assert sums.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_repeated_frames_convolution_is_what_its_name_says(frames):
    conv, x = CausalTimeConv(3, 3), noise(2, frames, 4, 5, 3)
    repeated = x.repeat_interleave(2, dim=1)[:, 1:]
    expected = conv(repeated, FrameCache()) + repeated
    torch.testing.assert_close(repeated_frames_conv(x, conv, FrameCache()), expected, atol=1e-5, rtol=0)


def test_enlarged_frames_convolution_is_what_its_name_says():
    conv, x = FrameConv(3, 3, 3), noise(2, 2, 4, 5, 3)
    enlarged = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(enlarged_frames_conv(x, conv), conv(enlarged) + enlarged, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1), (3, 2), (2, 3)])
def test_chunks_give_what_the_whole_gives(cuts):
    conv, up, x = FactorizedConv3d(2, 3), CausalTimeConv(3, 3), noise(1, 5, 4, 4, 2)

    def network(chunk, cache):
        return repeated_frames_conv(conv(chunk, cache), up, cache)

    cache, parts = None, []
    for chunk in x.split(cuts, dim=1):
        cache = FrameCache.following(cache)
        parts.append(network(chunk, cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), network(x, FrameCache()), atol=1e-6, rtol=0)


def test_a_cache_is_not_changed_by_the_chunk_after_it():
    conv, x = CausalTimeConv(2, 2), noise(1, 4, 3, 3, 2)
    first = FrameCache.following(None)
    conv(x[:, :2], first)
    kept = first.future[conv].clone()
    twice = [conv(x[:, 2:], FrameCache.following(first)) for _ in range(2)]
    assert torch.equal(first.future[conv], kept)
    assert torch.equal(*twice)
