"""The network's own properties: sizes, adapters, masks, frame rates, compilation, half precision."""

import pytest
import torch

from worldfoundry.core.checkpoint import load_component, save_component
from worldfoundry.core.errors import ConfigError, UsageError
from worldfoundry.diffusion.build import build_dit
from worldfoundry.diffusion.config import SIZES, DiTConfig, dit_size
from worldfoundry.diffusion.dit import DiT, last_given_frame
from worldfoundry.nn.packed import PACK_AT_CALL

TINY = DiTConfig(
    in_channels=4, out_channels=4, model_channels=48, num_blocks=2, num_heads=3, crossattn_emb_channels=20, adaln_lora_dim=6,
    max_frames=6, max_h=8, max_w=12, condition_mask=True,
)  # fmt: skip


def random_weights(net, seed=0):
    """Every parameter random, so that no branch is silent; returns the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if parameter.ndim == 1 else 0.9 * noise * parameter.shape[-1] ** -0.5)
    return net.eval()


def inputs(config=TINY, batch=2, frames=3, height=4, width=6, seed=1):
    """x, c_noise, context for a forward."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, config.in_channels, frames, height, width, generator=generator)
    context = torch.randn(batch, 5, config.crossattn_emb_channels, generator=generator)
    return x, torch.linspace(-0.5, 0.7, batch), context


def given(frames, batch=2, count=1, height=4, width=6):
    mask = torch.zeros(batch, 1, frames, height, width)
    mask[:, :, :count] = 1
    return mask


@pytest.mark.parametrize(
    ("changes", "extra"),
    [({"action_dim": 7}, "actions_BTA"), ({"prefix_context": True}, "prefix_BCTHW"), ({"skip_gates": True}, "prefix_BCTHW")],
)
def test_fresh_adapters_change_nothing_bit_for_bit(changes, extra):
    base, adapted = random_weights(DiT(TINY)), DiT(TINY.replace(**changes)).eval()
    missing, unexpected = adapted.load_state_dict(base.state_dict(), strict=False)
    assert missing
    assert not unexpected
    x, c_noise, context = inputs()
    mask = given(3)
    conditions = {"actions_BTA": torch.randn(2, 3, 7), "prefix_BCTHW": torch.randn(2, 4, 1, 4, 6)}
    with torch.no_grad():
        expected = base(x, c_noise, context, condition_mask_B1THW=mask)
        out = adapted(x, c_noise, context, condition_mask_B1THW=mask, **{extra: conditions[extra]})
    assert expected.std() > 0.1
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("gates", "expected"), [((1, 0), "x"), ((0, 1), "last"), ((0.25, 0.5), "both")])
def test_open_gates_let_the_input_and_the_last_given_frame_through(gates, expected, monkeypatch):
    net = random_weights(DiT(TINY.replace(skip_gates=True)))
    x, c_noise, context = inputs()
    values, patch = TINY.out_channels * TINY.patch_spatial**2, TINY.patch_spatial**2
    row = torch.cat([torch.zeros(values), torch.full((patch,), float(gates[0])), torch.full((patch,), float(gates[1]))])
    monkeypatch.setattr(net.final, "forward", lambda tokens, *_: row.expand(*tokens.shape[:3], -1))
    prefix = torch.randn(2, TINY.in_channels, 2, *x.shape[3:])
    with torch.no_grad():
        out = net(x, c_noise, context, condition_mask_B1THW=given(x.shape[2], count=2), prefix_BCTHW=prefix)
    last = prefix[:, :, 1:2].expand_as(x)
    wanted = {"x": x, "last": last, "both": 0.25 * x + 0.5 * last}
    torch.testing.assert_close(out, wanted[expected])


def test_a_trained_action_adapter_modulates_its_own_frame_most():
    net = random_weights(DiT(TINY.replace(action_dim=3)))
    x, c_noise, context = inputs()
    actions = torch.zeros(2, 3, 3)
    moved = actions.clone()
    moved[:, 2] = 3.0
    with torch.no_grad():
        change = (net(x, c_noise, context, actions_BTA=moved) - net(x, c_noise, context, actions_BTA=actions)).abs()
    per_frame = change.mean(dim=(0, 1, 3, 4))
    assert per_frame[2] > 2 * per_frame[:2].max()


