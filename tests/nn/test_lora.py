"""Low-rank additions: nothing at the start, sums, merging back and forth, and PEFT's names with q, k and v apart."""

import pytest
import torch
from torch import nn

from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.nn.attention import CrossAttention, SelfAttention
from worldfoundry.nn.lora import LoRA, from_peft, new_lora, to_peft

NAMES = {"a.to_qkv": ("x.to_q", "x.to_k", "x.to_v"), "b.to_kv": ("y.to_k", "y.to_v"), "b.to_q": ("y.to_q",)}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = SelfAttention(8, 2), CrossAttention(8, 6, 2), nn.Linear(8, 3)
        for i, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=generator(i))
        self.requires_grad_(False)

    def forward(self, x_BLD, context_BMC):
        table = torch.ones(1, x_BLD.shape[1], 2)
        x_BLD = x_BLD + self.a(x_BLD, table, 0 * table)
        return self.last(x_BLD + self.b(x_BLD, context_BMC))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(lora, seed=7):
    for i, parameter in enumerate(lora.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=generator(seed + i))
    return lora


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def inputs():
    return torch.randn(2, 5, 8, generator=generator(1)), torch.randn(2, 3, 6, generator=generator(2))


def test_a_fresh_adapter_changes_no_bit(network, inputs):
    before = network(*inputs)
    with new_lora(network, ["*"], rank=3).attached(network):
        assert torch.equal(network(*inputs), before)


def test_only_the_adapter_has_gradients_and_state(network, inputs):
    lora = filled(new_lora(network, ["*"], rank=2))
    with lora.attached(network):
        network(*inputs).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lora.parameters())
    assert all(p.grad is None for p in network.parameters())
    assert lora.state_dict().keys().isdisjoint(network.state_dict())
    assert not any(m._forward_hooks for m in network.modules())


def test_attached_is_merged_and_merging_goes_back(network, inputs):
    lora, before = filled(new_lora(network, ["a.*", "last"], rank=2, alpha=5)), network(*inputs)
    weights = {name: p.clone() for name, p in network.named_parameters()}
    with lora.attached(network, 0.7):
        attached = network(*inputs)
    lora.merge(network, 0.7)
    assert not torch.allclose(attached, before, atol=1e-2)
    torch.testing.assert_close(network(*inputs), attached, rtol=1e-5, atol=1e-6)
    lora.merge(network, -0.7)
    assert max((p - weights[name]).abs().max() for name, p in network.named_parameters()) <= 1e-6


def test_several_adapters_add_up_with_their_weights(network, inputs):
    one, two = filled(new_lora(network, ["a.*"], rank=2)), filled(new_lora(network, ["*"], rank=1), 30)
    with one.attached(network, 0.5), two.attached(network, -2.0):
        both = network(*inputs)
    own = network.a.to_qkv.weight.clone()
    one.merge(network, 0.5)
    two.merge(network, -2.0)
    torch.testing.assert_close(network(*inputs), both, rtol=1e-5, atol=1e-5)
    delta = 0.5 * one.layers()["a.to_qkv"].delta() - 2 * two.layers()["a.to_qkv"].delta()
    torch.testing.assert_close(network.a.to_qkv.weight, own + delta)


def test_parts_of_a_fused_layer_are_layers_of_their_own(network):
    layer = filled(new_lora(network, ["a.to_qkv"], rank=2, alpha=6)).layers()["a.to_qkv"]
    parts = [3.0 * up @ down for up, down in zip(layer.up, layer.down, strict=True)]
    torch.testing.assert_close(layer.delta(), torch.cat(parts))
    x = torch.randn(4, 8, generator=generator(3))
    torch.testing.assert_close(layer(x), x @ layer.delta().T)


def test_targets_are_patterns_and_must_match(network):
    assert set(new_lora(network, ["*.to_q*"]).layers()) == {"a.to_qkv", "b.to_q"}
    with pytest.raises(UsageError, match=r"No linear layer of the network matches 'blocks\.\*'"):
        new_lora(network)


