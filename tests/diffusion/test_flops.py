"""The formula against the products that torch counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from worldfoundry.diffusion.config import DiTConfig, dit_size
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.flops import forward_flops, tokens, training_flops

TINY = DiTConfig(
    in_channels=4, out_channels=4, model_channels=24, num_blocks=2, num_heads=2, mlp_ratio=3.0, crossattn_emb_channels=10,
    adaln_lora_dim=3, max_frames=4, max_h=8, max_w=8, condition_mask=True,
)  # fmt: skip
ALL = {"action_dim": 6, "prefix_context": True, "skip_gates": True}
SHAPE = (2, 3, 4, 6)


def counted(config, *, backward):
    network, (B, T, H, W) = DiT(config), SHAPE
    told = {"actions_BTA": torch.randn(B, T, 6), "prefix_BCTHW": torch.randn(B, 4, T, H, W)} if config.action_dim else {}
    mask = torch.zeros(B, 1, T, 1, 1)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        out = network(torch.randn(B, 4, T, H, W), torch.zeros(B), torch.randn(B, 5, 10), condition_mask_B1THW=mask, **told)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("changes", [{}, {"patch_spatial": 1}, ALL, {"mlp_ratio": 4.0, "adaln_lora_dim": 8}])
def test_the_forward_is_what_torch_counts(changes):
    config = TINY.replace(**changes)
    assert forward_flops(config, SHAPE, 5) == counted(config, backward=False)


def test_forward_and_backward_are_three_forwards():
    """Less the gradients of inputs, which nobody asks for: a tiny network has many of them, a large one hardly any."""
    counts = counted(TINY, backward=True)
    assert 0.9 * training_flops(TINY, SHAPE, 5) < counts <= training_flops(TINY, SHAPE, 5)


def test_a_published_size():
    """7B at 56 320 tokens: 6 · parameters · tokens for the products with weights, and attention on top (arXiv 2501.03575, 5.1)."""
    config, shape = dit_size("7b-text2world"), (16, 88, 160)
    N = tokens(config, shape)
    assert N == 56_320
    attention = 3 * 2 * 28 * 2 * N * N * 4096
    rest = training_flops(config, (1, *shape), 512) - attention
    assert rest == pytest.approx(6 * 6.4e9 * N, rel=0.1)
