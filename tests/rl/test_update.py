"""One update of the networks: what it moves, by how much, and what it learns of ends of episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from difftori_gym import DiffTORI
from difftori_gym.rl.losses import LossCoefficients
from difftori_gym.rl.update import Updater

NOTHING = LossCoefficients(reward=0.0, value=0.0, consistency=0.0, termination=0.0)
MODEL = {"encoder", "dynamics", "reward", "critic"}


def parts_of(model: DiffTORI) -> dict[str, torch.Tensor]:
    policy = model.policy
    modules = dict(
        encoder=policy.encoder,
        dynamics=policy.model.dynamics,
        reward=policy.model.reward,
        critic=policy.model.critic,
        termination=policy.model.termination,
        actor=policy.model.actor,
        raw_critic=policy.raw_critic,
        encoder_target=policy.encoder_target,
        critic_target=policy.critic_target,
        raw_critic_target=policy.raw_critic_target,
    )
    return {
        name: torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        for name, module in modules.items()
    }


@pytest.fixture
def trained(difftori, point_env) -> Callable[..., DiffTORI]:
    """A model after a few updates, so that no network is at its zero start, on an environment that terminates."""

    def build(steps: int = 40, **settings: Any) -> DiffTORI:
        planning = dict(settings.pop("planner_kwargs", {}), horizon_initial=3)
        model = difftori.make(point_env(fall=1.6), planner_kwargs=planning, **settings).learn(steps)
        assert model.policy.model.episodic
        return model

    return build


def moved_by(
    model: DiffTORI, coefficients: LossCoefficients, n_updates: int = 1, only_model: bool = True, **changes: Any
) -> set[str]:
    """Parts that one update with these settings moves, from a fresh start of the optimizers."""
    policy = model.policy
    policy._build_optimizers(lambda _: 1e-3)
    if only_model:
        for optimizer in (policy.pi_optimizer, policy.raw_critic_optimizer):
            optimizer.param_groups[0]["lr"] = 0.0
    before = parts_of(model)
    batch = model.replay_buffer.sample_sequences(16, model.horizon)
    settings = replace(model.update_settings, coefficients=coefficients, **changes)
    Updater(policy, settings).update(batch, n_updates)
    after = parts_of(model)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("term", "moved"),
    [
        ("reward", {"encoder", "dynamics", "reward"}),
        ("value", {"encoder", "dynamics", "critic"}),
        ("consistency", {"encoder", "dynamics"}),
        ("termination", {"encoder", "dynamics", "termination"}),
    ],
)
def test_each_term_alone_moves_its_own_networks(trained, term, moved):
    model = trained()
    assert moved_by(model, replace(NOTHING, **{term: 1.0}), pg_coef=0.0) == moved
    assert moved_by(model, NOTHING, pg_coef=0.0) == set()


@pytest.mark.parametrize("settings", [{}, dict(backward_mode="unroll"), dict(bounds=None), dict(init="zero")], ids=str)
def test_the_policy_gradient_moves_all_that_plans_and_neither_prior_nor_judge(trained, settings):
    model = trained(planner_kwargs=settings)
    changes = dict(pg_coef=1.0, pg_freq=1, pg_max_grad_ratio=None)
    # An episodic model's plan also depends on the probability of going on.
    assert moved_by(model, NOTHING, **changes) == MODEL | {"termination"}
    model.policy.model.episodic = False
    assert moved_by(model, NOTHING, **changes) == MODEL


def test_reward_scale_is_learning_from_scaled_rewards(trained):
    model = trained(reward_scale=0.25)
    assert model.update_settings.reward_scale == 0.25
    batch = model.replay_buffer.sample_sequences(16, model.horizon)
    weights = {name: value.clone() for name, value in model.policy.state_dict().items()}

    def updated(reward_scale: float, rewards: torch.Tensor) -> dict[str, torch.Tensor]:
        model.policy.load_state_dict(weights)
        model.policy._build_optimizers(lambda _: 1e-3)  # without the moments of another update
        torch.manual_seed(0)  # of the noise in the targets
        settings = replace(model.update_settings, reward_scale=reward_scale)
        Updater(model.policy, settings).update(replace(batch, rewards=rewards), n_updates=model.update_settings.pg_freq)
        return parts_of(model)

    scaled = updated(0.25, batch.rewards)
    torch.testing.assert_close(scaled, updated(1.0, 0.25 * batch.rewards), rtol=0, atol=0)
    assert not torch.equal(scaled["critic"], updated(1.0, batch.rewards)["critic"])


@pytest.mark.parametrize("reward_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_reward_scale_is_positive_and_finite(trained, reward_scale):
    with pytest.raises(ValueError, match="reward_scale needs to be positive and finite, got"):
        trained(reward_scale=reward_scale)


def test_the_policy_gradient_can_be_switched_off(trained):
    model = trained()
    assert moved_by(model, NOTHING, pg_coef=0.0, only_model=False) == {"actor"}
    # Between its turns, Q-tilde goes on learning.
    assert moved_by(model, NOTHING, pg_coef=1.0, pg_freq=2, only_model=False) == {"actor", "raw_critic"}
    model.planner = replace(model.planner, optimizer=model.planner.optimizer.replace(backward_mode="none"))


def test_the_policy_gradient_is_the_derivative_of_the_plan_s_value(trained):
    """A small step of the model along it raises Q-tilde of the action that is then planned."""
    model = trained(steps=80, planner_kwargs=dict(backward_mode="unroll"), pg_coef=0.0)
    policy = model.policy
    policy.model.episodic = False
    observation = model.replay_buffer.sample_sequences(64, 1).observations

    def value() -> torch.Tensor:
        plan = policy.planner.plan(policy.model, policy.encode(observation), policy.horizon)
        return policy.raw_critic(observation, plan.actions[:, 0]).amin(0).mean()

    for member in policy.raw_critic.critic.members:
        torch.nn.init.normal_(member[-1].weight, std=0.3)
    parameters = policy.model_parameters()
    before = value()
    gradients = torch.autograd.grad(before, parameters, materialize_grads=True)
    squared = sum(gradient.square().sum() for gradient in gradients)
    assert squared > 0
    step = 1e-4 * before.detach().abs() / squared
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter += step * gradient
    gain = value() - before
    assert gain.item() == pytest.approx(float(step * squared), rel=0.1)


def test_the_prior_imitates_plans_when_they_are_made(trained):
    model = trained(pg_coef=0.0, policy_delay=3)
    policy, settings = model.policy, model.update_settings
    for n_updates, moves in ((10, True), (11, False)):
        assert ("actor" in moved_by(model, NOTHING, n_updates, False, imitation_coef=1.0, policy_delay=3)) == moves
    batch = model.replay_buffer.sample_sequences(64, model.horizon)
    observations = policy.preprocess(batch.observations)

    def distance() -> float:
        with torch.no_grad():
            z = policy.encoder(observations)
            plan = policy.planner.for_acting().plan(policy.model, z, policy.horizon).best_actions[:, 0]
            return (policy.model.pi(z) - plan).square().mean().item()

    policy.planner = replace(policy.planner, init="zero")  # the aim stands still
    torch.nn.init.normal_(policy.model.actor[-1].weight, std=3.0)
    before, weights = distance(), policy.state_dict()
    weights = {name: value.clone() for name, value in weights.items()}
    after = []
    for coefficient in (0.0, 100.0):
        policy.load_state_dict(weights)
        policy._build_optimizers(lambda _: 1e-2)
        policy.optimizer.param_groups[0]["lr"] = 0.0  # what is planned with stands still
        updater = Updater(policy, replace(settings, imitation_coef=coefficient, pg_freq=1, policy_delay=1))
        for _ in range(60):
            updater.update(batch, 1)
        after.append(distance())
    assert after[1] < 0.2 * min(before, after[0])


def test_the_prior_moves_when_it_is_its_turn(trained):
    model = trained()
    for n_updates, moves in ((3, True), (4, False)):
        moved = moved_by(model, model.update_settings.coefficients, n_updates, only_model=False, policy_delay=3)
        assert ("actor" in moved) == moves
        assert moved >= MODEL | {"raw_critic"}


def test_targets_are_moving_averages(trained):
    model = trained()
    pairs = [("encoder", "encoder_target"), ("critic", "critic_target"), ("raw_critic", "raw_critic_target")]
    coefficients = model.update_settings.coefficients
    for n_updates, follows in ((3, True), (4, False)):
        before = parts_of(model)
        moved = moved_by(model, coefficients, n_updates, only_model=False, tau=0.25, target_update_interval=3)
        after = parts_of(model)
        assert {target for _, target in pairs} & moved == ({target for _, target in pairs} if follows else set())
        for online, target in pairs:
            expected = 0.75 * before[target] + 0.25 * after[online] if follows else before[target]
            torch.testing.assert_close(after[target], expected)


@pytest.mark.parametrize("limit", [0.5, 1e-3])
def test_gradients_are_clipped(trained, limit):
    sgd = dict(net_arch=[16], latent_dim=6, optimizer_class=torch.optim.SGD)
    model = trained(policy_kwargs=sgd, learning_rate=1e-2)
    before = parts_of(model)
    batch = model.replay_buffer.sample_sequences(16, 3)
    batch.rewards[:] = 100.0
    policy = model.policy
    policy._build_optimizers(lambda _: 1.0)  # the step is the gradient
    settings = replace(model.update_settings, max_grad_norm=limit, pg_coef=0.0)
    updater = Updater(policy, settings)
    updater.update(batch, 1)
    after = parts_of(model)
    step = torch.stack([(after[name] - before[name]).norm() for name in (*MODEL, "termination")]).norm()
    assert updater.means.pop()["model_grad_norm"] > limit
    assert step.item() == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_leave_the_weights_alone(difftori, point_env, bad):
    model = difftori.make(point_env(fall=1.6), gradient_steps=0).learn(40)
    before = parts_of(model)
    batch = model.replay_buffer.sample_sequences(16, 3)
    batch.rewards[3] = bad
    settings = replace(model.update_settings, pg_coef=1.0, pg_freq=1)
    priorities = Updater(model.policy, settings).update(batch, 1)
    model.replay_buffer.update_priorities(batch.indices, priorities.numpy())
    after = parts_of(model)
    for name in before:
        assert torch.isfinite(after[name]).all()
        if name != "actor":
            assert torch.equal(after[name], before[name]), name
    assert np.isfinite(model.replay_buffer.tree.total)
    model.learn(10, reset_num_timesteps=False)
    assert all(torch.isfinite(weights).all() for weights in parts_of(model).values())


def test_priorities_are_the_errors(trained):
    model = trained()
    batch = model.replay_buffer.sample_sequences(16, 3)
    batch.rewards[5] += 1000.0
    priorities = Updater(model.policy, model.update_settings).update(batch, 1)
    assert priorities.shape == (16,)
    assert priorities.argmax() == 5
    assert priorities[5] > 500


class ConstantReward(gym.Env[np.ndarray, np.ndarray]):
    """Reward 1 in every step of an episode of five, which looks the same throughout."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        ended = self.t == 5
        return np.zeros(2, np.float32), 1.0, ended and self.terminates, ended and not self.terminates, {}


