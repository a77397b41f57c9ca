"""The adapter of suites that step in tensors, held against Stable-Baselines3's own vectorised environments."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from difftori_gym.wrappers import SingleEnv, TensorStep, TensorVecEnv, host_copy
from difftori_gym.wrappers.episode_statistics import EpisodeStatistics


class DictAndSuccess(gym.Wrapper):
    """A vector, an image and a success flag, as manipulation suites give them."""

    def __init__(self, env):
        super().__init__(env)
        image = spaces.Box(0, 255, (3, 36, 36), np.uint8)
        self.observation_space = spaces.Dict({"state": env.observation_space, "image": image})

    def show(self, state):
        return {"state": state, "image": np.full((3, 36, 36), int(100 * abs(state[1])) % 256, np.uint8)}

    def reset(self, **kwargs):
        state, info = self.env.reset(**kwargs)
        return self.show(state), info

    def step(self, action):
        state, reward, terminated, truncated, info = self.env.step(action)
        # Solved for a moment only: the flag has to last.
        return self.show(state), reward, terminated, truncated, {**info, "is_success": bool(abs(state[1]) > 0.01)}


def car(steps=200):
    return TimeLimit(gym.make("MountainCarContinuous-v0").unwrapped, steps)


def dict_car():
    return DictAndSuccess(car(60))


def both(make, batch_of_envs, count=3, seed=5):
    """The same environments behind this adapter and behind Stable-Baselines3's."""
    reference = DummyVecEnv([lambda: Monitor(make()) for _ in range(count)])
    reference.seed(seed)
    return TensorVecEnv(batch_of_envs([make() for _ in range(count)]), seed=seed), reference


def assert_equal(one, other):
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in other:
            assert_equal(one[key], other[key])
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", [car, dict_car])
def test_a_learner_of_sb3_sees_what_it_sees_in_a_dummy_vec_env(make, batch_of_envs):
    vec_env, reference = both(make, batch_of_envs)
    observations, expected = vec_env.reset(), reference.reset()
    assert_equal(observations, expected)
    kinds = set()
    for _ in range(260):
        velocity = (expected["state"] if isinstance(expected, dict) else expected)[:, 1:]
        # Swinging up ends by termination; the second environment idles into its time limit.
        actions = np.sign(velocity + 1e-9).astype(np.float32) * np.array([[1.0], [0.0], [0.9]], np.float32)
        observations, rewards, dones, infos = vec_env.step(actions)
        expected, expected_rewards, expected_dones, expected_infos = reference.step(actions)
        assert_equal(observations, expected)
        assert_equal(rewards, expected_rewards)
        assert_equal(dones, expected_dones)
        for info, expected_info in zip(infos, expected_infos, strict=True):
            assert info["TimeLimit.truncated"] == expected_info["TimeLimit.truncated"]
            assert ("episode" in info) == ("episode" in expected_info)
            if "episode" in info:
                kinds.add(info["TimeLimit.truncated"])
                assert_equal(info["terminal_observation"], expected_info["terminal_observation"])
                assert info["episode"]["l"] == expected_info["episode"]["l"]
                assert info["episode"]["r"] == pytest.approx(expected_info["episode"]["r"], abs=1e-4)
    assert kinds == ({True} if make is dict_car else {False, True})


def test_success_lasts_until_the_episode_ends(batch_of_envs):
    vec_env, reference = both(dict_car, batch_of_envs, count=2)
    observations = vec_env.reset()
    reference.reset()
    momentary, latched = [], []
    for _ in range(60):
        actions = np.sign(observations["state"][:, 1:] + 1e-9)
        observations, _, dones, infos = vec_env.step(actions)
        momentary.append([info["is_success"] for info in reference.step(actions)[3]])
        latched.append([info["is_success"] for info in infos])
    assert dones.all()
    np.testing.assert_array_equal(latched, np.maximum.accumulate(momentary, axis=0))
    assert not np.array_equal(latched, momentary)
    assert not any(info["is_success"] for info in vec_env.step(np.zeros((2, 1)))[3])


