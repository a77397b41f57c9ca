"""StateObservation on the kinds of spaces that suites hand out."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.wrappers import StateObservation


class Observed(gym.Env):
    """Returns samples of any observation space."""

    def __init__(self, space):
        self.observation_space = space
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.given = self.observation_space.sample()
        return self.given, {}

    def step(self, action):
        self.given = self.observation_space.sample()
        return self.given, 0.0, False, False, {}


def box(shape, dtype=np.float64):
    return spaces.Box(-np.inf, np.inf, shape, dtype)


def test_dict_with_a_scalar_entry_becomes_one_float32_vector():
    env = StateObservation(Observed(spaces.Dict(position=box((2, 2)), height=box(()), velocity=box((3,)))))
    observation, _ = env.reset()
    given = env.unwrapped.given
    expected = np.concatenate([np.ravel(given[key]) for key in env.unwrapped.observation_space])
    assert env.observation_space.shape == (8,)
    assert env.observation_space.dtype == np.float32
    assert env.observation_space.contains(observation)
    np.testing.assert_allclose(observation, expected.astype(np.float32))
    assert env.observation_space.contains(env.step(np.zeros(1))[0])


def test_bounds_are_kept():
    space = spaces.Box(np.array([-1.0, -8.0]), np.array([1.0, 8.0]), dtype=np.float64)
    env = StateObservation(Observed(space))
    np.testing.assert_array_equal(env.observation_space.low, [-1.0, -8.0])
    np.testing.assert_array_equal(env.observation_space.high, [1.0, 8.0])


def test_discrete_entries_are_one_hot():
    env = StateObservation(Observed(spaces.Tuple((spaces.Discrete(4), box((1,))))))
    observation, _ = env.reset()
    assert observation.shape == (5,)
    assert observation[:4].sum() == 1
    assert observation[env.unwrapped.given[0]] == 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), r"got an image of shape \(84, 84, 3\) at observation"),
        (
            spaces.Dict(state=box((3,)), camera=spaces.Box(0, 255, (8, 8, 3), np.uint8)),
            r"at observation\['camera'\]",
        ),
        (spaces.Text(5), "got Text at observation"),
        (spaces.Dict(inner=spaces.Dict(words=spaces.Text(5))), r"got Text at observation\['inner'\]\['words'\]"),
        (spaces.Sequence(box((2,))), "got Sequence"),
    ],
)
def test_what_is_no_vector_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        StateObservation(Observed(space))
