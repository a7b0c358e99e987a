import pytest
import torch

from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.core.errors import ConfigError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.tiling import TiledTokenizer


def make(name="debug"):
    torch.manual_seed(0)
    return build_tokenizer(NAMED[name].to_dict()).eval().requires_grad_(False)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


class Shrink:
    """Stands in for a tokenizer without context: averages 8x8 squares, and enlarges them."""

    spec = NAMED["debug"].spec

    def encode(self, x):
        return torch.nn.functional.avg_pool3d(x, (1, 8, 8))

    def decode(self, z):
        return z.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)

    normalize = denormalize = staticmethod(lambda z: z)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (64, 120), (40, 200), (8, 8)])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (32, 16), (64, 0)])
def test_without_context_tiles_equal_the_whole(height, width, tile, overlap):
    tiled, x = TiledTokenizer(Shrink(), tile=tile, overlap=overlap), noise(1, 3, 5, height, width)
    z = tiled.encode(x)
    torch.testing.assert_close(z, Shrink().encode(x))
    torch.testing.assert_close(tiled.decode(z), Shrink().decode(z))


def test_one_tile_is_the_tokenizer_itself():
    module, x = make(), noise(1, 3, 5, 32, 32)
    tiled = TiledTokenizer(module, tile=32, overlap=8)
    assert isinstance(tiled, VideoTokenizer)
    assert torch.equal(tiled.encode(x), module.encode(x))
    assert torch.equal(tiled.decode(module.encode(x)), module.decode(module.encode(x)))


def test_the_shared_stretch_passes_from_one_tile_to_the_next():
    """Tiles of constants 0 and 1: the blend rises evenly and never leaves that range."""

    class Counts(Shrink):
        calls = -1

        def decode(self, z):
            self.calls += 1
            return torch.full((1, 1, 1, 8 * z.shape[3], 8 * z.shape[4]), float(self.calls))

    row = TiledTokenizer(Counts(), tile=32, overlap=16).decode(torch.zeros(1, 1, 1, 4, 6))[0, 0, 0, 0]
    assert row.shape == (48,)
    assert row[:16].eq(0).all()
    assert row[32:].eq(1).all()
    torch.testing.assert_close(row[16:32].diff(), torch.full((15,), 1 / 17))


@pytest.mark.parametrize(("tile", "overlap"), [(30, 8), (32, 4), (32, 24), (0, 0), (32, -8)])
def test_tiles_that_do_not_fit_are_refused(tile, overlap):
    with pytest.raises(ConfigError, match="do not fit a compression of 8"):
        TiledTokenizer(make(), tile=tile, overlap=overlap)
