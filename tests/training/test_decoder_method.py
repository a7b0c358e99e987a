"""Training of a diffusion decoder: it begins as the world that it is made of, and nothing of that world changes."""

from dataclasses import replace

import pytest
import torch

from worldfoundry.conditioning.condition import Condition
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.parametrization import NetworkDenoiser
from worldfoundry.inference.token_decoder import decoder_network
from worldfoundry.nn.lora import new_lora
from worldfoundry.training.config import DiffusionLossConfig
from worldfoundry.training.methods.decoder import DecoderMethod
from worldfoundry.training.methods.diffusion import DiffusionMethod

WORLD = DiTConfig(
    in_channels=4, out_channels=4, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=8, adaln_lora_dim=4,
    max_frames=4, max_h=8, max_w=8, condition_mask=True, action_dim=3, prefix_context=True, skip_gates=True,
)  # fmt: skip


@pytest.fixture
def world():
    net = DiT(WORLD)
    for i, parameter in enumerate(net.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(i))
    return net.eval().requires_grad_(False)


def method_of(world, token_dropout=0.0):
    network = decoder_network(world, 10, 3)
    loss = DiffusionLossConfig(prefix_weights=(1.0,), text_dropout=0.0, change_weight=0.0)
    drawer = DiffusionMethod(network, loss, torch.zeros(1, 2, 8), fps=12.0, token_dropout=token_dropout)
    return DecoderMethod(new_lora(network, ("blocks.*.self_attention.*", "blocks.*.mlp.*"), rank=2), drawer)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(4, 4, 3, 4, 4, generator=torch.Generator().manual_seed(9)),
        "tokens": torch.randint(1, 10, (4, 3, 2, 2), generator=generator),
        "caption": torch.zeros(4, dtype=torch.long),
    }


def loss_of(method, rows, seed=0):
    return method.training_step(rows, torch.Generator().manual_seed(seed)).loss


def test_it_begins_as_the_world_bit_for_bit(world):
    method = method_of(world)
    x, sigma = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3, 5.0])
    told = Condition(context_BLD=torch.zeros(1, 2, 8), actions_BTA=torch.zeros(1, 3, 3))
    with torch.no_grad():
        wanted = NetworkDenoiser(world)(x, sigma, told)
        with method.module.lora.attached(method.world.module):
            found = method.world.denoiser(x, sigma, replace(told, coarse=batch()["tokens"][:2]))
    assert torch.equal(found, wanted)


def test_steps_change_the_additions_and_the_tokens_input_alone(world):
    method = method_of(world)
    before = {name: tensor.clone() for name, tensor in method.world.module.state_dict().items()}
    optimizer = torch.optim.Adam(method.module.parameters(), lr=1e-2)
    first = float(loss_of(method, batch()).detach())
    for step in range(30):
        loss_of(method, batch(), step % 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss_of(method, batch()).detach()) < first
    changed = {name for name, tensor in method.world.module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"coarse_input.codes.weight", "coarse_input.embed.weight"}
    assert all(layer.up.any() for layer in method.module.lora.layers().values())
    assert set(method.module.state_dict()) >= {"coarse.codes.weight", "coarse.embed.weight"}


def test_dropped_tokens_are_token_zero(world):
    told, dropped, none = (method_of(world, dropout) for dropout in (0.0, 1.0, 0.0))
    for method in (told, dropped, none):
        codes = method.module.coarse.codes
        assert codes is not None
        torch.nn.init.normal_(codes.weight, generator=torch.Generator().manual_seed(3))
    zeros = batch() | {"tokens": torch.zeros(4, 3, 2, 2, dtype=torch.long)}
    assert loss_of(dropped, batch()) == loss_of(dropped, batch(seed=1)) == loss_of(none, zeros)
    assert loss_of(told, batch()) != loss_of(told, batch(seed=1))


def test_a_network_without_input_for_tokens_is_a_mistake(world):
    drawer = DiffusionMethod(world, DiffusionLossConfig(), torch.zeros(1, 2, 8), fps=12.0)
    with pytest.raises(ValueError, match="token_codes"):
        DecoderMethod(new_lora(world, rank=2), drawer)