def test_prefix_adapter_sees_the_last_given_frame_of_each_sample():
    prefix = torch.randn(3, 4, 2, 2, 2)
    mask = torch.zeros(3, 1, 5, 2, 2)
    mask[0, :, :1], mask[1, :, :2] = 1, 1
    frames = last_given_frame(prefix, mask)
    assert torch.equal(frames[0, :, 0], prefix[0, :, 0])
    assert torch.equal(frames[1, :, 0], prefix[1, :, 1])
    assert not frames[2].any()
    mask[:, :, -1] = 1  # an end that is given as well
    assert torch.equal(last_given_frame(prefix, mask), frames)
    assert torch.equal(last_given_frame(prefix, None), prefix[:, :, -1:])


def test_samples_of_a_batch_do_not_touch_each_other():
    net = random_weights(DiT(TINY))
    x, c_noise, context = inputs()
    fps = torch.tensor([10.0, 24.0])
    with torch.no_grad():
        together = net(x, c_noise, context, fps_B=fps, condition_mask_B1THW=given(3))
        alone = [net(x[i : i + 1], c_noise[i : i + 1], context[i : i + 1], fps_B=fps[i : i + 1],
                     condition_mask_B1THW=given(3, 1)) for i in range(2)]  # fmt: skip
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_no_fps_is_24_fps_and_others_differ():
    net = random_weights(DiT(TINY))
    with torch.no_grad():
        out = {fps: net(*inputs(), fps_B=None if fps is None else torch.full((2,), fps)) for fps in (None, 24.0, 12.0)}
    assert torch.equal(out[None], out[24.0])
    assert (out[None] - out[12.0]).abs().max() > 1e-3


def test_masks_default_to_nothing_given_and_nothing_padded():
    net = random_weights(DiT(TINY))
    with torch.no_grad():
        default = net(*inputs())
        explicit = net(*inputs(), padding_mask_B1HW=torch.zeros(2, 1, 40, 60), condition_mask_B1THW=torch.zeros(2, 1, 3, 4, 6))
        given_first = net(*inputs(), condition_mask_B1THW=given(3))
        padded = net(*inputs(), padding_mask_B1HW=torch.ones(1, 1, 8, 8))
    assert torch.equal(default, explicit)
    assert not torch.equal(default, given_first)
    assert not torch.equal(default, padded)


def test_an_untrained_network_predicts_zero():
    assert not DiT(TINY)(*inputs()).any()


def test_weights_are_drawn_from_the_seed():
    first, same, other = DiT(TINY, seed=3), DiT(TINY, seed=3), DiT(TINY, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.patch_embed.weight, other.patch_embed.weight)


@pytest.mark.parametrize(
    "changes", [{}, {"action_dim": 7, "prefix_context": True, "skip_gates": True}, {"extra_pos_emb": "none"}]
)
def test_bfloat16_autocast_trains_and_stays_near_float32(changes):
    net = random_weights(DiT(TINY.replace(**changes)))
    x, c_noise, context = inputs()
    call = {"condition_mask_B1THW": given(3), "actions_BTA": torch.randn(2, 3, 7), "prefix_BCTHW": x}
    if not changes.get("action_dim"):
        call.pop("actions_BTA")
    exact = net(x, c_noise, context, **call)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, c_noise, context, **call)
    assert out.dtype == torch.float32
    assert (out - exact).norm() < 0.03 * exact.norm()
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_bfloat16_weights_stay_near_float32():
    net = random_weights(DiT(TINY))
    with torch.no_grad():
        exact = net(*inputs())
        out = net.bfloat16()(*inputs())
    assert out.dtype == torch.float32
    assert (out - exact).norm() < 0.05 * exact.norm()


