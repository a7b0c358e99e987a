"""The pusher's world: deterministic, mirror symmetric, always in view, and it obeys its commands."""

from collections.abc import Callable

import numpy as np
import pytest

from worldfoundry.simulation.pusher import (
    FPS,
    MIRROR_ACTION,
    MIRROR_STATE,
    REACH,
    Driver,
    Start,
    caption,
    draw_start,
    in_reach,
    rollout,
    run_episode,
)

pytestmark = pytest.mark.sim
ALONE = Start(state=(-0.6, -0.6, 0.4, 0.4, 0.0), block="green")


def replay(actions) -> Callable[[np.ndarray], np.ndarray]:
    remaining = iter(actions)
    return lambda _state: next(remaining)


@pytest.fixture(scope="module")
def episodes(world):
    return [run_episode(world, 120, (5, i)) for i in range(6)]


def test_the_same_seed_gives_the_same_states_and_pixels(world, episodes):
    again = run_episode(world, 120, (5, 2))
    np.testing.assert_array_equal(again.states, episodes[2].states)
    np.testing.assert_array_equal(again.frames, episodes[2].frames)
    assert not np.array_equal(episodes[2].states, episodes[3].states)


def test_replaying_the_stored_actions_gives_the_episode_again(world, episodes):
    start = draw_start(np.random.default_rng((5, 1)))
    again = rollout(world, start, replay(episodes[1].actions), 120)
    np.testing.assert_array_equal(again.states, episodes[1].states)
    np.testing.assert_array_equal(again.frames, episodes[1].frames)


@pytest.mark.parametrize("index", range(3))
def test_the_mirrored_world_is_the_mirrored_picture(world, episodes, index):
    start, episode = draw_start(np.random.default_rng((5, index))), episodes[index]
    mirrored = rollout(world, start.mirrored(), replay(episode.actions * np.array(MIRROR_ACTION, np.float32)), 60)
    np.testing.assert_array_equal(mirrored.states * np.array(MIRROR_STATE, np.float32), episode.states[:60])
    difference = np.abs(mirrored.frames[:, :, ::-1].astype(int) - episode.frames[:60])
    # Multisampling is not symmetric, so outlines differ; nothing else may.
    assert difference.mean() < 0.6
    assert (difference > 12).mean() < 0.02
    unmirrored = np.abs(episode.frames[:60, :, ::-1].astype(int) - episode.frames[:60])
    assert unmirrored.mean() > 10 * difference.mean()


def test_an_unhindered_rod_goes_where_it_is_told(world):
    velocity = np.array([1.5, -0.3])
    episode = rollout(world, ALONE, lambda _state: velocity, 8)
    moved = (episode.states[7, :2] - episode.states[1, :2]) * FPS / 6
    np.testing.assert_allclose(moved, velocity, atol=0.02)
    np.testing.assert_array_equal(episode.states[:, 2:], np.tile(np.array(ALONE.state[2:], np.float32), (8, 1)))


def test_without_commands_nothing_moves(world):
    episode = rollout(world, ALONE, lambda _state: np.zeros(2), 10)
    assert (episode.frames == episode.frames[0]).all()
    assert "stays still" in episode.caption


def test_rails_hold_the_block_and_everything_stays_in_reach(episodes):
    states = np.concatenate([episode.states for episode in episodes])
    assert np.abs(states[:, 2:4]).max() < 0.6
    assert np.abs(states[:, :2]).max() < REACH + 0.05


def test_the_rod_is_in_every_picture(episodes):
    frames = np.concatenate([episode.frames for episode in episodes]).astype(int)
    magenta = np.minimum(frames[..., 0], frames[..., 2]) - frames[..., 1] > 60
    assert magenta.sum((1, 2)).min() >= 20
    assert not magenta[:, [0, -1]].any()
    assert not magenta[:, :, [0, -1]].any()


def test_there_is_motion_to_learn_from(episodes):
    pusher, block = (np.concatenate([np.diff(e.states[:, i : i + 2], axis=0) for e in episodes]) for i in (0, 2))
    assert (np.linalg.norm(pusher, axis=1) > 0.05).mean() > 0.7
    assert (np.linalg.norm(block, axis=1) > 0.01).mean() > 0.2


def test_commands_are_held_for_four_to_seven_frames_unless_held_up():
    driver = Driver(np.random.default_rng(0))
    pusher, far_block = np.zeros(2), np.array([9.0, 9.0, 0.0])
    actions = []
    for _ in range(300):
        actions.append(driver(np.concatenate([pusher, far_block])))
        pusher = pusher + actions[-1] / FPS
        assert in_reach(pusher)
    changes = np.flatnonzero(np.any(np.diff(actions, axis=0) != 0, axis=1))
    assert set(np.diff(changes).tolist()) <= {4, 5, 6, 7} | {n for n in range(8, 15)}  # two equal (zero) commands in a row
    assert {4, 5, 6, 7} <= set(np.diff(changes).tolist())


def test_a_rod_that_is_held_up_turns_away():
    driver = Driver(np.random.default_rng(1))
    state = np.array([0.0, 0.3, 0.0, 0.0, 0.0])
    driver.velocity, driver.left = np.array([0.0, -2.0]), 7
    actions = [driver(state) for _ in range(4)]
    assert (actions[1] == [0.0, -2.0]).all()
    assert actions[-1] @ (state[2:4] - state[:2]) <= 0


def test_captions_tell_what_happened():
    still = np.zeros((5, 5))
    pushed, turned = still.copy(), still.copy()
    pushed[-1, 2], turned[-1, 4] = 0.1, 0.2
    assert caption(still, "blue") == "A magenta pusher moves on a checkered table beside a blue block that stays still."
    for states in (pushed, turned):
        assert caption(states, "green") == "A magenta pusher moves on a checkered table and pushes a green block."
