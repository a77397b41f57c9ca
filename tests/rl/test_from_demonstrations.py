"""Reinforcement that begins with demonstrations: what is learned, what is in a batch, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC, TDMPC2
from difftori_gym.exports import export, export_onnx
from difftori_gym.il import Demonstrations, Episode
from difftori_gym.learning.captured import EagerRecorder, recorded_by
from difftori_gym.observations import map_obs
from difftori_gym.rl.demonstrated_batch import DemonstratedBatch, cloning_loss, joined
from difftori_gym.rl.demonstrations import rewards_of
from difftori_gym.wrappers import ActionRepeat, SuccessReward

TDMPC2_SMALL: dict[str, Any] = dict(
    learning_starts=8,
    batch_size=8,
    gradient_steps=1,
    horizon=3,
    device="cpu",
    seed=0,
    exploration_kwargs=dict(catch_up=False),
    planner_kwargs=dict(max_iterations=2, num_samples=24, num_elites=4, num_prior_samples=4),
    policy_kwargs=dict(net_arch=[16], latent_dim=8),
)


def shown_in(env: gym.Env, count: int = 6, after: int = 0) -> Demonstrations:
    """A point that goes to the origin as fast as it can; steps that end there are successes, but for the first."""
    episodes = []
    for seed in range(count):
        observations, actions, rewards, over, fell = [env.reset(seed=seed)[0]], [], [], False, False
        while not over and not fell:
            centred = np.clip(-2.0 * env.unwrapped.x, -1.0, 1.0)
            action = np.full(env.action_space.shape, 1.5 * centred - 0.5, env.action_space.dtype)
            observation, reward, fell, over, _ = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(reward)
        stacked = map_obs(lambda *each: np.stack(each), *observations)
        successes = np.abs(np.array(rewards)) < 0.1
        successes[:after] = False
        episodes.append(
            Episode(
                stacked, np.array(actions), np.array(rewards), fell, over, bool(successes.any()), seed, "", successes
            )
        )
    return Demonstrations(tuple(episodes), env.observation_space, env.action_space)


def prior_return(model: DiffTORI, env: gym.Env) -> float:
    """Mean return of the prior's own actions."""
    total = 0.0
    for seed in range(10):
        observation, _ = env.reset(seed=100 + seed)
        over = False
        while not over:
            with torch.no_grad():
                scaled = model.policy.model.pi(model.policy.encode(model.policy.obs_to_tensor(observation)[0]))
            observation, reward, _, over, _ = env.step(model.policy.unscale_action(scaled.numpy()[0]))
            total += float(reward)
    return total / 10


def made(name: str, difftori: Any, env: Any, **settings: Any) -> DiffTORI:
    if name == "tdmpc2":
        return TDMPC2("MlpPolicy", env, **{**TDMPC2_SMALL, **settings})
    planner = dict(max_iterations=2, num_samples=24, num_elites=4, mixture_coef=0.2)
    own: dict[str, Any] = {} if name == "difftori" else dict(cls=TDMPC, settings=dict(planner_kwargs=planner))
    return replace(difftori, **own).make(env, **settings)


@pytest.mark.parametrize("name", ["difftori", "tdmpc", "tdmpc2"])
def test_pretraining_alone_clones_and_plans(name, difftori, point_env):
    model, env = made(name, difftori, point_env(), batch_size=32), point_env()
    untrained = prior_return(model, env)
    model.learn_from(shown_in(point_env()), 300)
    shown = np.mean([episode.rewards.sum() for episode in shown_in(point_env(), 10).episodes])
    assert prior_return(model, env) > shown - 1.0 > untrained + 1.0
    assert evaluate_policy(model, DummyVecEnv([point_env]), 10, warn=False)[0] > shown - 2.0
    assert model.num_timesteps == model._n_updates == 0


def test_plans_leave_the_prior_as_successes_come(difftori, point_env, tmp_path):
    model = difftori.make(point_env(), learning_starts=10, schedule_steps=20).learn_from(shown_in(point_env()), 5)
    observation = torch.as_tensor(point_env().observation_space.sample()[None])

    def distance() -> float:
        with torch.no_grad():
            prior = model.policy.model.pi(model.policy.encode(observation))
        return float((model.policy.plan(observation).best_actions[:, 0] - prior).abs().max())

    assert distance() == 0.0
    for write in (export, export_onnx):
        with pytest.raises(ValueError, match=r"within 0 of the prior after learn_from"):
            write(model, tmp_path / "policy")
    assert model._updater.settings.value_share == 0.0
    model.learn(16)
    model._own_successes = 60  # of 6 demonstrations: half of the way
    model._move_schedules()
    assert model.policy.prior_radius == pytest.approx(0.5)
    assert model._updater.settings.value_share == 0.5
    assert 0.0 < distance() <= 0.5 + 1e-6
    model._own_successes = 120
    model._move_schedules()
    assert (model.policy.prior_radius, model._updater.settings.value_share) == (None, 1.0)


