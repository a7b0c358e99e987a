"""Packed weights change the order of additions and nothing else, and leave no trace."""

import pytest
import torch
from torch import nn

from worldfoundry.nn import packed as module
from worldfoundry.nn.memo import remembered
from worldfoundry.nn.packed import PACK_AT_CALL, PackedLinear, packed


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 24), nn.GELU(), nn.Linear(24, 16, bias=False)).to(dtype)


def ready_memo(net):
    """A memo that has been used just too seldom for packing."""
    memo = {}
    for _ in range(PACK_AT_CALL - 1):
        with torch.no_grad(), packed(net, memo):
            assert not any("forward" in m.__dict__ for m in net.modules())
    return memo


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 3, 5, 40)])
def test_packed_layers_give_the_same_numbers_and_are_plain_afterwards(dtype, tolerance, shape):
    net, x = network(dtype), draw(*shape).to(dtype)
    memo = ready_memo(net)
    with torch.no_grad():
        expected = net(x)
        with packed(net, memo):
            out = net(x)
    assert set(memo) == {"calls", "packed"}
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)
    assert not any("forward" in m.__dict__ for m in net.modules())


def test_an_error_inside_leaves_plain_layers():
    net = network()
    with pytest.raises(RuntimeError), torch.no_grad(), packed(net, ready_memo(net)):
        net(draw(2, 3))
    assert not any("forward" in m.__dict__ for m in net.modules())


def test_other_dtypes_and_autocast_compute_as_always():
    net, x = network(), draw(3, 40)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = net(x)
        with packed(net, ready_memo(net)):
            assert torch.equal(net(x), expected)
    with torch.no_grad(), packed(net, ready_memo(net)), pytest.raises(RuntimeError):
        net(x.double())


@pytest.mark.parametrize("reason", ["no memo", "gradients", "no operators", "too large"])
def test_nothing_is_packed(reason, monkeypatch):
    net = network()
    memo = None if reason == "no memo" else ready_memo(net)
    if reason == "no operators":
        monkeypatch.setattr(module, "_available", lambda: False)
    if reason == "too large":
        monkeypatch.setattr(module, "MAX_BYTES", 10)
    with torch.set_grad_enabled(reason == "gradients"), packed(net, memo):
        assert not any("forward" in m.__dict__ for m in net.modules())


def test_a_memo_makes_each_value_once():
    made, memo = [], {}
    for _ in range(3):
        assert remembered(memo, "key", lambda: made.append(1) or len(made)) == 1
    assert remembered(None, "key", lambda: 5) == 5


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@torch.inference_mode()
def test_a_packed_layer_and_what_follows_it(rows, dtype):
    """float64 cannot be packed: the same by plain operations."""
    generator = torch.Generator().manual_seed(0)
    weight, x, other = (
        torch.randn(*shape, generator=generator).to(dtype) for shape in ((24, 16), (2, rows, 16), (2, rows, 24))
    )
    layer, product = PackedLinear(weight), (x.double() @ weight.double().T)
    tolerance = {"atol": 1e-1, "rtol": 2e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    for ours, wanted in (
        (layer(x), product),
        (layer.silu(x), torch.nn.functional.silu(product)),
        (layer.plus(x, other), product + other),
        (layer.times(x, other), product * other),
    ):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), wanted.double(), **tolerance)
    assert not layer.state_dict()
