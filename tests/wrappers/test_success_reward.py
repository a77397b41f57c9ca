"""A reward of success alone."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.wrappers import ActionRepeat, EpisodeSuccess, SuccessReward
from difftori_gym.wrappers.success import step_success


class Solved(gym.Env):
    """Rewards 5 and is solved at these steps; tells it under this key."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, steps=(2, 3), key="success"):
        self.steps, self.key = steps, key

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        info = {} if self.key is None else {self.key: float(self.t in self.steps)}
        return np.zeros(1, np.float32), 5.0, False, self.t >= 6, info


def rewards(env):
    env.reset()
    steps = []
    while not steps or not steps[-1][3]:
        steps.append(env.step(np.zeros(1, np.float32)))
    return [step[1] for step in steps], [step[4] for step in steps]


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_each_step_that_leads_there_is_worth_one(key):
    env = EpisodeSuccess(SuccessReward(ActionRepeat(Solved(key=key), 1)))
    earned, infos = rewards(env)
    assert earned == [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert [info["is_success"] for info in infos] == [False, True, True, True, True, True]
    assert [step_success(info) for info in infos] == [False, True, True, False, False, False]
    assert env.get_wrapper_attr("rewards_success_alone")


def test_a_repeated_action_is_worth_one_at_most():
    assert rewards(SuccessReward(ActionRepeat(Solved((1, 2, 5)), 2)))[0] == [1.0, 0.0, 0.0]


def test_an_environment_that_does_not_tell_success_is_refused():
    with pytest.raises(ValueError, match="expects an environment whose steps tell success"):
        rewards(SuccessReward(Solved(key=None)))
