"""Evaluation against episodes run by hand."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.envs import make_env, make_vec_env
from difftori_gym.evaluation import evaluate


class Walk(gym.Env):
    """Starts at a drawn length, counts down by one per step, pays one per step, succeeds from long starts."""

    def __init__(self):
        self.observation_space = spaces.Box(0.0, 100.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length = self.left = int(self.np_random.integers(2, 12))
        return self._observe(), {}

    def step(self, action):
        self.left -= 1
        return self._observe(), 1.0, self.left == 0, False, {"is_success": self.length > 6}

    def _observe(self):
        return np.array([self.left], dtype=np.float32)


class Counter:
    """A stateful policy: its state counts the steps since ``episode_start``."""

    def __init__(self):
        self.seen = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        state = np.zeros(len(observation)) if state is None else state
        state = np.where(episode_start, 0, state) + 1
        self.seen.append((state.copy(), deterministic))
        return np.zeros((len(observation), 1), dtype=np.float32), state


@pytest.fixture(scope="module")
def model():
    return SAC("MlpPolicy", make_vec_env("Pendulum-v1", seed=0), policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")


def by_hand(model, seed):
    env = make_env("Pendulum-v1")
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(model.predict(observation, deterministic=True)[0])
        total += reward
        over = terminated or truncated
    return total


@pytest.mark.parametrize("n_envs", [1, 2, 3])
def test_returns_equal_those_by_hand_whatever_the_number_of_environments(model, n_envs):
    evaluation = evaluate(model, make_vec_env("Pendulum-v1", n_envs), n_episodes=3, seed=10)
    np.testing.assert_allclose(evaluation.returns, [by_hand(model, seed) for seed in (10, 11, 12)], rtol=1e-4)
    assert evaluation.lengths.tolist() == [200, 200, 200]
    assert evaluation.successes is None
    assert evaluation.success_rate is None
    assert evaluation.mean_return == pytest.approx(evaluation.returns.mean())


def test_a_repeated_evaluation_is_identical(model):
    env = make_vec_env("Pendulum-v1", 2)
    first, second = (evaluate(model, env, n_episodes=2, seed=4).returns for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_it_agrees_with_sb3(model):
    env = make_vec_env("Pendulum-v1", 2, seed=21)
    mine = evaluate(model, make_vec_env("Pendulum-v1", 2, seed=21), n_episodes=2).mean_return
    assert mine == pytest.approx(evaluate_policy(model, env, n_eval_episodes=2)[0], rel=1e-5)


def test_lengths_and_successes_belong_to_their_episodes():
    def length(seed):
        env = Walk()
        env.reset(seed=seed)
        return env.length

    evaluation = evaluate(Counter(), DummyVecEnv([lambda: Monitor(Walk())] * 3), n_episodes=5, seed=0)
    lengths = [length(seed) for seed in range(5)]
    assert evaluation.lengths.tolist() == lengths
    assert evaluation.returns.tolist() == lengths
    assert evaluation.successes.tolist() == [length > 6 for length in lengths]
    assert evaluation.success_rate == np.mean([length > 6 for length in lengths])


def test_the_policy_is_told_where_episodes_start():
    policy = Counter()
    evaluation = evaluate(policy, Walk(), n_episodes=1, seed=0)
    assert [state[0] for state, _ in policy.seen] == list(range(1, evaluation.lengths[0] + 1))
    assert all(deterministic for _, deterministic in policy.seen)


def test_no_episodes_are_refused(model):
    with pytest.raises(ValueError, match="n_episodes >= 1, got 0"):
        evaluate(model, make_vec_env("Pendulum-v1"), n_episodes=0)
