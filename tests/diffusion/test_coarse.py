"""What a diffusion decoder refines: the layer of its own against the published concatenation, and what leaves a world as it was."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worldfoundry.core.errors import ConfigError, UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.nn.patch import patchify

WORLD = DiTConfig(
    in_channels=3, out_channels=3, patch_spatial=2, model_channels=24, num_blocks=2, num_heads=2, crossattn_emb_channels=8,
    adaln_lora_dim=4, max_frames=4, max_h=8, max_w=8, condition_mask=True,
)  # fmt: skip
DECODER = WORLD.replace(token_codes=10, token_channels=5)


def noisy(config, batch=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, 3, 4, 6, generator=generator)
    return x, torch.full((batch,), 0.1), torch.randn(batch, 4, 8, generator=generator)


def random_weights(net):
    for i, parameter in enumerate(net.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(i))
    return net.eval().requires_grad_(False)


def part_of(net):
    """The coarse input and its table of embeddings."""
    assert net.coarse_input is not None
    return net.coarse_input, net.coarse_input.codes


def tokens(batch=2, seed=0):
    return torch.randint(10, (batch, 3, 2, 3), generator=torch.Generator().manual_seed(seed))


def test_its_layer_is_a_part_of_one_projection_of_concatenated_channels():
    net, (x, c_noise, context) = random_weights(DiT(DECODER)), noisy(DECODER)
    (part, codes), seen = part_of(net), []
    assert codes is not None
    net.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(x, c_noise, context, coarse=tokens())
    embedded = codes(tokens()).movedim(-1, 1)
    resized = torch.stack([F.interpolate(frame, size=(4, 6), mode="bilinear") for frame in embedded.unbind(2)], dim=2)
    channels = torch.cat([x, resized, x.new_zeros(2, 2, 3, 4, 6)], dim=1)
    of_x, of_masks = net.patch_embed.weight.split([3 * 4, 2 * 4], dim=1)
    whole = torch.cat([of_x, part.embed.weight, of_masks], dim=1)
    torch.testing.assert_close(seen[0], patchify(channels, 1, 2) @ whole.T)


def test_a_world_that_gets_token_embeddings_goes_on_bit_for_bit():
    world, decoder = random_weights(DiT(WORLD)), DiT(DECODER).eval().requires_grad_(False)
    missing = decoder.load_state_dict(world.state_dict(), strict=False).missing_keys
    assert sorted(missing) == ["coarse_input.codes.weight", "coarse_input.embed.weight"]
    x, c_noise, context = noisy(WORLD)
    part, _ = part_of(decoder)
    assert part.embed.weight.abs().sum() > 0  # so that the embeddings get a gradient
    assert torch.equal(decoder(x, c_noise, context, coarse=tokens()), world(x, c_noise, context))


def test_no_tokens_are_token_zero():
    net, (x, c_noise, context) = random_weights(DiT(DECODER)), noisy(DECODER)
    dropped = net(x, c_noise, context, coarse=tokens() * 0)
    torch.testing.assert_close(net(x, c_noise, context), dropped, atol=1e-5, rtol=0)
    assert not torch.allclose(net(x, c_noise, context, coarse=tokens()), dropped, atol=1e-3)


def test_what_comes_of_tokens_is_computed_once():
    net, (x, c_noise, context) = random_weights(DiT(DECODER)), noisy(DECODER)
    calls, memo = [], {}
    part_of(net)[0].register_forward_hook(lambda *call: calls.append(1))
    with torch.inference_mode():
        for scale in (1.0, 0.5):
            out = net(scale * x, c_noise, context, coarse=tokens(), memo=memo)
        torch.testing.assert_close(out, net(0.5 * x, c_noise, context, coarse=tokens()))
    assert len(calls) == 2


def test_coarse_latents_come_with_a_map_of_their_noise():
    config = WORLD.replace(latent_condition=True)
    net, (x, c_noise, context) = random_weights(DiT(config)), noisy(config)
    coarse = torch.cat([x, torch.full_like(x[:, :1], 0.3)], dim=1)
    assert net(x, c_noise, context, coarse=coarse).shape == x.shape
    with pytest.raises(UsageError, match=r"\[2, 4, 3, 4, 6\]; it was given None"):
        net(x, c_noise, context)
    with pytest.raises(UsageError, match="map of their noise level"):
        net(x, c_noise, context, coarse=x)


def test_tokens_of_another_length_are_refused():
    net, (x, c_noise, context) = random_weights(DiT(DECODER)), noisy(DECODER)
    with pytest.raises(UsageError, match="as many frames as the latents"):
        net(x, c_noise, context, coarse=tokens()[:, :2])


def test_a_decoder_is_shown_tokens_or_latents():
    with pytest.raises(ConfigError, match="exclude each other"):
        DiTConfig.from_dict({**DECODER.to_dict(), "latent_condition": True})
