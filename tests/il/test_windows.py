"""Windows against their definition, written as a loop; nothing crosses an episode."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from difftori_gym.il import DemonstrationWindows
from difftori_gym.il.windows import join


def expected_windows(lengths, starts, n_obs_steps, horizon, n_action_steps):
    """The definition: first and last element repeated, at most n_action_steps - 1 actions behind the end."""
    for length, start in zip(lengths, starts, strict=True):
        for t in range(length - (horizon - n_action_steps)):
            observations = [start + max(t - back, 0) for back in reversed(range(n_obs_steps))]
            actions = [start + min(t + ahead, length - 1) for ahead in range(horizon)]
            yield observations, actions


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n_obs_steps=st.integers(1, 4),
    horizon=st.integers(1, 9),
    n_action_steps=st.integers(1, 9),
)
def test_windows_are_those_of_the_definition(make_numbered_episode, lengths, n_obs_steps, horizon, n_action_steps):
    horizon = min(horizon, *lengths)
    n_action_steps = min(n_action_steps, horizon)
    starts = [100 * index for index in range(len(lengths))]
    episodes = [make_numbered_episode(length, start) for length, start in zip(lengths, starts, strict=True)]
    windows = DemonstrationWindows(episodes, n_obs_steps=n_obs_steps, horizon=horizon, n_action_steps=n_action_steps)
    expected = list(expected_windows(lengths, starts, n_obs_steps, horizon, n_action_steps))
    assert len(windows) == len(expected)
    batch = windows.batch(np.arange(len(windows)))
    np.testing.assert_array_equal(batch.observations[..., 0], [observations for observations, _ in expected])
    np.testing.assert_array_equal(batch.observations[..., 1], -batch.observations[..., 0])
    np.testing.assert_array_equal(batch.actions[..., 0], np.float32([actions for _, actions in expected]) / 1000)


def test_number_of_windows_is_diffusion_policys(numbered):
    """
    ``create_indices`` of diffusion_policy/common/sampler.py with pad_before = To - 1 and pad_after = Ta - 1: starts
    from -pad_before to T - sequence_length + pad_after, both included.
    """
    n_obs_steps, horizon, n_action_steps = 2, 4, 3
    sequence_length = n_obs_steps - 1 + horizon
    count = sum(
        (len(each) - sequence_length + n_action_steps - 1) - (1 - n_obs_steps) + 1 for each in numbered.episodes
    )
    assert len(numbered.windows(n_obs_steps=2, horizon=4, n_action_steps=3)) == count


def test_dictionaries_and_actions_with_two_axes(numbered):
    episodes = tuple(
        dataclasses.replace(
            each,
            observations={"a": each.observations, "b": each.observations[:, :1].astype(np.uint8)},
            actions=np.broadcast_to(each.actions[:, :, None], (len(each), 2, 3)),
        )
        for each in numbered.episodes
    )
    numbered = dataclasses.replace(
        numbered,
        episodes=episodes,
        observation_space=spaces.Dict(a=numbered.observation_space, b=spaces.Box(0, 255, (1,), np.uint8)),
        action_space=spaces.Box(-1, 1, (2, 3)),
    )
    batch = numbered.windows(n_obs_steps=2, horizon=1, n_action_steps=1).batch(np.array([6, 0]))
    assert batch.observations["a"].shape == (2, 2, 2)
    assert batch.observations["b"].dtype == np.uint8
    np.testing.assert_array_equal(batch.observations["b"][..., 0], [[100, 101], [0, 0]])
    np.testing.assert_array_equal(batch.actions[0, 0], np.full(6, np.float32(0.101)))


def test_sampling_is_repeatable_and_reaches_every_window(numbered):
    windows = numbered.windows(n_obs_steps=2, horizon=2, n_action_steps=1)
    first = windows.sample(500, np.random.default_rng(3))
    again = windows.sample(500, np.random.default_rng(3))
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.actions, windows.batch(first.indices).actions)
    assert set(first.indices) == set(range(len(windows)))


def test_an_episode_shorter_than_the_horizon_is_named(numbered):
    with pytest.raises(ValueError, match=r"numbers.hdf5, episode 1: expected at least horizon=5 actions, got 4"):
        numbered.windows(n_obs_steps=2, horizon=5, n_action_steps=3)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1, 1), "n_obs_steps >= 1, got 0"),
        ((1, 0, 1), "horizon >= 1, got 0"),
        ((1, 2, 3), "n_action_steps <= horizon, got 3 > 2"),
        ((1, 2, 0), "n_action_steps >= 1, got 0"),
    ],
)
def test_settings_out_of_range(numbered, numbers, message):
    with pytest.raises(ValueError, match=message):
        numbered.windows(n_obs_steps=numbers[0], horizon=numbers[1], n_action_steps=numbers[2])


@pytest.mark.parametrize("index", [-1, 16])
def test_a_window_that_is_not_there(numbered, index):
    with pytest.raises(IndexError, match=r"window numbers in \[0, 16\)"):
        numbered.windows(n_obs_steps=1, horizon=1, n_action_steps=1).batch(np.array([index]))


def test_neighbours_in_memory_are_joined_without_a_copy():
    whole = np.arange(20).reshape(10, 2)
    joined = join([whole[1:4], whole[4:9]])
    assert np.shares_memory(joined, whole)
    np.testing.assert_array_equal(joined, whole[1:9])
    for parts in ([whole[1:4], whole[5:9]], [whole[4:9], whole[1:4]], [whole[:4], whole[4:].astype(np.float32)]):
        joined = join(parts)
        assert not np.shares_memory(joined, whole)
        np.testing.assert_array_equal(joined, np.concatenate(parts))