def test_plans_become_free_by_steps_alone(difftori, point_env):
    env = point_env()
    env.step = lambda action, step=env.step: (*step(action)[:1], -100.0, *step(action)[2:])  # no success at all
    model = difftori.make(env, learning_starts=10, schedule_steps=20).learn_from(shown_in(point_env()), 5)
    model.learn(61)
    assert model._own_successes == 0
    assert model.policy.prior_radius == pytest.approx(0.5)  # by the step of the last action
    model.learn(60, reset_num_timesteps=False)
    assert model.policy.prior_radius is None
    assert difftori.make(point_env()).policy.prior_radius is None


def test_a_batch_holds_the_share_and_it_falls_with_successes(difftori, point_env):
    model = difftori.make(point_env(), batch_size=20).learn_from(shown_in(point_env()), 2, share=0.6)
    model.learn(10)
    batch = model._sample_windows(20)
    assert isinstance(batch, DemonstratedBatch)
    assert batch.demonstrated.sum() == 12
    np.testing.assert_array_equal(batch.demonstrated > 0, batch.indices < 0)
    assert batch.demonstrated[:10].sum() == 6  # a part of the batch has its share as well
    before = model.present_share
    infos: list[dict[str, Any]] = [{"is_success": True}, {"is_success": False}, {"episode": {"r": 10.0, "l": 5}}]
    model._update_info_buffer(infos, np.array([True, True, False]))
    assert model.present_share == pytest.approx(0.6 * 6 / 7)
    assert before == 0.6
    for _ in range(5):
        model._update_info_buffer(infos[2:], np.array([True]))  # not told, and better than what was shown
    assert model.present_share == pytest.approx(0.3)
    model._own_successes = 1000
    assert model.present_share == pytest.approx(0.2)
    assert model._sample_windows(20).demonstrated.sum() == 4


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 8)])
def test_no_share_and_nothing_else(share, expected, difftori, point_env):
    model = difftori.make(point_env()).learn_from(shown_in(point_env()), 2, share=share).learn(12)
    found = model._sample_windows(8)
    assert getattr(found, "demonstrated", torch.zeros(1)).sum() == expected


def test_windows_are_those_of_either_memory_and_so_are_their_priorities(difftori, point_env):
    model = difftori.make(point_env()).learn_from(shown_in(point_env()), 0).learn(20)
    own = model.replay_buffer.sample_sequences(5, 3)
    shown = model._shown.sample_sequences(3, 3)
    batch = joined(own, shown)
    for row, index in enumerate(batch.indices):
        part, at = (own, index) if index >= 0 else (shown, -1 - index)
        same = int(np.flatnonzero(part.indices == at)[0])
        assert torch.equal(batch.actions[row], part.actions[same])
        assert torch.equal(batch.next_observations[row], part.next_observations[same])
    model._update_priorities(batch.indices, np.where(batch.indices < 0, 7.0, 9.0))
    np.testing.assert_allclose(model._shown.tree.get(shown.indices), 7.0**0.6)
    np.testing.assert_allclose(model.replay_buffer.tree.get(own.indices), 9.0**0.6)


def test_what_is_stored_is_what_was_shown(difftori, point_env):
    shown = shown_in(point_env(fall=0.6))
    model = difftori.make(point_env()).learn_from(shown, 0)
    memory, row = model._shown, 0
    assert any(episode.terminated for episode in shown.episodes)
    for episode in shown.episodes:
        rows = slice(row, row + len(episode))
        np.testing.assert_array_equal(memory.observations[rows, 0], episode.observations[:-1])
        np.testing.assert_array_equal(memory.next_observations[rows, 0], episode.observations[1:])
        np.testing.assert_allclose(memory.actions[rows, 0], (episode.actions + 0.5) / 1.5, atol=1e-6)
        np.testing.assert_allclose(memory.rewards[rows, 0], episode.rewards, rtol=1e-6)
        assert memory.dones[row + len(episode) - 1, 0] == 1
        assert memory.timeouts[row + len(episode) - 1, 0] == (not episode.terminated)
        row += len(episode)
    assert model.policy.model.episodic


