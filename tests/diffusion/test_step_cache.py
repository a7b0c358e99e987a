"""Skipped steps: what is added is what was added before; a threshold of 0 changes nothing, and one of infinity skips all but one."""

import pytest
import torch

from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.step_cache import step_cache

CONFIG = DiTConfig(
    in_channels=4, out_channels=4, model_channels=32, num_blocks=2, num_heads=2, crossattn_emb_channels=8, adaln_lora_dim=4,
    max_frames=4, max_h=8, max_w=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    generator, network = torch.Generator().manual_seed(0), DiT(CONFIG).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


X = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
CONTEXT = torch.ones(1, 3, 8)


def ask(network, level=0.1, x=X, context=CONTEXT):
    return network(x, torch.full((len(x),), level), context)


def test_a_threshold_of_zero_leaves_the_network_alone(network):
    with step_cache(network, 0.0) as cache:
        assert cache is None
        assert len(network.blocks) == CONFIG.num_blocks


def test_the_first_call_is_exact_and_the_same_call_again_is_reused(network):
    want = ask(network)
    with step_cache(network, 0.05) as cache:
        assert torch.equal(ask(network), want)
        torch.testing.assert_close(ask(network), want, atol=1e-5, rtol=1e-5)
        assert (cache.computed, cache.reused) == (1, 1)
    assert torch.equal(ask(network), want)


def test_changes_add_up_until_the_threshold(network):
    with step_cache(network, 0.05) as cache:
        for i in range(40):
            ask(network, level=0.1 + 0.01 * i)
    assert 1 < cache.computed < 40
    with step_cache(network, 1e-9) as exact:
        outputs = [ask(network, level=0.1 + 0.01 * i) for i in range(4)]
    assert exact.reused == 0
    assert torch.equal(outputs[3], ask(network, level=0.13))


def test_branches_and_batch_sizes_have_memories_of_their_own(network):
    other = ask(network, context=-2 * CONTEXT)
    with step_cache(network, 1e9) as cache:
        ask(network)
        assert torch.equal(ask(network, context=-2 * CONTEXT), other)
        ask(network, x=X.repeat(2, 1, 1, 1, 1), context=CONTEXT.repeat(2, 1, 1))
        assert (cache.computed, cache.reused) == (3, 0)
        cache.must_compute = True
        ask(network)
        assert cache.reused == 0