def test_peft_tensors_are_the_published_layers_and_come_back(network):
    lora = filled(new_lora(network, ["*"], rank=3, alpha=6))
    tensors, fields = to_peft(lora, NAMES)
    assert {key.removeprefix("base_model.model.").split(".lora_")[0] for key in tensors} == {
        "x.to_q", "x.to_k", "x.to_v", "y.to_k", "y.to_v", "y.to_q", "a.to_out", "b.to_out", "last",
    }  # fmt: skip
    assert tensors["base_model.model.x.to_q.lora_A.weight"].shape == (3, 8)
    assert (fields["r"], fields["lora_alpha"], fields["rank_pattern"], fields["alpha_pattern"]) == (3, 6.0, {}, {})
    back = from_peft(tensors, fields, NAMES)
    for name, layer in lora.layers().items():
        torch.testing.assert_close(back.layers()[name].delta(), layer.delta())


def test_a_foreign_adapter_may_leave_parts_out_and_mix_ranks(network):
    """As PEFT reads it: W + alpha / r · B A, alpha and r per layer, √r if it says so."""
    q, v = [(torch.randn(r, 8), torch.randn(8, r)) for r in (2, 4)]
    tensors = {
        f"transformer.x.to_{n}.lora_{s}.weight": t for n, pair in (("q", q), ("v", v)) for s, t in zip("AB", pair, strict=True)
    }
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "alpha_pattern": {"to_v": 3}}
    delta = from_peft(tensors, fields, NAMES).layers()["a.to_qkv"].delta()
    torch.testing.assert_close(delta, torch.cat([8 / 2 * q[1] @ q[0], torch.zeros(8, 8), 3 / 4 * v[1] @ v[0]]))
    stable = from_peft(tensors, {**fields, "use_rslora": True}, NAMES).layers()["a.to_qkv"].delta()
    torch.testing.assert_close(stable[:8], 8 / 2**0.5 * q[1] @ q[0])


@pytest.mark.parametrize(
    ("tensors", "fields", "says"),
    [
        ({"x.to_q.bias": torch.zeros(2)}, {}, "'x.to_q.bias', which is no low-rank matrix"),
        ({"x.to_q.lora_A.weight": torch.zeros(2, 8)}, {}, "matrices for 'x.to_q' do not belong together"),
        ({}, {}, "holds no matrices"),
        ({}, {"use_dora": True}, "no plain LoRA"),
        ({}, {"peft_type": "LOHA"}, "no plain LoRA"),
    ],
)
def test_what_is_no_lora_is_refused(tensors, fields, says):
    with pytest.raises(CheckpointError, match=says):
        from_peft(tensors, {"peft_type": "LORA", **fields}, NAMES)


def test_an_adapter_of_another_network_is_refused(network):
    stranger = from_peft(
        {"c.lora_A.weight": torch.zeros(1, 8), "c.lora_B.weight": torch.zeros(8, 1)}, {"peft_type": "LORA"}, {}
    )
    with pytest.raises(CheckpointError, match="no linear layer 'c'"):
        stranger.merge(network)


def test_it_is_what_peft_computes(network, inputs):
    peft = pytest.importorskip("peft")
    tensors, fields = to_peft(filled(new_lora(network, ["last", "b.to_q"], rank=2, alpha=4)), {})
    config = peft.LoraConfig(r=fields["r"], lora_alpha=fields["lora_alpha"], target_modules=fields["target_modules"])
    theirs = peft.get_peft_model(Network(), config)
    peft.set_peft_model_state_dict(theirs, tensors)
    with from_peft(tensors, fields, {}).attached(network):
        torch.testing.assert_close(network(*inputs), theirs(*inputs))
    assert isinstance(from_peft(tensors, fields, {}), LoRA)


def test_what_is_wrong_in_a_peft_adapter_is_one_line():
    fields, names = {"peft_type": "LORA", "r": 2}, {"x.to_qkv": ("x.to_q", "x.to_k", "x.to_v")}
    tensors = {f"x.to_q.lora_{side}.weight": torch.zeros(shape) for side, shape in (("A", (2, 4)), ("B", (4, 2)))}
    with pytest.raises(CheckpointError, match="lora_alpha must be a number, not 'x'"):
        from_peft(tensors, {**fields, "lora_alpha": "x"}, names)
    tensors |= {f"x.to_k.lora_{side}.weight": torch.zeros(shape) for side, shape in (("A", (2, 5)), ("B", (4, 2)))}
    with pytest.raises(CheckpointError, match="differ in size"):
        from_peft(tensors, fields, names)