def test_only_demonstrated_windows_are_cloned(difftori, point_env):
    model = difftori.make(point_env()).learn_from(shown_in(point_env()), 0).learn(20)
    batch = joined(model.replay_buffer.sample_sequences(4, 3), model._shown.sample_sequences(4, 3))
    z = torch.randn(8, 3, 6)
    actions = torch.where(batch.demonstrated[:, None, None] > 0, batch.actions, torch.inf)
    changed = replace(batch, actions=torch.where(torch.isfinite(actions), actions, 5.0))
    assert torch.equal(
        cloning_loss(model.policy.model, z, batch, rho=0.5), cloning_loss(model.policy.model, z, changed, rho=0.5)
    )
    error = (model.policy.model.pi(z[:, 0]) - batch.actions[:, 0]).square().mean(-1)
    expected = (error * batch.demonstrated * batch.weights).mean()
    found = cloning_loss(model.policy.model, z[:, :1], batch, rho=0.5)
    assert float(found.detach()) == pytest.approx(float(expected.detach()))


@pytest.mark.parametrize("name", ["difftori", "tdmpc"])
def test_the_first_actions_are_the_priors(name, difftori, several):
    model = made(
        name,
        difftori,
        several(2),
        exploration_kwargs=dict(initial_std=0.0, final_std=0.05),
        learning_starts=20,
        schedule_steps=10**9,
    )
    model.learn_from(shown_in(several(1).envs[0]), 5).learn(18)
    for row in range(9):
        with torch.no_grad():
            seen = torch.as_tensor(model.replay_buffer.observations[row])
            expected = model.policy.model.pi(model.policy.encode(seen)).numpy()
        np.testing.assert_allclose(model.replay_buffer.actions[row], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["array", "dict", "image"])
def test_every_kind_of_observation_and_several_environments(kind, difftori, several):
    policy = {"array": "MlpPolicy", "dict": "MultiInputPolicy", "image": "CnnPolicy"}[kind]
    model = difftori.make(several(2, kind=kind, fall=1.2), policy, buffer_size=200)
    model.learn_from(shown_in(several(1, kind=kind).envs[0], 3), 3).learn(24)
    assert model._n_updates > 0
    assert all(torch.isfinite(value).all() for value in model.policy.state_dict().values())


def test_images_with_the_channels_last_are_shown_with_the_channels_first(difftori, point_env):
    class Last(gym.ObservationWrapper):
        def __init__(self) -> None:
            super().__init__(point_env("image"))
            self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

        def observation(self, observation: np.ndarray) -> np.ndarray:
            return np.moveaxis(observation, 0, -1)

    model = difftori.make(Last(), "CnnPolicy", buffer_size=100).learn_from(shown_in(Last(), 3), 1)
    expected = shown_in(point_env("image"), 3).episodes[0].observations
    np.testing.assert_array_equal(model._shown.observations[: len(expected) - 1, 0], expected[:-1])


def test_saved_memory_and_normalised_observations(difftori, several):
    settings = dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))
    env = VecNormalize(several(1), norm_reward=False)
    env.reset()
    for _ in range(5):
        env.step(np.zeros((1, 1), np.float32))
    model = difftori.make(env, **settings).learn_from(shown_in(several(1).envs[0]), 3).learn(20)
    assert model._n_updates > 0


def test_recorded_updates_are_the_same_to_the_bit(difftori, point_env):
    def train() -> DiffTORI:
        return difftori.make(point_env()).learn_from(shown_in(point_env()), 12).learn(40)

    reference, recorders = train(), []

    def make(device: torch.device) -> EagerRecorder:
        recorders.append(EagerRecorder(device))
        return recorders[-1]

    with recorded_by(make):
        recorded = train()
    assert sum(each.replays for each in recorders) > 20
    for name, value in reference.policy.state_dict().items():
        assert torch.equal(value, recorded.policy.state_dict()[name]), name


@pytest.mark.parametrize("name", ["difftori", "tdmpc2"])
def test_a_loaded_model_wants_its_demonstrations_again(name, difftori, point_env, tmp_path, weights, differing):
    model = made(name, difftori, point_env()).learn_from(shown_in(point_env()), 4, share=0.25).learn(12)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=point_env(), device="cpu")
    assert differing(weights(model), weights(loaded)) == []
    assert (loaded.demonstration_share, loaded._shown) == (0.25, None)
    with pytest.raises(ValueError, match="expects the demonstrations that it began with, got none"):
        loaded.learn(10)
    loaded.learn_from(shown_in(point_env()), 0, share=0.25)
    assert differing(weights(model), weights(loaded)) == []
    loaded.learn(10)
    loaded = type(model).load(tmp_path / "model", env=point_env(), device="cpu")
    loaded.demonstration_share = 0
    loaded.learn(10)


class Keys(KVWriter):
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.values |= key_values

    def close(self) -> None:
        pass


def test_share_and_cloning_are_logged(difftori, point_env):
    model, keys = difftori.make(point_env()), Keys()
    model.set_logger(Logger(folder=None, output_formats=[keys]))
    model.learn_from(shown_in(point_env()), 3).learn(30, log_interval=1)
    assert keys.values["train/demo_share"] == model.present_share
    assert keys.values["train/clone_loss"] > 0


