import pytest
import torch

from worldfoundry.core.errors import DataError
from worldfoundry.tokenizers.fsq import FSQ

RELEASED = FSQ((8, 8, 8, 5, 5, 5))


@pytest.mark.parametrize("levels", [(8, 8, 8, 5, 5, 5), (8, 5, 5, 5), (2,), (7, 4)])
def test_every_index_survives_the_way_to_codes_and_back(levels):
    fsq = FSQ(levels)
    indices = torch.arange(fsq.codebook_size)
    codes = fsq.indices_to_codes(indices)
    assert codes.shape == (fsq.codebook_size, len(levels))
    assert torch.equal(fsq.codes_to_indices(codes).long(), indices)
    assert len(codes.unique(dim=0)) == fsq.codebook_size
    assert codes.abs().max() <= 1


def test_the_released_codebook_in_closed_form():
    assert RELEASED.codebook_size == 64_000
    assert torch.equal(RELEASED.indices_to_codes(torch.tensor([0])), -torch.ones(1, 6))
    assert RELEASED.codes_to_indices(RELEASED.quantize(torch.zeros(1, 6))).item() == 32036
    steps = RELEASED.indices_to_codes(torch.tensor([1, 8, 64, 512, 2560, 12800])) + 1
    assert torch.equal(steps, torch.diag(torch.tensor([1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 2])))
    codes = RELEASED.indices_to_codes(torch.arange(64_000))
    assert codes[:, 0].unique().tolist() == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]
    assert codes[:, 5].unique().tolist() == [-1, -0.5, 0, 0.5, 1]


def test_quantized_values_are_codes_and_extremes_reach_the_outermost():
    z = torch.randn(4, 6, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 4
    codes = RELEASED.quantize(z)
    indices = RELEASED.codes_to_indices(codes)
    assert indices.shape == (4, 3, 5, 7)
    assert indices.dtype == torch.int32
    torch.testing.assert_close(RELEASED.indices_to_codes(indices), codes, atol=1e-6, rtol=0)
    assert RELEASED.codes_to_indices(RELEASED.quantize(torch.full((1, 6), 1e4))).item() == 63_999
    assert RELEASED.codes_to_indices(RELEASED.quantize(torch.full((1, 6), -1e4))).item() == 0


def test_codes_are_exact_in_half_precision():
    codes = RELEASED.indices_to_codes(torch.arange(64_000), torch.bfloat16)
    assert torch.equal(RELEASED.codes_to_indices(codes).long(), torch.arange(64_000))


def test_the_gradient_is_that_of_the_squashing():
    z = torch.linspace(-2, 2, 9).view(9, 1).requires_grad_()
    fsq = FSQ((5,))
    fsq.quantize(z).sum().backward()
    assert z.grad is not None
    reach = 2 * (1 + 1e-3)
    torch.testing.assert_close(z.grad, reach / 2 * (1 - torch.tanh(z.detach()) ** 2))


@pytest.mark.parametrize(
    ("indices", "says"),
    [(torch.tensor([64_000]), "from 64000 to 64000"), (torch.tensor([[-1, 5]]), "from -1 to 5"), (torch.zeros(2), "float32")],
)
def test_what_is_no_index_is_refused(indices, says):
    with pytest.raises(DataError, match=says):
        RELEASED.indices_to_codes(indices)
