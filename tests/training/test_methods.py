"""The methods: gradients reach every weight, the losses are what they say, moving pixels are those that move."""

import math

import pytest
import torch

from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.recipes.config import TrainDiffusionConfig
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.config import DiffusionLossConfig, TokenizerLossConfig
from worldfoundry.training.methods.diffusion import DiffusionMethod
from worldfoundry.training.methods.tokenizer import TokenizerMethod, to_float, to_uint8


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randomised(module):
    for i, parameter in enumerate(module.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=generator(i))
    return module


def diffusion_method(**loss):
    config = DiTConfig(
        in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=8, adaln_lora_dim=4,
        max_frames=4, max_h=4, max_w=4, condition_mask=True, action_dim=6, prefix_context=True,
    )  # fmt: skip
    return DiffusionMethod(
        randomised(DiT(config)), DiffusionLossConfig(**loss), torch.randn(2, 3, 8, generator=generator()), fps=12
    )


def diffusion_batch():
    g = generator(1)
    return {
        "latents": torch.randn(4, 4, 3, 4, 4, generator=g),
        "caption": torch.tensor([0, 1, 0, 1]),
        "actions": torch.randn(4, 3, 6, generator=g),
    }


def test_given_frames_are_shown_in_training_as_they_will_be_in_sampling():
    """With frame_levels the network is told the level of every frame: augment_sigma on those that are given."""
    made, told = diffusion_method(prefix_weights=(0.0, 1.0)), []
    method = DiffusionMethod(made.module, made.config, made.contexts_NLD, fps=12, frame_levels=True, augment_sigma=0.02)
    method.module.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    method.training_step(diffusion_batch(), generator())
    torch.testing.assert_close(told[0][:, 0], torch.full((4,), math.log(0.02) / 4))
    assert told[0].shape == (4, 3)
    assert (told[0][:, 1] == told[0][:, 2]).all()


def test_frames_survive_float_and_back():
    video = torch.randint(0, 256, (1, 2, 3, 4, 3), dtype=torch.uint8, generator=generator())
    x = to_float(video)
    assert x.shape == (1, 3, 2, 3, 4)
    assert x.min() >= -1
    assert x.max() <= 1
    assert torch.equal(to_uint8(x), video)


def test_the_tokenizer_loss_is_its_formula():
    tokenizer = build_tokenizer(named_config("debug").to_dict())
    video = torch.randint(0, 256, (1, 5, 16, 16, 3), dtype=torch.uint8, generator=generator())
    config = TokenizerLossConfig(l1=2.0, l2=3.0, moving=0.0)
    with torch.no_grad():
        loss = TokenizerMethod(tokenizer, config, mirror=False).training_step({"video": video}, generator()).loss
        error = tokenizer(to_float(video)) - to_float(video)
    assert loss == pytest.approx(float(2 * error.abs().mean() + 3 * error.square().mean()), rel=1e-5)