def test_each_step_makes_one_copy_to_the_host(batch_of_envs, monkeypatch):
    sizes = []

    def counted(packed, original=host_copy._to_host):
        sizes.append(packed.numel())
        return original(packed)

    monkeypatch.setattr(host_copy, "_to_host", counted)
    vec_env, _ = both(dict_car, batch_of_envs)
    vec_env.reset()
    assert len(sizes) == 1
    for step in range(61):
        _, _, dones, _ = vec_env.step(np.zeros((3, 1)))
        assert len(sizes) == step + 2
        assert dones.all() == (step == 59)
    observation = 3 * 36 * 36 + 2 * 4
    assert sizes[0] == 3 * observation
    # Twice the observation, for the end of an episode; reward, frames, return, length, three flags.
    assert sizes[1] == 3 * (2 * observation + 4 + 4 + 8 + 8 + 3)


def test_the_tensor_path_copies_only_flags_and_statistics(batch_of_envs, monkeypatch):
    sizes = []

    def counted(packed, original=host_copy._to_host):
        sizes.append(packed.numel())
        return original(packed)

    monkeypatch.setattr(host_copy, "_to_host", counted)
    vec_env, reference = both(car, batch_of_envs)
    first = vec_env.reset_tensor()
    assert_equal(first.numpy(), reference.reset())
    assert vec_env.observations is first
    step = vec_env.step_tensor(torch.zeros(3, 1))
    expected = reference.step(np.zeros((3, 1)))
    assert sizes == []
    assert_equal(step.observations.numpy(), expected[0])
    assert_equal(step.rewards.numpy(), expected[1])
    assert vec_env.observations is step.observations
    dones, infos = vec_env.episode_infos()
    assert not dones.any()
    assert [info["frames"] for info in infos] == [1, 1, 1]
    assert sizes == [3 * (8 + 8 + 1 + 1 + 4)]


def test_arrays_of_one_step_are_not_changed_by_the_next(batch_of_envs):
    vec_env, _ = both(car, batch_of_envs)
    vec_env.reset()
    observations, rewards, _, _ = vec_env.step(np.ones((3, 1)))
    kept = observations.copy(), rewards.copy()
    for _ in range(5):
        vec_env.step(-np.ones((3, 1)))
    assert_equal(observations, kept[0])
    assert_equal(rewards, kept[1])


def test_seeds_repeat_and_run_out(batch_of_envs):
    vec_env, _ = both(car, batch_of_envs)
    first, later = vec_env.reset(), vec_env.reset()
    assert not np.array_equal(first, later)
    assert vec_env.seed(5) == [5, 6, 7]
    np.testing.assert_array_equal(vec_env.reset(), first)
    np.testing.assert_array_equal(vec_env.reset(), later)


def test_attributes_and_methods_belong_to_all_environments(batch_of_envs):
    vec_env, _ = both(car, batch_of_envs)
    assert vec_env.get_attr("shared") == [1, 1, 1]
    assert vec_env.get_attr("shared", indices=[0, 2]) == [1, 1]
    vec_env.set_attr("shared", 7)
    assert vec_env.get_attr("shared", indices=1) == [7]
    assert vec_env.env_method("double", 4) == [8, 8, 8]
    assert not vec_env.has_attr("nothing")
    assert vec_env.env_is_wrapped(Monitor) == [True] * 3
    assert vec_env.env_is_wrapped(TimeLimit, indices=0) == [False]
    with pytest.raises(ValueError, match=r"expected indices=None, got \[0\]"):
        vec_env.set_attr("shared", 1, indices=[0])
    with pytest.raises(ValueError, match="share one simulation"):
        vec_env.env_method("double", 4, indices=2)


def test_wrong_calls_say_what_was_expected(batch_of_envs):
    vec_env, _ = both(car, batch_of_envs)
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        _ = vec_env.observations
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        vec_env.step(np.zeros((3, 1)))
    vec_env.reset()
    with pytest.raises(ValueError, match=r"actions of shape \(3, 1\), got \(2, 1\)"):
        vec_env.step(np.zeros((2, 1)))
    vec_env.set_options({"low": 0.0})
    with pytest.raises(ValueError, match="takes no reset options"):
        vec_env.reset()
    with pytest.raises(ValueError, match="num_envs >= 1, got 0"):
        type(vec_env.batch).__mro__[1].__init__(vec_env.batch, 0, vec_env.observation_space, None, device="cpu")
    with pytest.raises(ValueError, match="render_mode None or 'rgb_array', got 'human'"):
        batch_of_envs([car()], render_mode="human")