def test_all_blocks_share_one_graph_with_equal_output():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = random_weights(DiT(TINY.replace(action_dim=7)))
    call = {"fps_B": torch.full((2,), 10.0), "actions_BTA": torch.randn(2, 3, 7)}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        eager = net(*inputs(), **call)
        for block in net.blocks:
            block.compile(dynamic=False, fullgraph=True, backend="aot_eager")
        compiled = net(*inputs(), **call)
    torch.testing.assert_close(compiled, eager, atol=2e-2, rtol=2e-2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("changes", [{}, {"action_dim": 7, "prefix_context": True, "skip_gates": True}])
def test_a_memo_changes_no_number_while_x_and_noise_level_change(changes):
    net = random_weights(DiT(TINY.replace(**changes)))
    call = {"condition_mask_B1THW": given(3), "padding_mask_B1HW": torch.ones(1, 1, 8, 8), "fps_B": torch.tensor([10.0, 24.0])}
    if changes:
        call |= {"actions_BTA": torch.randn(2, 3, 7), "prefix_BCTHW": torch.randn(2, 4, 1, 4, 6)}
    memo = {}
    with torch.no_grad():
        for step in range(PACK_AT_CALL + 1):
            x, c_noise, context = inputs(seed=1)
            x, c_noise = x * (1 + step), c_noise - step
            expected = net(x, c_noise, context, **call)
            out = net(x, c_noise, context, **call, memo=memo)
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)  # packed weights add in another order
    assert memo["packed"]


def test_one_noise_level_serves_batch_and_frames():
    net = random_weights(DiT(TINY))
    x, _, context = inputs()
    with torch.no_grad():
        per_sample = net(x, torch.full((2,), 0.3), context)
        torch.testing.assert_close(net(x, torch.full((1,), 0.3), context), per_sample, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(x, torch.full((2, 3), 0.3), context), per_sample, atol=1e-5, rtol=1e-5)
        other = torch.tensor([[-2.0, 0.3, 0.3], [0.3, 0.3, 0.3]])
        changed = net(x, other, context)
    assert (changed[0] - per_sample[0]).abs().max() > 1e-3
    torch.testing.assert_close(changed[1], per_sample[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (2, 2), ()])
def test_noise_levels_of_another_shape_are_refused(shape):
    x, _, context = inputs()
    with pytest.raises(UsageError, match="c_noise must have the shape"):
        DiT(TINY)(x, torch.zeros(shape), context)


def test_checkpoint_folder_round_trips(tmp_path):
    net = random_weights(DiT(TINY.replace(action_dim=7, prefix_context=True, uncertainty=True)))
    save_component(tmp_path / "dit", net, kind="dit", provenance={"seed": 0})
    loaded = load_component(tmp_path / "dit", expect="dit")
    assert loaded.config == net.config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(loaded(*inputs()), net(*inputs()))


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("nano", 0.0065),
        ("7b-text2world", 7.236),
        ("7b-video2world", 7.236),
        ("7b-decoder", 7.2375),
        ("14b-text2world", 14.27),
        ("14b-video2world", 14.27),
        ("predict2-2b-video2world", 1.96),
    ],
)
def test_published_sizes(name, billions):
    with torch.device("meta"):
        net = build_dit(dit_size(name).to_dict())
    assert sum(p.numel() for p in net.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)


def test_nano_fits_its_budget_in_half_precision():
    with torch.device("meta"):
        net = DiT(SIZES["nano"])
    assert 2 * sum(p.numel() for p in net.parameters()) <= 14e6


def test_wrong_shapes_and_sizes_say_what_is_wrong():
    net = DiT(TINY.replace(action_dim=7))
    x, c_noise, context = inputs()
    with pytest.raises(UsageError, match="4 channels, not 3"):
        net(x[:, :3], c_noise, context)
    with pytest.raises(UsageError, match="do not divide into patches"):
        net(x[..., :5], c_noise, context)
    with pytest.raises(UsageError, match="context rows of width 20, not 19"):
        net(x, c_noise, context[..., 1:])
    with pytest.raises(UsageError, match=r"\(3, 7\) per sample, not \(2, 7\)"):
        net(x, c_noise, context, actions_BTA=torch.zeros(2, 2, 7))
    with pytest.raises(UsageError, match="covers 6 patch frames, but the clip has 7"):
        net(torch.zeros(1, 4, 7, 4, 6), c_noise[:1], context[:1])
    with pytest.raises(ConfigError, match="7b-text2world"):
        dit_size("7b-text-2-world")
    with pytest.raises(ConfigError, match="not a multiple of num_heads"):
        build_dit({"model_channels": 64, "num_heads": 3})
