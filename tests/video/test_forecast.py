"""What stands on a film: the values are those of the plan or the critic, and nothing else acts than ``predict``."""

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, SAC, TD3

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC
from difftori_gym.baselines.drqv2 import DrQv2
from difftori_gym.envs import make_vec_env
from difftori_gym.models import LatentObjective
from difftori_gym.video.forecast import WatchedPolicy

SMALL = {"learning_starts": 10, "batch_size": 4, "horizon": 3, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


@pytest.fixture(scope="module")
def env():
    return make_vec_env("Pendulum-v1", 3, seed=0)


def watched(model, env):
    policy = WatchedPolicy(model)
    observation = env.reset()
    actions, state = policy.predict(observation, None, np.ones(3, bool), True)
    return policy, observation, actions, state


@pytest.mark.parametrize("arguments", [{}, {"planner_kwargs": {"init": "warm"}}], ids=["policy start", "warm start"])
def test_a_planner_expects_what_its_model_gives_for_the_plan(env, arguments):
    model = DiffTORI("MlpPolicy", env, seed=0, **SMALL, **arguments)
    model.policy.horizon = 3
    policy, observation, actions, state = watched(model, env)
    assert policy.plans
    forecast = policy.forecast
    assert forecast.source == "plan"
    assert forecast.plans.shape == (3, 3, 1)
    np.testing.assert_array_equal(forecast.plans[:, 0], actions)
    expected, expected_state = model.predict(observation, None, np.ones(3, bool), True)
    np.testing.assert_array_equal(actions, expected)
    assert (state is None) == (expected_state is None) == (not arguments)
    with torch.no_grad():
        z = model.policy.encode(torch.as_tensor(observation))
        plans = torch.as_tensor(forecast.plans / 2.0)  # Pendulum's actions reach from -2 to 2
        values = LatentObjective(model.policy.model, z, discount=model.gamma)(plans)
    np.testing.assert_allclose(forecast.values, values.numpy(), rtol=1e-5)


def test_tdmpc_plans_too(env):
    model = TDMPC(
        "MlpPolicy", env, seed=0, planner_kwargs=dict(num_samples=16, num_elites=4, max_iterations=2), **SMALL
    )
    policy, observation, actions, _ = watched(model, env)
    np.testing.assert_array_equal(actions, model.predict(observation, None, np.ones(3, bool), True)[0])
    assert policy.forecast.source == "plan"
    assert np.isfinite(policy.forecast.values).all()


@pytest.mark.parametrize("learner", [SAC, TD3])
def test_a_critic_values_the_executed_action(env, learner):
    model = learner("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    policy, observation, actions, _ = watched(model, env)
    assert not policy.plans
    with torch.no_grad():
        first, second = model.critic(torch.as_tensor(observation), torch.as_tensor(actions / 2.0))
    assert policy.forecast.source == "critic"
    np.testing.assert_allclose(policy.forecast.values, torch.minimum(first, second)[:, 0].numpy(), rtol=1e-5)
    assert policy.forecast.plans is None


def test_a_state_value_is_shown_where_there_is_one(env):
    model = A2C("MlpPolicy", env, seed=0, device="cpu")
    policy, observation, _, _ = watched(model, env)
    with torch.no_grad():
        values = model.policy.predict_values(torch.as_tensor(observation))[:, 0].numpy()
    np.testing.assert_allclose(policy.forecast.values, values, rtol=1e-5)


def test_drqv2_values_images():
    pytest.importorskip("gym_pusht")
    env = make_vec_env("pusht/PushT", 2, obs="pixels", seed=0)
    model = DrQv2("CnnPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    policy = WatchedPolicy(model)
    policy.predict(env.reset(), deterministic=True)
    assert policy.forecast.source == "critic"
    assert policy.forecast.values.shape == (2,)
    env.close()


def test_nothing_is_made_up(env):
    class Constant:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((3, 1)), None

    policy, *_ = watched(Constant(), env)
    assert policy.forecast.source is None
    assert policy.forecast.values is None
