"""ActionRepeat on an environment whose rewards are known by heart."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from difftori_gym.wrappers import ActionRepeat

ACTION = np.zeros(1, dtype=np.float32)


class Counting(gym.Env):
    """Reward k at frame k; ends at ``length``; succeeds at ``success_at`` only."""

    metadata = {"render_modes": [], "render_fps": 60}  # noqa: RUF012

    def __init__(self, length=10, *, truncate=False, success_at=None):
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.truncate, self.success_at = length, truncate, success_at
        self.frame = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.frame = 0
        return np.zeros(1), {}

    def step(self, action):
        self.frame += 1
        over = self.frame >= self.length
        info = {} if self.success_at is None else {"is_success": self.frame == self.success_at}
        observation = np.array([float(self.frame)])
        return observation, float(self.frame), over and not self.truncate, over and self.truncate, info


def test_rewards_are_summed_and_the_last_observation_is_returned():
    env = ActionRepeat(Counting(), 4)
    env.reset()
    observation, reward, terminated, truncated, info = env.step(ACTION)
    assert observation == [4.0]
    assert reward == 1 + 2 + 3 + 4
    assert not terminated
    assert not truncated
    assert info["frames"] == 4


@pytest.mark.parametrize("truncate", [False, True])
def test_the_repetition_stops_at_the_end_of_the_episode(truncate):
    env = ActionRepeat(Counting(length=10, truncate=truncate), 4)
    env.reset()
    steps = [env.step(ACTION) for _ in range(3)]
    observation, reward, terminated, truncated, _info = steps[-1]
    assert env.unwrapped.frame == 10
    assert observation == [10.0]
    assert reward == 9 + 10
    assert (terminated, truncated) == (not truncate, truncate)
    assert [step[-1]["frames"] for step in steps] == [4, 4, 2]


def test_success_in_any_frame_counts():
    env = ActionRepeat(Counting(success_at=2), 4)
    env.reset()
    assert env.step(ACTION)[-1]["is_success"] is True
    assert env.step(ACTION)[-1]["is_success"] is False


def test_no_success_is_invented():
    env = ActionRepeat(Counting(), 4)
    env.reset()
    assert "is_success" not in env.step(ACTION)[-1]


def test_one_repeat_changes_nothing_but_the_count():
    env = ActionRepeat(Counting(), 1)
    env.reset()
    observation, reward, _, _, info = env.step(ACTION)
    assert (observation, reward, info) == ([1.0], 1.0, {"frames": 1})


def test_a_film_of_agent_steps_plays_in_real_time():
    assert ActionRepeat(Counting(), 4).metadata["render_fps"] == 15
    assert Counting.metadata["render_fps"] == 60


@pytest.mark.parametrize("num_repeats", [0, -1])
def test_fewer_than_one_repeat_is_refused(num_repeats):
    with pytest.raises(ValueError, match=f"num_repeats >= 1, got {num_repeats}"):
        ActionRepeat(Counting(), num_repeats)