def test_gradients_reach_every_weight_of_the_tokenizer():
    tokenizer = build_tokenizer(named_config("debug").to_dict())
    video = torch.randint(0, 256, (1, 5, 16, 16, 3), dtype=torch.uint8, generator=generator())
    TokenizerMethod(tokenizer, TokenizerLossConfig(), mirror=True).training_step({"video": video}, generator()).loss.backward()
    assert [n for n, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradients_reach_every_weight_of_the_transformer():
    method = diffusion_method(text_dropout=0.0)
    method.training_step(diffusion_batch(), generator()).loss.backward()
    missing = [n for n, p in method.module.named_parameters() if p.grad is None or not p.grad.any()]
    unused = {n for n in missing if n.startswith("position.")}  # rows beyond the clip would be unused, but none is
    assert set(missing) == unused


def test_the_same_generator_gives_the_same_loss():
    method = diffusion_method()
    one, two, other = (float(method.training_step(diffusion_batch(), generator(s)).loss.detach()) for s in (0, 0, 1))
    assert one == two
    assert one != other


@pytest.mark.parametrize("kind", ["diffusion", "tokenizer"])
def test_batches_from_the_cpu_reach_a_module_elsewhere(kind):
    """The meta device stands for a GPU: mixing it with the CPU fails, and so does only at the end reading a number off it."""
    if kind == "diffusion":
        method, batch = diffusion_method(), diffusion_batch()
    else:
        method = TokenizerMethod(build_tokenizer(named_config("debug").to_dict()), TokenizerLossConfig(), mirror=True)
        batch = {"video": torch.zeros(1, 5, 16, 16, 3, dtype=torch.uint8)}
    method.module.to("meta")
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        method.training_step(batch, generator())


def test_given_frames_do_not_count():
    """With all frames but the last given, changing a given frame's noise target cannot change what is asked of it."""
    method = diffusion_method(prefix_weights=(0.0, 0.0, 1.0), change_weight=0.0)
    batch = diffusion_batch()
    seen = []
    denoiser = method.denoiser

    def spy(x, sigma, condition):
        out = denoiser(x, sigma, condition)
        seen.append((out[:, :, :2], condition.prefix_BCTHW[:, :, :2]))
        return out

    spy.parametrization, spy.network = denoiser.parametrization, denoiser.network
    method.denoiser = spy
    method.training_step(batch, generator())
    out, prefix = seen[0]
    assert torch.allclose(out, prefix)


def test_change_weight_is_one_where_nothing_changes_and_bounded_where_much_does():
    method = diffusion_method(change_weight=2.0)
    still = torch.ones(1, 4, 3, 4, 4)
    moved = still.clone()
    moved[:, :, 2] = 100
    given = torch.tensor([1])
    assert torch.equal(method._change_weight(still, given), torch.ones(1, 1, 3, 4, 4))
    weight = method._change_weight(moved, given)
    assert weight[0, 0, 1].max() == 1
    assert weight[0, 0, 2].min() == pytest.approx(3.0)


def test_uncertainty_is_trained_when_asked_for():
    config = DiTConfig(
        in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=8, adaln_lora_dim=4,
        max_frames=4, max_h=4, max_w=4, condition_mask=True, uncertainty=True,
    )  # fmt: skip
    method = DiffusionMethod(randomised(DiT(config)), DiffusionLossConfig(uncertainty=True), torch.zeros(2, 3, 8), fps=12)
    batch = {k: v for k, v in diffusion_batch().items() if k != "actions"}
    method.training_step(batch, generator()).loss.backward()
    assert method.module.uncertainty.weight.grad.any()


def test_prefix_weights_must_hold_something():
    with pytest.raises(ValueError, match="at least one positive"):
        DiffusionLossConfig(prefix_weights=(0.0, 0.0))


@pytest.mark.parametrize("name", ["edm", "rectified_flow"])
def test_every_parametrization_trains(name):
    method = diffusion_method(parametrization=name, prefix_weights=(1.0,), change_weight=0.0)
    optimizer = torch.optim.AdamW(method.module.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):  # one batch, one draw of noise: it must be learnt by heart
        loss = method.training_step(diffusion_batch(), generator(3)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_scheduler_cannot_contradict_the_loss():
    with pytest.raises(ConfigError, match=r"follows loss\.parametrization"):
        TrainDiffusionConfig.from_dict(
            {"data": "a", "tokenizer": "b", "out": "c", "scheduler": {"parametrization": "rectified_flow"}}
        )


def test_a_share_of_samples_is_given_its_last_frame_too():
    """Prefix and end are marked, what lies between is all the loss sees, and where nothing would be between no end is given."""
    method = diffusion_method(suffix_share=1.0, prefix_weights=(0.0, 0.5, 0.5))
    _, condition, _ = method.draw(diffusion_batch(), generator())
    marks = condition.condition_mask(3).flatten(1).tolist()
    assert {tuple(row) for row in marks} == {(1, 0, 1), (1, 1, 0)}
    filled = condition.given_latents(diffusion_batch()["latents"])
    assert torch.equal(filled, diffusion_batch()["latents"] * method.config.sigma_data)
    image = {**diffusion_batch(), "latents": diffusion_batch()["latents"][:, :, :1]}
    assert not method.draw(image, generator())[1].condition_mask(1).any()
    assert torch.isfinite(method.training_step(diffusion_batch(), generator()).loss)
    none = diffusion_method().draw(diffusion_batch(), generator())[1]
    assert none.suffix_BCTHW is None
