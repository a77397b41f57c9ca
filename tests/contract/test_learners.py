"""
What Stable-Baselines3 promises of an algorithm and its policy, asked of every learner of this package.

Promises of one family only are in tests/rl/test_contract.py and tests/il/learners/test_contract.py.
"""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from difftori_gym import export, load_export, record_video
from difftori_gym.exports import read_export


def same_weights(first, second):
    one, two = first.policy.state_dict(), second.policy.state_dict()
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_a_saved_model_is_the_same_model(subject, trained, rollout, tmp_path):
    trained.save(tmp_path / "model")
    loaded = subject.cls.load(tmp_path / "model", device="cpu")
    assert same_weights(trained, loaded)
    assert loaded.num_timesteps == trained.num_timesteps
    assert loaded.observation_space == trained.observation_space
    np.testing.assert_array_equal(rollout(loaded, subject), rollout(trained, subject))


def test_an_exported_model_acts_the_same(subject, trained, rollout, tmp_path):
    path = export(trained, tmp_path / "model")
    described = read_export(path)
    assert described.algorithm == subject.cls.__name__
    assert described.num_timesteps == trained.num_timesteps
    random = torch.get_rng_state()
    policy = load_export(path, device="cpu")
    assert type(policy) is type(trained.policy)
    assert policy.observation_space == trained.observation_space
    assert policy.action_space == trained.action_space
    np.testing.assert_array_equal(rollout(policy, subject), rollout(trained, subject))
    assert torch.equal(random, torch.get_rng_state())
    returns = [evaluate_policy(each, subject.envs(), 2, return_episode_rewards=True) for each in (trained, policy)]
    assert returns[0] == returns[1]
    # What was loaded can be exported and pickled again.
    again = load_export(export(policy, tmp_path / "again"), device="cpu")
    np.testing.assert_array_equal(rollout(again, subject, 2), rollout(trained, subject, 2))


def test_an_exported_policy_is_filmed(subject, trained, tmp_path):
    if subject.images:
        pytest.skip("the test's images are not drawn by the environment")
    policy = load_export(export(trained, tmp_path / "model"), device="cpu")
    env = make_vec_env(lambda: gym.make("Pendulum-v1", render_mode="rgb_array"), 1)
    assert record_video(policy, env, tmp_path / "film.gif", max_steps=2).stat().st_size > 0


def test_shapes_of_predictions(subject, trained):
    space, observations = trained.action_space, subject.observations(4)
    for deterministic in (True, False):
        batch, _ = trained.predict(observations, deterministic=deterministic)
        assert batch.shape == (4, *space.shape)
        single, _ = trained.predict(observations[0], deterministic=deterministic)
        assert single.shape == space.shape
        assert all(space.contains(action.astype(space.dtype)) for action in (*batch, single))


def test_deterministic_predictions_are_pure(subject, trained, rollout):
    before = [value.clone() for value in trained.policy.state_dict().values()]
    first = rollout(trained, subject)
    random = torch.get_rng_state()
    np.testing.assert_array_equal(rollout(trained, subject), first)
    assert torch.equal(random, torch.get_rng_state())
    trained.predict(subject.observations(2, 9), deterministic=False)
    np.testing.assert_array_equal(rollout(trained, subject), first)
    after = trained.policy.state_dict().values()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_an_observation_is_answered_alike_alone_and_in_a_batch(subject, trained):
    observations = subject.observations(4)
    together, _ = trained.predict(observations, deterministic=True)
    alone = [trained.predict(each, deterministic=True)[0] for each in observations]
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_model_and_policy_evaluate_the_same(subject, trained):
    returns = [
        evaluate_policy(each, subject.envs(), 2, return_episode_rewards=True) for each in (trained, trained.policy)
    ]
    assert returns[0] == returns[1]


def test_a_pickled_policy_acts_the_same(subject, trained, rollout):
    policy = pickle.loads(pickle.dumps(trained.policy))
    np.testing.assert_array_equal(rollout(policy, subject), rollout(trained, subject))


def test_a_saved_policy_acts_the_same(subject, trained, rollout, tmp_path):
    trained.policy.save(tmp_path / "policy")
    policy = type(trained.policy).load(tmp_path / "policy", device="cpu")
    np.testing.assert_array_equal(rollout(policy, subject), rollout(trained, subject))


def test_one_seed_gives_one_model(subject, trained):
    assert same_weights(subject.make().learn(subject.steps), trained)
    assert not same_weights(subject.make(seed=1).learn(subject.steps), trained)


def test_parameters_are_handed_over(subject, trained, rollout):
    parameters = trained.get_parameters()
    assert "policy" in parameters
    other = subject.make(seed=5)
    assert not same_weights(other, trained)
    other.set_parameters(parameters, device="cpu")
    assert same_weights(other, trained)
    np.testing.assert_array_equal(rollout(other, subject), rollout(trained, subject))
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters({"policy": parameters["policy"]}, exact_match=True)


def test_training_goes_on_in_other_environments_with_callbacks_and_logger(subject, trained, tmp_path):
    trained.save(tmp_path / "model")
    model = subject.cls.load(tmp_path / "model", device="cpu")
    model.set_env(subject.envs())
    if subject.imitates:
        model.set_demonstrations(trained.demonstrations)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    evaluation = EvalCallback(subject.envs(1), eval_freq=2, n_eval_episodes=1, log_path=str(tmp_path), verbose=0)
    model.learn(4, [evaluation, CheckpointCallback(2, str(tmp_path))], log_interval=1, reset_num_timesteps=False)
    assert model.num_timesteps == trained.num_timesteps + 4
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) >= 1
    assert len(list(tmp_path.glob("rl_model_*_steps.zip"))) >= 1
    assert "eval/mean_reward" in (tmp_path / "progress.csv").read_text() or not subject.imitates
    calls = []
    model.learn(20, lambda locals_, globals_: calls.append(1) or len(calls) < 3, reset_num_timesteps=False)
    assert len(calls) == 3
    model.logger.close()


def test_environments_of_other_spaces_are_refused(subject, trained, tmp_path):
    trained.save(tmp_path / "model")
    model = subject.cls.load(tmp_path / "model", device="cpu")
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(make_vec_env("MountainCarContinuous-v0", 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU")
def test_another_device(subject, trained, tmp_path):
    path = export(trained, tmp_path / "model")
    actions, _ = load_export(path, device="cuda").predict(subject.observations(), deterministic=True)
    np.testing.assert_allclose(actions, trained.predict(subject.observations(), deterministic=True)[0], atol=1e-2)
