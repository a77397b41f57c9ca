"""Numbers that have nothing to do with the task."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from difftori_gym import make_env
from difftori_gym.wrappers import Distractors
from difftori_gym.wrappers.snapshot import restore_env, save_env

TASK = "Pendulum-v1"
KINDS = dict(noise=3, pendulums=2)


def episode(env, actions, seed=None):
    steps = [env.reset(seed=seed)[0]]
    return np.stack(steps + [env.step(action)[0] for action in actions])


@pytest.fixture
def actions():
    return np.random.default_rng(0).uniform(-1, 1, (40, 1)).astype(np.float32)


def test_the_environment_inside_is_the_same(actions):
    plain, env = make_env(TASK, seed=3), make_env(TASK, seed=3, obs_kwargs=KINDS)
    assert env.observation_space.shape == (plain.observation_space.shape[0] + 3 + 6,)
    for _ in range(2):  # the second episode continues the stream
        alone, seen = episode(plain, actions), episode(env, actions)
        np.testing.assert_array_equal(seen[:, :3], alone)
    assert all(env.observation_space.contains(each) for each in seen)


def test_what_is_appended_depends_on_the_seed_alone(actions):
    first, again, other = (episode(make_env(TASK, seed=seed, obs_kwargs=KINDS), actions)[:, 3:] for seed in (1, 1, 2))
    still = episode(make_env(TASK, seed=1, obs_kwargs=KINDS), np.zeros_like(actions))[:, 3:]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, still)
    assert (first[:, :3] != other[:, :3]).all()
    assert not np.array_equal(first[:, 3:], other[:, 3:])


def test_noise_is_white_and_pendulums_swing():
    env = make_env(TASK, seed=0, obs_kwargs=KINDS)
    seen = episode(env, np.zeros((199, 1), np.float32))[:, 3:]
    noise, pendulums = seen[:, :3], seen[:, 3:].reshape(200, 2, 3)
    assert np.abs(noise.mean(0)).max() < 0.3
    assert np.abs(noise.std(0) - 1).max() < 0.2
    assert np.abs((noise[1:] * noise[:-1]).mean(0)).max() < 0.3
    np.testing.assert_allclose(np.linalg.norm(pendulums[..., :2], axis=-1), 1.0, rtol=1e-5)
    angle, speed = np.arctan2(pendulums[..., 1], pendulums[..., 0]), pendulums[..., 2]
    turned = np.mod(np.diff(angle, axis=0) + np.pi, 2 * np.pi) - np.pi
    np.testing.assert_allclose(turned, 0.05 * speed[1:], atol=1e-4)
    assert speed.std(0).min() > 0.5
    assert not np.allclose(speed[:, 0], speed[:, 1])


def test_a_snapshot_goes_on(actions):
    env, twin = (make_env(TASK, seed=0, obs_kwargs=KINDS) for _ in range(2))
    episode(env, actions)
    state = save_env(env)
    expected = np.stack([env.step(action)[0] for action in actions])
    twin.reset()
    restore_env(twin, state)
    np.testing.assert_array_equal(np.stack([twin.step(action)[0] for action in actions]), expected)


def test_stable_baselines3_takes_it():
    with pytest.warns(UserWarning, match="symmetric and normalized"):  # of the pendulum's torque
        check_env(make_env(TASK, obs_kwargs=KINDS))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"needs noise >= 0 and pendulums >= 0, got -1 and 0\."):
        make_env(TASK, obs_kwargs=dict(noise=-1))
    with pytest.raises(ValueError, match="Put it around StateObservation"):
        Distractors(gym.make("FrozenLake-v1"), noise=1)
    with pytest.raises(ValueError, match=r"Unknown obs_kwargs 'pendulum' of obs='state'\. Choices: noise, pendulums\."):
        make_env(TASK, obs_kwargs=dict(pendulum=1))