def test_a_reward_that_is_no_number_ends_with_its_episode():
    def step(reward, done):
        flags = torch.tensor([done, False])
        shown, frames = torch.zeros(2, 1), torch.ones(2, dtype=torch.int32)
        return TensorStep(shown, torch.tensor([reward, 1.0]), flags, torch.zeros_like(flags), shown, frames)

    statistics = EpisodeStatistics(2, torch.device("cpu"))
    assert statistics.add(step(float("nan"), True)).returns.isnan().tolist() == [True, False]
    assert statistics.add(step(2.0, False)).returns.tolist() == [2.0, 2.0]


def test_images_of_all_environments_are_tiled(batch_of_envs):
    envs = [gym.make("Pendulum-v1", render_mode="rgb_array") for _ in range(3)]
    vec_env = TensorVecEnv(batch_of_envs(envs, render_mode="rgb_array"), seed=0)
    vec_env.reset()
    single = envs[0].render()
    tiled = vec_env.render()
    assert tiled.shape == (2 * single.shape[0], 2 * single.shape[1], 3)
    np.testing.assert_array_equal(tiled[: single.shape[0], : single.shape[1]], single)
    vec_env.close()
    vec_env.close()


def test_sb3_algorithms_train_and_are_evaluated(batch_of_envs):
    vec_env, _ = both(dict_car, batch_of_envs, count=2)
    sac = SAC(
        "MultiInputPolicy", vec_env, learning_starts=10, batch_size=4, buffer_size=200, policy_kwargs={"net_arch": [8]}
    )
    sac.learn(130)
    assert len(sac.ep_info_buffer) == 2
    assert sac.replay_buffer.timeouts.sum() == 2
    PPO("MultiInputPolicy", vec_env, n_steps=8, batch_size=8, n_epochs=1).learn(16)
    returns, lengths = evaluate_policy(sac, vec_env, n_eval_episodes=2, return_episode_rewards=True)
    assert lengths == [60, 60]
    assert np.isfinite(returns).all()


def test_vec_normalize_sees_the_last_observation_of_an_episode(batch_of_envs):
    vec_env, reference = both(car, batch_of_envs, count=2)
    normalized, expected = VecNormalize(vec_env), VecNormalize(reference)
    np.testing.assert_array_equal(normalized.reset(), expected.reset())
    for _ in range(201):
        _, _, _, infos = normalized.step(np.zeros((2, 1), np.float32))
        _, _, _, expected_infos = expected.step(np.zeros((2, 1), np.float32))
        for info, expected_info in zip(infos, expected_infos, strict=True):
            if "terminal_observation" in expected_info:
                np.testing.assert_array_equal(info["terminal_observation"], expected_info["terminal_observation"])
    np.testing.assert_array_equal(normalized.obs_rms.mean, expected.obs_rms.mean)


def test_one_environment_is_a_gymnasium_environment(batch_of_envs):
    env = SingleEnv(batch_of_envs([car(40)]))
    check_env(env, warn=False)
    reference = car(40)
    observation, _ = env.reset(seed=3)
    np.testing.assert_array_equal(observation, reference.reset(seed=3)[0])
    for step in range(40):
        observation, reward, terminated, truncated, info = env.step(np.array([0.5], np.float32))
        expected = reference.step(np.array([0.5], np.float32))
        np.testing.assert_array_equal(observation, expected[0])
        assert reward == pytest.approx(expected[1])
        assert (terminated, truncated, info["frames"]) == (False, step == 39, 1)
    assert SingleEnv(batch_of_envs([dict_car()])).reset(seed=0)[0]["image"].dtype == np.uint8
    with pytest.raises(ValueError, match="batch of one environment, got 2"):
        SingleEnv(batch_of_envs([car(), car()]))


def test_any_mixture_of_types_survives_one_copy():
    tensors = {
        "flags": torch.tensor([True, False, True]),
        "image": torch.arange(12, dtype=torch.uint8).reshape(3, 4).T,
        "double": torch.rand(3, dtype=torch.float64),
        "float": torch.rand(2, 3)[:, ::2],
        "int": torch.tensor(-5),
        "half": torch.rand(5, dtype=torch.float16),
        "none": torch.zeros(0, 3),
    }
    host = host_copy.copy_to_host(tensors)
    assert list(host) != []
    for name, tensor in tensors.items():
        assert_equal(host[name], tensor.numpy())
    with pytest.raises(ValueError, match=r"got torch.bfloat16 in 'x'"):
        host_copy.copy_to_host({"x": torch.zeros(1, dtype=torch.bfloat16)})
