"""Evaluation against episodes run by hand."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.collection.recording import EpisodeRecorder
from difftori_gym.envs import make_env, make_vec_env
from difftori_gym.evaluation import evaluate, run_episodes
from difftori_gym.video import film


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


class Midway(gym.Env):
    """Tells that it is solved at its second step of four and, in the manner of Gymnasium-Robotics, not at its end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, key="is_success", always=True, render_mode=None):
        self.key, self.always, self.render_mode = key, always, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        solved = float(self.steps == 2)
        info = {self.key: solved} if solved or self.always else {}
        return np.zeros(1, np.float32), -1.0, False, self.steps >= 4, info

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def midway_id():
    gym.register("Midway-v0", Midway)
    yield "Midway-v0"
    del gym.registry["Midway-v0"]


KINDS = [{"key": "is_success"}, {"key": "success"}, {"key": "is_success", "always": False}]


@pytest.mark.parametrize("told", KINDS)
@pytest.mark.parametrize("action_repeat", [1, 3])
def test_success_is_one_thing_everywhere(told, action_repeat, midway_id, tmp_path, monkeypatch):
    settings = dict(told, action_repeat=action_repeat)
    assert evaluate(Counter(), make_vec_env(midway_id, 2, **settings), n_episodes=3).success_rate == 1.0
    if action_repeat == 1:
        assert evaluate(Counter(), Midway(**told), n_episodes=1).success_rate == 1.0
    recorder = EpisodeRecorder(make_env(midway_id, **settings))
    recorder.reset()
    while not recorder.ended:
        recorder.step(np.zeros(1))
    assert recorder.episode().success is True
    written = []
    monkeypatch.setattr(film, "write_caption", lambda image, caption: written.append(caption) or image)
    film.record_video(Counter(), make_vec_env(midway_id, render_mode="rgb_array", **settings), tmp_path / "film.gif")
    assert written[-1].solved
    # Stable-Baselines3 reads the last step of an episode.
    model = SAC("MlpPolicy", make_vec_env(midway_id, **settings), policy_kwargs={"net_arch": [8]}, device="cpu")
    callback = EvalCallback(make_vec_env(midway_id, **settings), n_eval_episodes=2, eval_freq=2, verbose=0)
    model.learn(4, callback)
    assert callback._is_success_buffer == [True, True]
    assert set(model.ep_success_buffer) == {True}


def test_an_unsolved_episode_follows_a_solved_one(midway_id):
    env = make_env(midway_id)
    told = []
    for length in (4, 1):  # the second is left at its first step
        env.reset()
        told += [env.step(np.zeros(1))[-1]["is_success"] for _ in range(length)]
    assert told == [False, True, True, True, False]


def test_a_success_is_told_as_soon_as_it_is_known():
    seen = []
    run_episodes(Counter(), DummyVecEnv([Midway]), on_step=lambda episodes: seen.append(episodes[0].success))
    assert seen == [None, False, True, True]


def test_some_episodes_that_tell_nothing_are_not_solved():
    class OnlyWhenSolved(Walk):
        def step(self, action):
            *step, info = super().step(action)
            return (*step, info if info["is_success"] else {})

    env, plain = (DummyVecEnv([lambda kind=kind: Monitor(kind())]) for kind in (OnlyWhenSolved, Walk))
    found = evaluate(Counter(), env, n_episodes=6, seed=0).successes.tolist()
    assert found == evaluate(Counter(), plain, n_episodes=6, seed=0).successes.tolist()
    assert 0 < sum(found) < 6


def test_a_seed_may_be_numpys(model):
    evaluation, expected = (
        evaluate(model, make_env("Pendulum-v1"), n_episodes=1, seed=kind(4)) for kind in (np.int64, int)
    )
    np.testing.assert_array_equal(evaluation.returns, expected.returns)
    with pytest.raises(ValueError, match="evaluate needs seed >= 0, or None, got -1"):
        evaluate(model, make_env("Pendulum-v1"), n_episodes=1, seed=-1)
