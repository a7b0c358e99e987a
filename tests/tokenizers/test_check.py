import pytest
import torch

from worldfoundry.core.errors import WorldFoundryError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.check import check_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.tokenizer import ContinuousTokenizer, DiscreteTokenizer

DEBUG = [name for name in NAMED if name.startswith("debug")]


@pytest.mark.parametrize("name", DEBUG)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_debug_size_keeps_the_contract(name, dtype):
    torch.manual_seed(0)
    check_tokenizer(build_tokenizer(NAMED[name].to_dict()).to(dtype))


class SeesTheFuture(ContinuousTokenizer):
    def encode(self, x_BCTHW):
        return super().encode(x_BCTHW) + x_BCTHW.mean()


class DecodesTheFuture(ContinuousTokenizer):
    def decode(self, z_BCTHW):
        return super().decode(z_BCTHW) + z_BCTHW.mean()


class Rolls(ContinuousTokenizer):
    def encode(self, x_BCTHW):
        return super().encode(x_BCTHW * torch.rand(()))


class Mixes(ContinuousTokenizer):
    def encode(self, x_BCTHW):
        return super().encode(x_BCTHW) - super().encode(x_BCTHW).mean(dim=0)


class DropsAFrame(ContinuousTokenizer):
    def decode(self, z_BCTHW):
        return super().decode(z_BCTHW)[:, :, 1:]


class Halves(ContinuousTokenizer):
    def encode(self, x_BCTHW):
        return super().encode(x_BCTHW).half()


class Ignores(ContinuousTokenizer):
    def encode(self, x_BCTHW):
        return super().encode(x_BCTHW) * 0


class Overflows(ContinuousTokenizer):
    def decode(self, z_BCTHW):
        return super().decode(z_BCTHW) / 0


class OneWay(ContinuousTokenizer):
    def denormalize(self, z_BCTHW):
        return z_BCTHW + 1


class CountsFromOne(DiscreteTokenizer):
    def encode_indices(self, x_BCTHW):
        return super().encode_indices(x_BCTHW) + 1


class CountsTooFar(DiscreteTokenizer):
    def encode_indices(self, x_BCTHW):
        return super().encode_indices(x_BCTHW) + self.config.codebook_size


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (SeesTheFuture, "latents depend on later frames"),
        (DecodesTheFuture, "decoded frames depend on later latents"),
        (Rolls, "other latents the second time"),
        (Mixes, "encode mixes the clips of a batch"),
        (DropsAFrame, "decode of its 1-frame latents"),
        (Halves, "encode gives torch.float16"),
        (Ignores, "encode ignores its input"),
        (Overflows, "NaN or infinity"),
        (OneWay, "denormalize does not undo normalize"),
        (CountsFromOne, "differs from decode"),
        (CountsTooFar, "leave the codebook of 1000 codes"),
    ],
)
def test_a_broken_tokenizer_is_found_out(broken, says):
    torch.manual_seed(0)
    name = "debug-dv4x8x8" if issubclass(broken, DiscreteTokenizer) else "debug"
    with pytest.raises(WorldFoundryError, match=says):
        check_tokenizer(broken(NAMED[name]))


def test_something_else_is_no_tokenizer():
    with pytest.raises(WorldFoundryError, match="Linear lacks spec"):
        check_tokenizer(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
