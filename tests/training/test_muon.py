import pytest
import torch

from worldfoundry.training.muon import ADAM_RMS, Muon, orthogonalized
from worldfoundry.training.state import load_optimizer, optimizer_tensors


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 4, 20), (1, 20, 4)])
def test_singular_values_become_about_one_and_directions_stay(shape):
    matrices = noise(*shape)
    out = orthogonalized(matrices)
    assert out.shape == matrices.shape
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.5
    assert values.max() < 1.4
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    aligned = u.mT @ out @ v.mT  # diagonal if the singular vectors are the same
    off = aligned - torch.diag_embed(torch.diagonal(aligned, dim1=1, dim2=2))
    assert off.abs().max() < 0.15


def test_vectors_take_adamw_steps():
    ours, theirs = (torch.nn.Parameter(noise(5)) for _ in range(2))
    options = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}
    mine = Muon([{"params": [ours], "weight_decay": 0.1}], **options)
    peer = torch.optim.AdamW([theirs], weight_decay=0.1, **options)
    for step in range(5):
        ours.grad, theirs.grad = noise(5, seed=step), noise(5, seed=step)
        mine.step()
        peer.step()
    torch.testing.assert_close(ours, theirs)


def test_a_kernel_moves_as_far_as_adamw_would_move_it():
    kernel = torch.nn.Parameter(torch.zeros(16, 8, 1, 3, 3))
    optimizer = Muon([kernel], lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    kernel.grad = noise(16, 8, 1, 3, 3)
    optimizer.step()
    assert float(kernel.detach().square().mean().sqrt()) == pytest.approx(ADAM_RMS, rel=0.15)


def test_equally_shaped_matrices_do_not_disturb_each_other():
    """They are orthogonalised as one batch; each must move as it would alone."""

    def moved(count):
        parameters = [torch.nn.Parameter(torch.zeros(6, 4)) for _ in range(count)]
        optimizer = Muon(parameters, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
        for seed, parameter in enumerate(parameters):
            parameter.grad = noise(6, 4, seed=seed)
        optimizer.step()
        return [parameter.detach() for parameter in parameters]

    torch.testing.assert_close(moved(1)[0], moved(3)[0], atol=2e-2, rtol=0)


def test_resumed_equals_uninterrupted():
    def start():
        return [torch.nn.Parameter(noise(6, 4)), torch.nn.Parameter(noise(4))]

    def steps(parameters, optimizer, numbers):
        for number in numbers:
            for parameter in parameters:
                parameter.grad = noise(*parameter.shape, seed=number)
            optimizer.step()

    options = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}
    whole, first = start(), start()
    steps(whole, Muon(whole, **options), range(4))
    before = Muon(first, **options)
    steps(first, before, range(2))
    second = [torch.nn.Parameter(parameter.detach().clone()) for parameter in first]
    after = Muon(second, **options)
    load_optimizer(after, optimizer_tensors(before))
    steps(second, after, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))
