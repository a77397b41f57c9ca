"""TD-MPC2 as a baseline: how it plans, its settings, its updates, its files."""

import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from difftori_gym.baselines import TDMPC2
from difftori_gym.baselines.tdmpc2_planning import SampledReturn, TDMPC2Planner
from difftori_gym.baselines.tdmpc2_policies import TDMPC2Policy
from difftori_gym.models import ImageEncoder
from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.solution import SampledSolution

SMALL = dict(
    learning_starts=30,
    batch_size=8,
    seed=0,
    device="cpu",
    planner_kwargs=dict(max_iterations=2, num_samples=24, num_elites=6, num_prior_samples=4),
    policy_kwargs=dict(net_arch=[16], latent_dim=16),
)
TINY = dict(buffer_size=100, device="cpu", policy_kwargs=dict(net_arch=[8], latent_dim=8))


class Still(gym.Env):
    """Spaces alone."""

    def __init__(self, action_dim=1, observation_space=None):
        self.observation_space = observation_space or spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture(scope="module")
def model():
    learned = TDMPC2("MlpPolicy", "Pendulum-v1", **SMALL).learn(60)
    learned.policy.set_training_mode(False)  # no dropout
    return learned


def test_the_published_settings_are_the_defaults():
    model = TDMPC2("MlpPolicy", Still(), buffer_size=100, device="cpu")
    settings, optimizer = model.update_settings, model.policy.planner.optimizer
    assert (settings.coefficients.reward, settings.coefficients.value, settings.coefficients.consistency) == (
        0.1,
        0.1,
        20,
    )
    assert (settings.coefficients.rho, settings.tau, settings.target_update_interval) == (0.5, 0.01, 1)
    assert (settings.max_grad_norm, settings.entropy_coef) == (20.0, 1e-4)
    assert (model.batch_size, model.horizon, model.policy.horizon, model.gradient_steps) == (256, 3, 3, -1)
    assert (optimizer.solver, optimizer.max_iterations, optimizer.num_samples, optimizer.num_elites) == (
        "mppi",
        6,
        512,
        64,
    )
    assert (optimizer.temperature, optimizer.momentum, optimizer.min_std, optimizer.max_std) == (0.5, 0.0, 0.05, 2.0)
    assert model.policy.planner.num_prior_samples == 24
    groups = model.policy.optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.3 * 3e-4, 3e-4])
    assert [group["eps"] for group in (*groups, *model.policy.pi_optimizer.param_groups)] == [1e-8, 1e-8, 1e-5]
    assert (model.replay_buffer.priority_exponent, model.replay_buffer.importance_exponent) == (0.0, 0.0)
    weights = sum(parameter.numel() for parameter in model.policy.model.parameters())
    assert 4.5e6 < weights < 5.5e6
    assert TDMPC2("MlpPolicy", Still(20), **TINY).policy.planner.optimizer.max_iterations == 8


@pytest.mark.parametrize(
    ("length", "gamma", "starts"), [(None, 0.99, 2500), (1000, 0.995, 5000), (250, 0.98, 1250), (50, 0.95, 1000)]
)
def test_discount_and_random_steps_follow_the_episode(length, gamma, starts):
    model = TDMPC2("MlpPolicy", Still(), episode_length=length, **TINY)
    assert (model.gamma, model.planner.discount, model.update_settings.discount) == pytest.approx((gamma,) * 3)
    assert model.learning_starts == starts
    given = TDMPC2("MlpPolicy", Still(), gamma=0.9, learning_starts=7, **TINY)
    assert (given.gamma, given.learning_starts) == (0.9, 7)


def test_a_time_limit_is_asked_for(model):
    assert model.episode_length == 200  # of the pendulum
    assert TDMPC2("MlpPolicy", Still(), **TINY).episode_length == 500


def test_the_first_update_comes_with_as_many_as_there_were_steps(model):
    assert model._n_updates == 31 + 30


def test_an_imagined_return_is_that_of_a_loop(model):
    learned = model.policy.model
    z0, draws = torch.rand(2, 16), torch.rand(5, 2, 3, 1) * 2 - 1
    own = torch.Generator().manual_seed(3)
    objective = SampledReturn(learned, z0, discount=0.9, generator=torch.Generator().manual_seed(3))
    values = objective.values_of_draws(draws)
    chooser = random.Random(int(torch.randint(2**62, (), generator=own)))
    noise = torch.randn(10, 1, generator=own)
    two = chooser.sample(range(5), 2)
    for n in range(5):
        for b in range(2):
            z, total = z0[b][None], 0.0
            for t in range(3):
                z, reward = learned.next(z, draws[n, b, t][None])
                total += 0.9**t * reward[0]
            action = learned.sample(z, noise[2 * n + b][None]).action
            total += 0.9**3 * learned.Q(z, action)[two, 0].mean()
            torch.testing.assert_close(values[n, b], total.detach(), rtol=1e-4, atol=1e-5)


def test_nothing_is_expected_after_an_imagined_termination(model):
    learned, z0 = model.policy.model, torch.rand(4, 16)
    try:
        learned.episodic = True
        torch.nn.init.constant_(learned.termination[-1].bias, 100.0)
        objective = SampledReturn(learned, z0, discount=0.9)
        actions = torch.rand(4, 3, 1)
        torch.testing.assert_close(objective(actions), learned.next(z0, actions[:, 0])[1])
    finally:
        learned.episodic = False
        torch.nn.init.zeros_(learned.termination[-1].bias)