def test_time_limits_are_bootstrapped_and_terminations_are_not(difftori):
    values = []
    for terminates in (True, False):
        settings = dict(gamma=0.9, tau=0.3, learning_rate=3e-3, max_grad_norm=100.0, value_coef=1.0, pg_freq=10**6)
        model = difftori.make(ConstantReward(terminates), batch_size=32, **settings).learn(500)
        observation = torch.zeros(1, 2)
        with torch.no_grad():
            z = model.policy.encode(observation)
            action = model.policy.model.pi(z)
            values.append((model.policy.model.Q(z, action).min(), model.policy.raw_critic(observation, action).min()))
    # An end in one of five steps leaves 1 / (1 - 0.9 * 4 / 5) = 3.6; going on for ever is worth 10.
    for value in values[0]:
        assert 2.5 < value < 5.0
    for value in values[1]:
        assert value > 7.5


def test_terminations_are_learned_and_planned_around(difftori, point_env):
    model = difftori.make(
        point_env(fall=1.0, steps=20), batch_size=32, consistency_coef=2.0, learning_rate=3e-3, train_freq=2
    ).learn(600)
    assert model.policy.model.episodic
    batch = model.replay_buffer.sample_sequences(300, 1)
    with torch.no_grad():
        z = model.policy.encode(batch.observations)
        imagined, _ = model.policy.model.next(z, batch.actions[:, 0])
        survival = model.policy.model.survival(imagined)
    ended = batch.terminated[:, 0] == 1
    assert ended.any()
    assert survival[ended].mean() < 0.4
    assert survival[~ended].mean() > 0.8


def test_terminations_of_a_gymnasium_task(difftori):
    pytest.importorskip("mujoco")
    model = difftori.make(
        "Hopper-v5", batch_size=64, learning_starts=200, gradient_steps=2, learning_rate=3e-3, pg_freq=10**6
    ).learn(600)
    assert model.policy.model.episodic
    batch = model.replay_buffer.sample_sequences(400, 1)
    ended = batch.terminated[:, 0] == 1
    assert 0 < ended.sum() < 200
    with torch.no_grad():
        imagined, _ = model.policy.model.next(model.policy.encode(batch.observations), batch.actions[:, 0])
        survival = model.policy.model.survival(imagined)
    # Of a state where an episode ended and one where it did not, the head mostly knows which is which.
    assert (survival[ended][:, None] < survival[~ended]).float().mean() > 0.85
