"""Actions per latent frame, by a hand-made example and by an identity."""

import torch

from worldfoundry.conditioning.action import ActionAdapter, action_features, group_actions


def test_group_actions_by_hand():
    """9 frames, compression 4: latent 0 covers frame 0, latents 1 and 2 the frames 1-4 and 5-8."""
    actions = torch.arange(1.0, 10.0).view(1, 9, 1)  # action f is f + 1; the last drives no frame
    grouped = group_actions(actions, 4)
    assert grouped.shape == (1, 3, 8)
    # Pairs (action that leads to the frame, sum of actions so far).
    assert grouped[0, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 0]
    assert grouped[0, 1].tolist() == [1, 1, 2, 3, 3, 6, 4, 10]
    assert grouped[0, 2].tolist() == [5, 15, 6, 21, 7, 28, 8, 36]


def test_future_actions_do_not_reach_past_latents():
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(2, 17, 3, generator=generator)
    changed = actions.clone()
    changed[:, 8:] += 1
    grouped, other = group_actions(actions, 4), group_actions(changed, 4)
    assert torch.equal(grouped[:, :3], other[:, :3])
    assert not torch.equal(grouped[:, 3], other[:, 3])


def test_uncompressed_and_overhanging_frames():
    actions = torch.randn(1, 5, 2)
    single = group_actions(actions, 1)
    assert single.shape == (1, 5, 4)
    assert torch.equal(single[0, 1:, :2], actions[0, :-1])
    assert torch.equal(group_actions(torch.cat([actions, actions], 1)[:, :8], 4), group_actions(actions, 4))


def test_features_are_free_of_units():
    """Centimetres or metres, the same; sums count latent steps; a number that is always zero stays zero."""
    metres = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0])
    rms = metres.square().mean(dim=(0, 1)).sqrt()
    features = action_features(metres, rms, 4)
    torch.testing.assert_close(features, action_features(100 * metres, 100 * rms, 4))
    assert features.isfinite().all()
    by_frame = features.view(2, 3, 4, 2, 3)
    torch.testing.assert_close(by_frame[:, 1, 0, 0], metres[:, 0] / rms.clamp(min=1e-9))
    torch.testing.assert_close(by_frame[:, 2, 3, 1], metres[:, :8].sum(dim=1) / rms.clamp(min=1e-9) / 4)


def test_fresh_adapter_adds_nothing():
    adapter = ActionAdapter(6, 16)
    adapter.init_weights(torch.Generator().manual_seed(0))
    to_tokens, to_modulation = adapter(torch.randn(2, 3, 6))
    assert to_tokens.shape == (2, 3, 1, 16)
    assert to_modulation.shape == (2, 3, 1, 48)
    assert not to_tokens.any()
    assert not to_modulation.any()
