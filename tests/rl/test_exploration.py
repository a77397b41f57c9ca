"""Schedules of the planning horizon and of exploration, correlated noise, and what waits for reward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC
from difftori_gym.rl.exploration import (
    CorrelatedNoise,
    Exploration,
    NoiseModes,
    PlanningSchedule,
    RewardedSteps,
    drawn_action,
)


def test_schedules_are_linear_and_end() -> None:
    schedule, exploration = PlanningSchedule(1, 5, 25_000), Exploration(initial_std=0.5, final_std=0.05)
    assert [schedule.horizon_at(steps) for steps in (0, 6_249, 6_250, 24_999)] == [1, 1, 2, 4]
    assert exploration.std_at(schedule.progress(0)) == 0.5
    assert exploration.std_at(schedule.progress(12_500)) == pytest.approx(0.275)
    for late in (25_000, 10**9):
        assert schedule.horizon_at(late) == 5
        assert exploration.std_at(schedule.progress(late)) == pytest.approx(0.05)


def test_no_steps_means_the_end_at_once() -> None:
    schedule = PlanningSchedule(1, 3, 0)
    assert (schedule.horizon_at(0), schedule.progress(0)) == (3, 1.0)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_noise_has_unit_variance_and_the_correlation(correlation: float) -> None:
    np.random.seed(0)
    noise = CorrelatedNoise()
    draws = np.stack([noise((200, 2), correlation) for _ in range(400)]).reshape(400, -1)
    assert draws.dtype == np.float32
    assert draws.var() == pytest.approx(1.0, abs=0.08)
    assert (draws[1:] * draws[:-1]).mean() == pytest.approx(correlation, abs=0.05)


def test_noise_of_another_shape_starts_anew() -> None:
    noise = CorrelatedNoise()
    noise((2, 1), 0.9)
    assert noise((3, 1), 0.9).shape == (3, 1)


def test_stretches_with_noise_and_without_are_of_the_mean_length() -> None:
    np.random.seed(0)
    modes = NoiseModes()
    noisy = np.stack([modes(100, 20.0) for _ in range(2000)])
    assert noisy[0].all()
    assert noisy.mean() == pytest.approx(0.5, abs=0.03)
    assert (noisy[1:] != noisy[:-1]).mean() == pytest.approx(1 / 20, rel=0.05)


def test_between_stretches_with_noise_the_plan_is_what_is_done(difftori, point_env) -> None:
    kwargs = dict(exploration_kwargs=dict(mode_steps=5, initial_std=0.3), planner_kwargs=dict(horizon_initial=3))
    model = difftori.make(point_env(), gradient_steps=0, learning_starts=20, **kwargs).learn(220)
    replay = model.replay_buffer
    planned, _ = model.predict(replay.observations[:220, 0], deterministic=True)
    done = np.isclose(model.policy.scale_action(planned), replay.actions[:220, 0], atol=1e-5).all(axis=1)
    assert not done[:20].any()
    assert 0.3 < done[20:].mean() < 0.7
    assert 0.1 < (done[21:] != done[20:-1]).mean() < 0.35


@pytest.mark.parametrize("mode_steps", [0.5, float("nan")])
def test_refuses_stretches_of_less_than_a_step(mode_steps: float) -> None:
    with pytest.raises(ValueError, match="mode_steps >= 1 or None"):
        Exploration(mode_steps=mode_steps)


@pytest.mark.parametrize("name", ["correlation", "warmup_correlation"])
@pytest.mark.parametrize("correlation", [-0.1, 1.0, float("nan")])
def test_refuses_correlations_outside_their_range(name: str, correlation: float) -> None:
    with pytest.raises(ValueError, match=f"0 <= {name} < 1"):
        Exploration(**{name: correlation})


def test_steps_count_once_their_episode_has_had_a_reward() -> None:
    steps = RewardedSteps()
    rewards = [[0, 0], [0, 1], [0, 0], [2, 0], [0, 0], [0, 0]]
    dones = [[0, 0], [0, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
    counts = []
    for reward, done in zip(rewards, dones, strict=True):
        steps.add(np.array(reward, dtype=np.float32), np.array(done, dtype=bool))
        counts.append(steps.count)
    assert counts == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("named", [{}, dict(warmup_correlation=0.95)])
def test_first_actions_swing_slowly_if_asked(difftori, several, named: dict[str, float]) -> None:
    model = difftori.make(several(2), learning_starts=10**6, gradient_steps=0, exploration_kwargs=named).learn(800)
    actions = model.replay_buffer.actions[:400, 0, 0]
    following = np.corrcoef(actions[:-1], actions[1:])[0, 1]
    assert following > 0.8 if named else abs(following) < 0.2


@pytest.mark.parametrize("found", [False, True])
def test_noise_stays_until_reward_was_found(difftori, point_env, found: bool) -> None:
    env = point_env()
    if not found:
        env.step = lambda action, step=env.step: (*step(action)[:1], 0.0, *step(action)[2:])
    settings = dict(gradient_steps=0, schedule_steps=20, exploration_kwargs=dict(final_std=0.1, after_reward=True))
    model = difftori.make(env, **settings).learn(60)
    assert model.policy.exploration_std == pytest.approx(0.1 if found else 0.5)
    assert model.policy.horizon == 3


def test_catches_up_with_the_random_steps_once(difftori, point_env) -> None:
    settings = dict(learning_starts=20, gradient_steps=1)
    plain = difftori.make(point_env(), **settings).learn(30)
    caught = difftori.make(point_env(), exploration_kwargs=dict(catch_up=True), **settings).learn(30)
    assert (plain._n_updates, caught._n_updates) == (10, 10 + 21)


def test_smoothing_of_targets_follows_exploration_unless_it_is_set(point_env, difftori) -> None:
    model = difftori.make(point_env(), exploration_kwargs=dict(final_std=0.3))
    assert model.update_settings.noise_std == 0.3
    model.exploration_kwargs = dict(final_std=0.1)
    assert model._updater.settings.noise_std == 0.1
    model.target_policy_noise = 0.25
    model.exploration_kwargs = dict(final_std=0.4)
    assert model._updater.settings.noise_std == 0.25


@pytest.mark.parametrize("cls", [DiffTORI, TDMPC])
def test_earlier_names_tell_the_new_ones(cls: type[DiffTORI]) -> None:
    old = dict(exploration_final_std=0.1, exploration_correlation=0.5)
    with pytest.raises(TypeError, match=r"exploration_kwargs=dict\(final_std=0.1, correlation=0.5\)"):
        cls("MlpPolicy", "Pendulum-v1", **old)
    with pytest.raises(TypeError, match=r"planner_kwargs=dict\(horizon_initial=2\)"):
        cls("MlpPolicy", "Pendulum-v1", horizon_initial=2)


@pytest.mark.parametrize("steep", [0.0, 50.0])
def test_noise_grows_where_it_costs_no_value(steep: float) -> None:
    class Bowl:
        """Values ``-steep * |actions|^2`` of plans ``[B, H, A]``."""

        def repeat(self, n: int) -> Bowl:
            return self

        def value_only(self, plans: torch.Tensor) -> torch.Tensor:
            return -steep * plans.square().sum((1, 2))

    generator = torch.Generator().manual_seed(0)
    plans = torch.zeros(500, 3, 2)
    actions = drawn_action(Bowl(), plans, stds=(0.05, 1.0), temperature=0.5, generator=generator)
    assert actions.shape == (500, 2)
    assert actions.abs().max() <= 1.0
    assert actions.std() > 0.35 if steep == 0 else actions.std() < 0.15


def test_a_broken_model_is_explored_with_every_candidate() -> None:
    class Broken:
        def repeat(self, n: int) -> Broken:
            return self

        def value_only(self, plans: torch.Tensor) -> torch.Tensor:
            return torch.full((len(plans),), torch.nan)

    generator = torch.Generator().manual_seed(0)
    actions = drawn_action(Broken(), torch.zeros(50, 3, 2), stds=(0.1, 1.0), temperature=0.5, generator=generator)
    assert actions.isfinite().all()
    assert actions.std() > 0.2


def test_a_learner_explores_where_the_plan_is_flat(difftori, point_env) -> None:
    flat = difftori.make(point_env(), exploration_kwargs=dict(initial_std=0.0, final_std=0.0, max_std=1.0)).learn(40)
    for network in (flat.policy.model.reward, flat.policy.model.critic):
        for parameter in network.parameters():
            parameter.data.zero_()
    observation = np.zeros((200, *flat.observation_space.shape), np.float32)
    noisy, _ = flat.policy.predict(observation, deterministic=False)
    still, _ = flat.policy.predict(observation, deterministic=True)
    assert np.std(noisy - still) > 0.3
    flat.exploration_kwargs = dict(initial_std=0.0, final_std=0.0)
    np.testing.assert_array_equal(flat.policy.predict(observation, deterministic=False)[0], still)


def test_noise_from_elsewhere_cannot_ask_the_plan(difftori, point_env) -> None:
    with pytest.raises(ValueError, match="max_std=None with correlation or mode_steps"):
        difftori.make(point_env(), exploration_kwargs=dict(max_std=1.0, correlation=0.5))