# Rewards


def test_success_alone_is_the_reward_of_the_step_that_leads_there(difftori, point_env):
    shown = shown_in(point_env(), after=1)
    model = difftori.make(point_env()).learn_from(shown, 0, rewards="success")
    np.testing.assert_array_equal(model._shown.rewards[:, 0], np.concatenate([e.successes for e in shown.episodes]))


def test_what_the_environment_rewards_is_found_out(point_env):
    class Telling(gym.Wrapper):
        def step(self, action):
            *step, info = self.env.step(action)
            return (*step, {**info, "success": True})

    shown = shown_in(point_env())
    sparse = DummyVecEnv([lambda: SuccessReward(Telling(point_env()))])
    np.testing.assert_array_equal(rewards_of(shown, None, sparse)[0], shown.episodes[0].successes)
    np.testing.assert_allclose(rewards_of(shown, None, DummyVecEnv([point_env]))[0], shown.episodes[0].rewards)
    with pytest.raises(ValueError, match=r"expected rewards of 0 and 1 as in the environment.*pass rewards='success'"):
        rewards_of(shown, "environment", sparse)


# Refusals


def changed(shown: Demonstrations, **changes: Any) -> Demonstrations:
    return replace(shown, episodes=tuple(replace(episode, **changes) for episode in shown.episodes))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "share above": (dict(share=1.5), r"needs a share of demonstrations in \[0, 1\], got 1.5"),
    "share below": (dict(share=-0.1), r"needs a share of demonstrations in \[0, 1\], got -0.1"),
    "share not a number": (dict(share=float("nan")), r"in \[0, 1\], got nan"),
    "steps": (dict(pretrain_steps=-1), "needs an integer pretrain_steps >= 0, got -1"),
    "half a step": (dict(pretrain_steps=0.5), "needs an integer pretrain_steps >= 0, got 0.5"),
    "clone": (dict(clone_coef=-1.0), "needs a finite clone_coef >= 0, got -1.0"),
    "rewards": (dict(rewards="dense"), "expects rewards='environment' or 'success', got 'dense'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_numbers_out_of_range_are_refused(name, difftori, point_env):
    settings, message = REFUSED[name]
    model = difftori.make(point_env())
    with pytest.raises(ValueError, match=message):
        model.learn_from(shown_in(point_env(), 1), **settings)
    assert model._shown is None


def test_demonstrations_that_do_not_fit_are_refused(difftori, point_env):
    shown = shown_in(point_env(), 2)
    model = difftori.make(ActionRepeat(gym.wrappers.TimeLimit(point_env(), 10), 1))
    for given, message in (
        (replace(shown, action_repeat=4), "expected an action repeat of 1 as in the environment, got 4"),
        (shown_in(point_env("dict"), 1), r"expected the observation keys \[''\] of the environment, got \['vec'\]"),
        (shown_in(point_env(action_shape=(2,)), 1), "expected the action space"),
        (changed(shown, rewards=np.zeros(10)), "expected rewards, got zeros alone: pass rewards='success'"),
        (changed(shown, observations=np.full((11, 2), 7.0)), r"inside the environment's \[-5, 5\], got 7 at step 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model.learn_from(given, 1)
    untold = changed(shown, successes=None, success=True)
    with pytest.raises(ValueError, match="at which steps the task was solved, got only that it was"):
        model.learn_from(untold, 1, rewards="success")
    with pytest.raises(ValueError, match="expected a number of episodes in"):
        model.learn_from(shown.take(3), 1)


def test_longer_than_the_time_limit_and_another_control_mode(difftori, point_env):
    class Telling(gym.Wrapper):
        max_episode_steps, control_mode = 8, "pd_ee_delta_pose"

    shown, env = shown_in(point_env(), 1), Telling(point_env())
    with pytest.raises(ValueError, match="expected at most 8 actions, the environment's time limit, got 10"):
        difftori.make(env).learn_from(shown, 1)
    with pytest.raises(ValueError, match="expected at most 4 actions"):
        difftori.make(ActionRepeat(env, 2)).learn_from(shown, 1)
    with pytest.raises(ValueError, match="control mode 'pd_ee_delta_pose' of the environment, got 'pd_joint_pos'"):
        difftori.make(env).learn_from(replace(shown, control_mode="pd_joint_pos"), 1)


def test_statistics_that_do_not_exist_yet(difftori, several):
    model = difftori.make(VecNormalize(several(1)))
    with pytest.raises(ValueError, match="expected a VecNormalize that has seen observations"):
        model.learn_from(shown_in(several(1).envs[0]), 1)