def test_plans_start_from_the_last_mean_or_from_zero(model):
    planner, z = TDMPC2Planner(), torch.rand(2, 16)
    assert not planner.start(model.policy.model, z, 3).any()
    previous = torch.tensor([[[0.1], [0.2], [0.3]], [[torch.nan]] * 3])
    start = planner.start(model.policy.model, z, 3, previous=previous)
    torch.testing.assert_close(start[..., 0], torch.tensor([[0.2, 0.3, 0.0], [0.0, 0.0, 0.0]]))
    _, state = model.predict(np.zeros((1, 3), np.float32), deterministic=True)
    solution = model.policy.plan(torch.zeros(1, 3))
    assert isinstance(solution, SampledSolution)
    np.testing.assert_array_equal(state[0], solution.mean.numpy())
    assert not torch.equal(solution.mean, solution.best_actions)


def test_an_elite_is_executed_in_evaluation(model):
    observation = np.zeros((1, 3), np.float32)
    solution = model.policy.plan(torch.as_tensor(observation))
    action, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(action, 2.0 * solution.actions[:, 0].numpy(), rtol=1e-6)
    assert torch.equal(solution.actions, solution.best_actions)


def test_exploration_is_what_the_elites_are_spread_by(model):
    observations = np.zeros((200, 3), np.float32)
    noisy, _ = model.predict(observations, deterministic=False)
    assert np.std(noisy) > 0.05
    assert np.abs(noisy).max() <= 2.0


def test_an_update_moves_every_network(model):
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.train(1, 8)
    moved = {name.split(".")[1] for name, value in model.policy.state_dict().items() if not value.equal(before[name])}
    assert moved >= {"dynamics", "reward", "actor", "critic", "head", "members"}
    for name, value in model.policy.state_dict().items():  # targets are behind
        if name.startswith("critic_target"):
            learned = model.policy.state_dict()[name.replace("critic_target", "model.critic")]
            torch.testing.assert_close(value, before[name].lerp(learned, 0.01))
    rates = [group["lr"] for group in model.policy.optimizer.param_groups]
    assert rates == pytest.approx([0.3 * 3e-4, 3e-4])


def test_numbers_that_are_not_finite_are_left_out(model):
    fresh = TDMPC2("MlpPolicy", "Pendulum-v1", **SMALL).learn(32)
    with torch.no_grad():
        fresh.policy.model.reward[-1].bias.fill_(torch.nan)
    fresh.train(1, 8)
    assert all(torch.isfinite(each).all() for each in fresh.policy.model.dynamics.parameters())
    assert np.isfinite(fresh.predict(np.zeros((1, 3), np.float32))[0]).all()


def test_it_comes_back_from_a_file(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = TDMPC2.load(tmp_path / "model", device="cpu")
    assert loaded.policy.planner == model.policy.planner
    assert loaded.update_settings == model.update_settings
    assert (loaded.gamma, loaded.episode_length) == (model.gamma, 200)
    observation = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
    model.policy.save(tmp_path / "policy")
    policy = TDMPC2Policy.load(tmp_path / "policy", device="cpu")
    np.testing.assert_array_equal(
        policy.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


@pytest.mark.parametrize(("side", "layers"), [(64, 0), (84, 1)])
def test_images_are_read_by_the_published_convolutions(side, layers):
    space = spaces.Box(0, 255, (9, side, side), np.uint8)
    model = TDMPC2(
        "CnnPolicy", Still(observation_space=space), buffer_size=10, device="cpu", policy_kwargs=dict(net_arch=[8])
    )
    encoder = model.policy.encoder
    assert isinstance(encoder.features_extractor, ImageEncoder)
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.kernel_size[0], layer.stride[0], layer.out_channels) for layer in convolutions] == [
        (7, 2, 32),
        (5, 2, 32),
        (3, 2, 32),
        (3, 1, 32),
    ]
    assert sum(isinstance(layer, torch.nn.Linear) for layer in encoder.modules()) == layers
    z = model.policy.encode(torch.zeros(2, 9, side, side, dtype=torch.uint8))
    torch.testing.assert_close(z.unflatten(-1, (64, 8)).sum(-1), torch.ones(2, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(pg_coef=1.0), "no policy-gradient loss"),
        (dict(target_policy_noise=0.1), "target_policy_noise"),
        (dict(planner_kwargs=dict(solver="lm", backward_mode="none")), "plans by sampling"),
        (dict(planner_kwargs=dict(num_prior_samples=512)), "num_prior_samples below num_samples=512"),
        (dict(planner_kwargs=dict(init="policy")), "no setting 'init'"),
        (dict(episode_length=0), "episode_length >= 1"),
        (dict(entropy_coef=-1.0), "entropy_coef"),
        (dict(policy_kwargs=dict(size="tiny")), "sizes 5M, small, got 'tiny'"),
        (dict(policy_kwargs=dict(latent_dim=12)), "multiple of simnorm_dim, got 12 and 8"),
        (dict(policy_kwargs=dict(num_bins=1)), "num_bins >= 2"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TDMPC2("MlpPolicy", Still(), **{**TINY, **settings})


def test_the_objective_serves_a_solver_that_follows_gradients(model):
    planner = TDMPC2Planner(TrajectoryOptimizer(solver="adam", max_iterations=2, num_starts=2))
    solution = planner.plan(model.policy.model, torch.rand(2, 16), 3)
    assert solution.best_actions.shape == (2, 3, 1)
