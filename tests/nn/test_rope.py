"""Rotary embedding as identities: norms stay, only differences of positions count, frame rates stretch time."""

import pytest
import torch

from worldfoundry.nn.rope import apply_rope, rope_tables, split_head

CPU = torch.device("cpu")
SHAPE = (3, 4, 5)


def turned(vector, fps=None, ratios=(2.0, 1.0, 1.0), shape=SHAPE):
    """One vector placed at every position: [T, H, W, d]."""
    d = len(vector)
    cos, sin = rope_tables(shape, d, ratios, None if fps is None else torch.tensor([fps]), CPU)
    count = shape[0] * shape[1] * shape[2]
    return apply_rope(vector.expand(1, 1, count, d), cos, sin)[0, 0].view(*shape, d)


def vectors(d=24):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, d, generator=generator)


def test_published_split():
    assert split_head(128) == (44, 42, 42)


@pytest.mark.parametrize("d", [12, 16, 24, 32, 128])
def test_rotation_keeps_norms_and_the_origin(d):
    q = vectors(d)[0]
    placed = turned(q)
    torch.testing.assert_close(placed.norm(dim=-1), q.norm().expand(SHAPE))
    assert torch.equal(placed[0, 0, 0], q)


def test_products_depend_on_differences_of_positions_alone():
    q, k = (turned(v) for v in vectors())
    torch.testing.assert_close(q[1, 1, 1] @ k[0, 0, 0], q[2, 3, 4] @ k[1, 2, 3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(q[0, 2, 0] @ k[2, 0, 1], q[0, 3, 2] @ k[2, 1, 3], atol=1e-5, rtol=1e-5)
    assert (q[1, 0, 0] @ k[0, 0, 0] - q[0, 1, 0] @ k[0, 0, 0]).abs() > 1e-3


def test_time_is_counted_in_24ths_of_a_second():
    """Frame 1 at 12 fps is as late as frame 2 at 24; rows and columns do not change."""
    q = vectors()[0]
    torch.testing.assert_close(turned(q, fps=12.0)[1], turned(q, fps=24.0)[2])
    torch.testing.assert_close(turned(q, fps=12.0)[0], turned(q, fps=24.0)[0])


def test_ratio_one_is_the_plain_base_and_larger_ratios_turn_slower():
    plain = rope_tables((2, 1, 1), 12, (1.0, 1.0, 1.0), None, CPU)[1][0, 0, 1, :2]
    torch.testing.assert_close(plain, torch.tensor([1.0, 10000.0**-0.5]).sin())
    slower = rope_tables((2, 1, 1), 12, (2.0, 1.0, 1.0), None, CPU)[1][0, 0, 1, :2]
    assert slower[0] == plain[0]
    assert slower[1] < plain[1]


def test_tables_made_while_sampling_serve_training():
    shape = (2, 3, 7)
    with torch.inference_mode():
        rope_tables(shape, 12, (1.0, 1.0, 1.0), None, CPU)
    q = torch.randn(1, 1, 42, 12, requires_grad=True)
    apply_rope(q, *rope_tables(shape, 12, (1.0, 1.0, 1.0), torch.tensor([24.0]), CPU)).sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_and_without_gradients_the_rotation_is_the_same(dtype):
    cos, sin = rope_tables((2, 3, 1), 12, (1.0, 1.0, 1.0), None, CPU)
    x = torch.randn(2, 6, 3, 12, generator=torch.Generator().manual_seed(0)).to(dtype).transpose(1, 2)
    expected = apply_rope(x, cos, sin)
    with torch.no_grad():
        out = apply_rope(x, cos, sin)
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected)
