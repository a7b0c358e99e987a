"""Distillation: targets where the exact path is known, zero loss at the fixed point, and nothing moves but the adapter."""

import pytest
import torch

from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.schedule import karras_sigmas
from worldfoundry.nn.lora import new_lora
from worldfoundry.training.config import DiffusionLossConfig, DistillationConfig, LoopConfig, OptimConfig
from worldfoundry.training.loop import train
from worldfoundry.training.methods.diffusion import DiffusionMethod
from worldfoundry.training.methods.distillation import DistillationMethod, euler_step, jump_target
from worldfoundry.training.streams import TensorStream

SPREAD = 0.7
ROWS = torch.arange(4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(x, sigma_B):
    """The best denoiser of data ~ N(0, SPREAD²)."""
    sigma = sigma_B.view(-1, 1, 1, 1, 1)
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def exact_end(x, sigma_B, end_B):
    """Where its path through x is at another level: deviations keep their proportion."""
    ratio = ((SPREAD**2 + end_B**2) / (SPREAD**2 + sigma_B**2)).sqrt()
    return x * ratio.view(-1, 1, 1, 1, 1)


def path(steps):
    return karras_sigmas(steps, 0.01, 10.0, 5.0).float()


def noisy(levels, first_B):
    return torch.randn(len(first_B), 2, 2, 3, 3, generator=generator()) * (SPREAD**2 + levels[first_B] ** 2).sqrt().view(
        -1, 1, 1, 1, 1
    )


@pytest.mark.parametrize(("first", "last"), [(0.0, 0.5), (0.5, 1.0), (0.25, 0.5), (0.75, 1.0)])
def test_a_gaussians_target_is_its_consistency_function(first, last):
    """One Euler step towards the target arrives where the exact path does, the more exactly the finer the teacher's steps."""
    errors = []
    for steps in (64, 256):
        levels = path(steps)
        first_B, last_B = (torch.full((4,), int(share * steps)) for share in (first, last))
        x = noisy(levels, first_B)
        target = jump_target(gaussian, gaussian, x, levels, first_B, last_B, None)
        arrived = euler_step(target, x, levels[first_B], levels[last_B])
        errors.append(float((arrived - exact_end(x, levels[first_B], levels[last_B])).abs().max()))
    assert errors[1] < 0.4 * errors[0] < 0.1


def test_an_exact_student_finishes_a_target_as_the_teacher_would():
    levels = path(400)
    first_B, last_B = torch.tensor([0, 150, 200, 390]), torch.tensor([200, 200, 400, 400])

    def student(x, sigma_B):
        end_B = levels[last_B]
        ratio = (end_B / sigma_B).view(-1, 1, 1, 1, 1)
        return (exact_end(x, sigma_B, end_B) - ratio * x) / (1 - ratio)

    x = noisy(levels, first_B)
    whole = jump_target(gaussian, student, x, levels, first_B, last_B, None)
    for hops in (1, 20):
        torch.testing.assert_close(
            jump_target(gaussian, student, x, levels, first_B, last_B, hops), whole, rtol=0.03, atol=0.01
        )


def make_method(steps=2, path_steps=8, **changes):
    config = DiTConfig(
        in_channels=4, out_channels=4, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=8, adaln_lora_dim=4,
        max_frames=4, max_h=4, max_w=4, condition_mask=True, action_dim=6, prefix_context=True,
    )  # fmt: skip
    network = DiT(config).eval()
    for i, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=generator(i))
    teacher = DiffusionMethod(network, DiffusionLossConfig(), torch.randn(2, 3, 8, generator=generator()), fps=12)
    lora = new_lora(network, ["blocks.*", "final.linear"], rank=4)
    return DistillationMethod(lora, teacher, DistillationConfig(steps=steps, **changes), path(path_steps))


def columns():
    g = generator(1)
    actions = torch.randn(4, 3, 6, generator=g)
    return {"latents": torch.randn(4, 4, 3, 4, 4, generator=g), "caption": ROWS % 2, "actions": actions}


def test_at_the_teachers_fixed_point_the_loss_is_zero():
    """With as many steps as the teacher, the student has nothing to learn."""
    method = make_method(steps=4, path_steps=4)
    for seed in range(3):
        assert method.training_step(columns(), generator(seed)).loss < 1e-9
    for parameter in method.module.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator(9))
    assert method.training_step(columns(), generator()).loss > 1e-3


@pytest.mark.parametrize("hops", [None, 1])
def test_only_the_adapter_moves(hops, tmp_path):
    method = make_method(hops=hops)
    network, lora = method.teacher.module, method.module
    before = [{name: t.clone() for name, t in module.state_dict().items()} for module in (network, lora)]
    optim = OptimConfig(lr=1e-2, warmup_steps=1)
    train(method, TensorStream(columns(), 4, 0), LoopConfig(steps=3, precision="float32", compile="off", optim=optim), tmp_path)
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(torch.equal(tensor, before[1][name]) for name, tensor in lora.state_dict().items())


def test_a_student_comes_to_jump_where_the_teacher_walks(tmp_path):
    """One batch, always with the same noise: what it should learn is one vector per sample."""
    method = make_method(steps=1)
    optimizer, losses = torch.optim.Adam(method.module.parameters(), lr=1e-2), []
    for _ in range(60):
        loss = method.training_step(columns(), generator()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_guided_teacher_is_another_target():
    method = make_method()
    plain = method.training_step(columns(), generator()).loss
    method.guidance_scale = 2.0
    assert not torch.allclose(method.training_step(columns(), generator()).loss, plain)


def test_a_path_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"The teacher's 8 steps do not divide among the student's 3\. Take 9"):
        make_method(steps=3)
