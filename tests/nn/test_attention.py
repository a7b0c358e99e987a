"""Attention kernels agree with each other and with the definition; norm, modulation and patches by their definitions."""

import pytest
import torch
import torch.nn.functional as F

from worldfoundry.nn import attention as module
from worldfoundry.nn.adaln import AdaLNLoRA, add_gated, modulate
from worldfoundry.nn.attention import CrossAttention, SelfAttention, attention
from worldfoundry.nn.norm import RMSNorm
from worldfoundry.nn.patch import patchify, unpatchify
from worldfoundry.nn.rope import rope_tables


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("keys", [7, 3])
def test_both_kernels_are_softmax_attention(keys, monkeypatch):
    q, k, v = draw(2, 3, 7, 8, seed=1), draw(2, 3, keys, 8, seed=2), draw(2, 3, keys, 8, seed=3)
    expected = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1) @ v
    torch.testing.assert_close(attention(q, k, v), expected)
    half = v.bfloat16()
    for limit in (0, 1 << 30):  # the fused kernel, then explicit products
        monkeypatch.setattr(module, "EXPLICIT_SCORE_BYTES", limit)
        out = attention(q, k, half)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("heads_at_once", [1, 2, 4, 6])
def test_attention_in_pieces_is_softmax_attention(heads_at_once, monkeypatch):
    """Without gradients bfloat16 goes through a scratch array of a few heads; the last piece may be smaller."""
    monkeypatch.setattr(module, "SCRATCH_BYTES", heads_at_once * 7 * 5 * 2)
    q, k, v = draw(2, 3, 7, 8, seed=1), draw(2, 3, 5, 8, seed=2), draw(2, 3, 5, 8, seed=3)
    expected = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1) @ v
    with torch.no_grad():
        out = attention(q, k, v.bfloat16())
        strided = attention(*(x.bfloat16().transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)))
    torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=3e-2)
    assert torch.equal(out, strided)


def test_self_attention_does_not_know_order_without_rotation():
    layer, x = SelfAttention(24, 2), draw(1, 6, 24)
    cos, sin = rope_tables((6, 1, 1), 12, (1.0, 1.0, 1.0), None, x.device)
    still = torch.ones_like(cos), torch.zeros_like(sin)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(layer(x, *still)[:, order], layer(x[:, order], *still))
    assert (layer(x, cos, sin)[:, order] - layer(x[:, order], cos, sin)).abs().max() > 1e-3


def test_queries_and_keys_are_normalised():
    """Scaling q and k rows of the projection changes nothing; scaling v scales the output."""
    layer, x = SelfAttention(24, 2), draw(1, 6, 24)
    tables = rope_tables((6, 1, 1), 12, (1.0, 1.0, 1.0), None, x.device)
    before = layer(x, *tables)
    with torch.no_grad():
        layer.to_qkv.weight[:48] *= 5
        layer.to_qkv.weight[48:] *= 2
    torch.testing.assert_close(layer(x, *tables), 2 * before, atol=1e-4, rtol=1e-4)


def test_cross_attention_counts_zero_rows():
    """A zero row has a zero value and a zero score: it dilutes, which is why their number must not change."""
    layer, x, context = CrossAttention(24, 10, 2), draw(1, 6, 24), draw(1, 3, 10, seed=4)
    with torch.no_grad():
        layer.norm_k.weight.zero_()  # all scores zero: a plain mean over rows
    padded = F.pad(context, (0, 0, 0, 3))
    torch.testing.assert_close(layer(x, padded), layer(x, context) / 2, atol=1e-6, rtol=1e-5)


def test_rms_norm_is_unit_rms_and_equals_torch():
    norm, x = RMSNorm(16), 5 * draw(4, 16)
    torch.testing.assert_close(norm(x).square().mean(-1), torch.ones(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), eps=1e-6))
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    with torch.no_grad():
        without_gradients = norm(x)
    torch.testing.assert_close(without_gradients, norm(x))


def test_modulation_is_affine_on_the_normalised_tokens():
    x = draw(2, 3, 4, 8)
    zero, one = torch.zeros(2, 1, 1, 8), torch.ones(2, 1, 1, 8)
    plain = F.layer_norm(x, (8,), eps=1e-6)
    torch.testing.assert_close(modulate(x, zero, zero), plain)
    torch.testing.assert_close(modulate(x, one, 2 * one), 3 * plain + 1)


def test_one_row_of_modulation_is_many_equal_ones():
    x, shift, scale = draw(2, 3, 4, 8), draw(1, 1, 1, 8, seed=1), draw(1, 1, 1, 8, seed=2)
    many = modulate(x, shift.expand(2, 3, 1, 8), scale.expand(2, 3, 1, 8))
    torch.testing.assert_close(modulate(x, shift, scale), many)


def test_gated_addition_spares_its_first_argument_and_keeps_gradients():
    x, gate, update = draw(2, 3, 4, 8), draw(2, 1, 1, 8, seed=1), draw(2, 3, 4, 8, seed=2).requires_grad_()
    expected = x + gate * update
    with torch.no_grad():
        kept = x.clone()
        torch.testing.assert_close(add_gated(x, gate, update.clone()), expected)
        assert torch.equal(x, kept)
    add_gated(x, gate, update).sum().backward()
    torch.testing.assert_close(update.grad, gate.expand_as(x))


def test_modulation_is_the_shared_base_while_the_correction_is_zero():
    layer, base = AdaLNLoRA(8, 2, chunks=2), draw(2, 3, 1, 24)
    torch.nn.init.zeros_(layer.up.weight)
    shift, scale = layer(draw(2, 1, 1, 8), base)
    assert torch.equal(shift, base[..., :8])
    assert torch.equal(scale, base[..., 8:16])


def test_patch_orders_by_hand():
    """In: channel slowest. Out: channel fastest."""
    x = torch.arange(2 * 2 * 4.0).view(1, 2, 1, 2, 4)  # channel 0 holds 0-7, channel 1 holds 8-15
    tokens = patchify(x, 1, 2)
    assert tokens.shape == (1, 1, 2, 8)
    assert tokens[0, 0, 0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    out = unpatchify(torch.tensor([0.0, 8, 1, 9, 4, 12, 5, 13, 2, 10, 3, 11, 6, 14, 7, 15]).view(1, 1, 2, 8), 1, 1, 2)
    assert torch.equal(out, x)


def test_every_latent_value_lands_in_one_token_of_its_own_place():
    x = draw(2, 3, 4, 6, 8)
    tokens = patchify(x, 2, 2)
    assert tokens.shape == (2, 2, 12, 24)
    assert torch.equal(tokens.sort(dim=-1).values[:, 1, 5], x[:, :, 2:4, 2:4, 2:4].flatten(1).sort(dim=-1).values)
