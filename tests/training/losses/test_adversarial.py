"""The adversarial term: hinge values, the adaptive weight's closed form, a discriminator that learns and can be restored."""

import pytest
import torch
from torch import nn

from worldfoundry.training.config import AdversarialConfig
from worldfoundry.training.losses.adversarial import (
    Adversary,
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)


def adversary(**changes):
    torch.manual_seed(0)
    return Adversary(AdversarialConfig(**{"channels": 8, "layers": 2, "lr": 1e-2, **changes}), torch.device("cpu"))


def clips(seed=0):
    g = torch.Generator().manual_seed(seed)
    true = torch.rand(2, 3, 3, 16, 16, generator=g)
    return true, -torch.rand(2, 3, 3, 16, 16, generator=g)


def test_hinge_values():
    assert hinge_discriminator(torch.tensor([2.0]), torch.tensor([-3.0])) == 0
    assert hinge_discriminator(torch.tensor([0.0]), torch.tensor([0.0])) == 1
    assert hinge_discriminator(torch.tensor([-1.0]), torch.tensor([0.5])) == pytest.approx(0.5 * (2 + 1.5))
    assert hinge_generator(torch.tensor([1.0, 3.0])) == -2


@pytest.mark.parametrize(("dims", "frames"), [(2, 1), (2, 3), (3, 1), (3, 3)])
def test_patches_of_frames_or_clips_are_scored(dims, frames):
    net = PatchDiscriminator(dims=dims, channels=8, layers=2)
    scores = net(torch.zeros(2, 3, frames, 32, 16))
    assert scores.shape == ((2 * frames, 1, 8, 4) if dims == 2 else (2, 1, frames, 8, 4))


def test_only_the_discriminator_of_clips_sees_motion():
    true, _ = clips()
    for dims, same in ((2, True), (3, False)):
        net = adversary(dims=dims).discriminator
        forward, backward = net(true), net(true.flip(2))
        backward = backward.view(2, 3, 1, 4, 4).flip(1).flatten(0, 1) if dims == 2 else backward.flip(2)
        assert torch.allclose(forward, backward, atol=1e-5) == same


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms():
    layer = nn.Parameter(torch.tensor([1.0, 1.0]))
    reference, adversarial = (layer * torch.tensor([3.0, 4.0])).sum(), (layer * torch.tensor([0.0, 2.0])).sum()
    assert adaptive_weight(reference, adversarial, layer, 100.0) == pytest.approx(2.5, rel=1e-3)
    assert adaptive_weight(reference, adversarial, layer, 1.0) == 1


def test_a_discriminator_learns_to_tell_and_leaves_no_gradient_behind():
    judge, (true, made) = adversary(), clips()
    losses = [judge.learn(true, made) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    made.requires_grad_()
    hinge_generator(judge.discriminator(made)).backward()
    assert made.grad.any()
    assert all(p.grad is None for p in judge.discriminator.parameters())


def test_a_restored_adversary_goes_on_bit_for_bit():
    true, made = clips()
    whole, first = adversary(), adversary()
    expected = [whole.learn(true, made) for _ in range(6)]
    start = [first.learn(true, made) for _ in range(3)]
    saved = first.state_tensors()
    first.learn(true, made)  # must not reach into what was saved
    second = adversary()
    second.load_state_tensors(saved)
    assert start + [second.learn(true, made) for _ in range(3)] == expected


def test_a_fresh_adversary_can_be_restored_from_a_fresh_one():
    one, other = adversary(), adversary()
    other.learn(*clips())
    other.load_state_tensors(one.state_tensors())
    assert other.learn(*clips()) == one.learn(*clips())
