"""TD-MPC as a baseline: the same learner as DiffTORI but for the planner and the policy-gradient loss."""

import numpy as np
import pytest
import torch

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC
from difftori_gym.trajopt.solution import SampledSolution

SMALL = dict(learning_starts=50, batch_size=16, horizon=3, planner_kwargs=dict(horizon_initial=3), seed=0, device="cpu")
NETWORKS = dict(net_arch=[16], latent_dim=6)


@pytest.fixture(scope="module")
def model():
    planning = dict(max_iterations=3, num_samples=64, num_elites=8, horizon_initial=3)
    return TDMPC("MlpPolicy", "Pendulum-v1", policy_kwargs=NETWORKS, **{**SMALL, "planner_kwargs": planning}).learn(90)


def test_plans_by_sampling_and_keeps_the_mean(model):
    optimizer = model.policy.planner.optimizer
    assert (optimizer.solver, optimizer.max_iterations, optimizer.num_samples, optimizer.num_elites) == (
        "mppi",
        3,
        64,
        8,
    )
    assert model.policy.planner.num_prior_samples == int(0.05 * 64)
    assert model.policy.planner.init == "warm"
    observation = torch.zeros(1, 3)
    solution = model.policy.plan(observation)
    assert isinstance(solution, SampledSolution)
    action, state = model.predict(observation.numpy(), deterministic=True)
    np.testing.assert_array_equal(state[0], solution.mean.numpy())
    np.testing.assert_allclose(action, 2.0 * solution.best_actions[:, 0].numpy(), rtol=1e-6)
    # The best of many samples is at least as good as what the search began with.
    assert solution.values >= solution.history[:, 0]


def test_trains_the_model_and_no_judge_of_plans(model):
    model.train(4)
    model.dump_logs()
    fresh = TDMPC("MlpPolicy", "Pendulum-v1", policy_kwargs=NETWORKS, **SMALL)
    assert all(
        torch.equal(first, second)
        for first, second in zip(
            model.policy.raw_critic.parameters(), fresh.policy.raw_critic.parameters(), strict=True
        )
    )
    assert not torch.equal(model.policy.model.reward[0].weight, fresh.policy.model.reward[0].weight)
    assert len(model.policy.raw_critic_optimizer.state) == 0


def test_starts_from_the_same_networks_as_difftori():
    first = TDMPC("MlpPolicy", "Pendulum-v1", policy_kwargs=NETWORKS, **SMALL).policy.state_dict()
    second = DiffTORI("MlpPolicy", "Pendulum-v1", policy_kwargs=NETWORKS, **SMALL).policy.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_learns_as_difftori_without_the_policy_gradient():
    """On the same batch and with the same noise on targets, the two move the same weights to the same place."""
    settings = {**SMALL, "learning_starts": 10**6, "exploration_kwargs": dict(final_std=0.1)}
    models = [
        TDMPC("MlpPolicy", "Pendulum-v1", policy_kwargs=NETWORKS, **settings),
        DiffTORI("MlpPolicy", "Pendulum-v1", policy_kwargs=NETWORKS, pg_coef=0.0, **settings),
    ]
    for each in models:
        each.set_random_seed(0)
        each.learn(60)
        np.random.seed(1)
        torch.manual_seed(1)
        each.train(5, 16)
    first, second = (each.policy.state_dict() for each in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_keeps_its_settings_in_files(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = TDMPC.load(tmp_path / "model")
    assert loaded.policy.planner == model.policy.planner
    assert loaded.update_settings.pg_coef == 0.0


def test_explores_with_the_spread_of_its_samples(model):
    observations = np.zeros((200, 3), np.float32)
    best, _ = model.predict(observations[:1], deterministic=True)
    noisy, _ = model.predict(observations, deterministic=False)
    assert np.std(noisy) > 2 * model.policy.exploration_std * 0.5
    assert np.abs(noisy).max() <= 2.0
    assert best.shape == (1, 1)
