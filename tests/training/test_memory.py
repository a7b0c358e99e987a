"""The estimate against what autograd really keeps, and the three things that can follow from it."""

import pytest
import torch

from worldfoundry.core.errors import ResourceError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.training import memory
from worldfoundry.training.config import LoopConfig, OptimConfig, ParallelConfig
from worldfoundry.training.memory import check_memory, estimate_memory, size

SHAPE = (2, 4, 16, 16)
CPU = torch.device("cpu")


def config(blocks, ratio=4.0):
    return DiTConfig(
        in_channels=4, out_channels=4, model_channels=64, num_blocks=blocks, num_heads=2, mlp_ratio=ratio,
        crossattn_emb_channels=8, adaln_lora_dim=4, max_frames=8, max_h=32, max_w=32, condition_mask=True,
    )  # fmt: skip


def loop(**changes):
    return LoopConfig(steps=1, **changes)


def kept(dit, bfloat16):
    """Bytes that a forward keeps for the backward pass, the network's own weights aside."""
    network, found, (B, T, H, W) = DiT(dit), {}, SHAPE
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        network(torch.randn(B, 4, T, H, W), torch.zeros(B), torch.randn(B, 3, 8))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_activations_are_what_a_block_keeps(bfloat16, ratio):
    measured = kept(config(3, ratio), bfloat16) - kept(config(2, ratio), bfloat16)
    one, two = (estimate_memory(0, config(n, ratio), [SHAPE], loop(), bfloat16=bfloat16).activations for n in (1, 2))
    assert two == 2 * one
    assert one == pytest.approx(measured, rel=0.3)


def test_weights_and_what_goes_with_them():
    plain = estimate_memory(1000, config(1), [SHAPE], loop(), bfloat16=False)
    assert (plain.weights, plain.gradients, plain.optimizer, plain.average) == (4000, 4000, 8000, 4000)
    half = estimate_memory(1000, config(1), [SHAPE], loop(optim=OptimConfig(name="muon")), bfloat16=True)
    assert (half.weights, half.optimizer) == (6000, 4000)
    split = estimate_memory(1000, config(1), [SHAPE], loop(), bfloat16=False, ranks=4)
    assert (split.weights, split.gradients, split.optimizer, split.average) == (1000, 1000, 2000, 1000)


def test_checkpointing_keeps_little_and_the_largest_batch_counts():
    spare = loop(parallel=ParallelConfig(activation_checkpointing=True))
    whole, few = (estimate_memory(0, config(8), [SHAPE], c, bfloat16=False).activations for c in (loop(), spare))
    assert few < whole / 4
    both = estimate_memory(0, config(8), [(1, 1, 16, 16), SHAPE], loop(), bfloat16=False)
    assert both.activations == whole


def test_it_is_said_warned_of_or_refused(monkeypatch, capsys):
    estimate = estimate_memory(1000, config(2), [SHAPE], loop(), bfloat16=False)
    for free, words in (
        (estimate.total, "are free"),
        (estimate.total - 1, "it may not fit. Lower --batch-size"),
    ):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        check_memory(estimate, CPU, loop())
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert words in said
    monkeypatch.setattr(memory, "free_memory", lambda device: estimate.total // 2 - 1)
    with pytest.raises(ResourceError, match=r"Training takes about .* only .* are free") as caught:
        check_memory(estimate, CPU, loop())
    assert "activation-checkpointing" in caught.value.hint


def test_advice_for_a_network_that_is_too_large(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1)
    with pytest.raises(ResourceError) as caught:
        check_memory(estimate_memory(10**9, config(2), [SHAPE], loop(), bfloat16=False), CPU, loop())
    assert "smaller --model" in caught.value.hint


def test_sizes_for_people():
    assert [size(2.5e9), size(3e6)] == ["2.5 GB", "3 MB"]
