"""SeedFirstReset: the first reset is seeded, the stream goes on from there."""

import gymnasium as gym
import numpy as np
import pytest

from difftori_gym.wrappers import SeedFirstReset


def starts(env, resets):
    return np.array([env.reset()[0] for _ in range(resets)])


def test_two_environments_with_one_seed_are_identical():
    first, second = (SeedFirstReset(gym.make("Pendulum-v1"), 7) for _ in range(2))
    np.testing.assert_array_equal(starts(first, 3), starts(second, 3))
    assert first.action_space.sample() == second.action_space.sample()


def test_later_resets_continue_the_stream():
    states = starts(SeedFirstReset(gym.make("Pendulum-v1"), 7), 3)
    assert len(np.unique(states, axis=0)) == 3
    reference = gym.make("Pendulum-v1")
    np.testing.assert_array_equal(states[0], reference.reset(seed=7)[0])
    np.testing.assert_array_equal(states[1], reference.reset()[0])


def test_seeds_differ():
    assert not np.array_equal(
        starts(SeedFirstReset(gym.make("Pendulum-v1"), 1), 1), starts(SeedFirstReset(gym.make("Pendulum-v1"), 2), 1)
    )


def test_a_seed_given_to_reset_takes_its_place():
    env = SeedFirstReset(gym.make("Pendulum-v1"), 7)
    reference = gym.make("Pendulum-v1")
    np.testing.assert_array_equal(env.reset(seed=3)[0], reference.reset(seed=3)[0])
    np.testing.assert_array_equal(env.reset()[0], reference.reset()[0])


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="seed >= 0, or None, got -1"):
        SeedFirstReset(gym.make("Pendulum-v1"), -1)
