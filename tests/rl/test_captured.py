"""
Updates and plans that are recorded: the same numbers to the bit as without, whatever changes in between.

Another recorder stands for CUDA graphs: a replay calls what was recorded, with everything that it had closed over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC
from difftori_gym.learning.captured import EagerRecorder, recorded_by
from difftori_gym.rl.captured_plan import is_recordable
from difftori_gym.rl.captured_update import tensors_of, with_tensors
from difftori_gym.rl.planning import Planner
from difftori_gym.trajopt import TrajectoryOptimizer

Trained = Callable[[], DiffTORI]


@contextmanager
def recording() -> Iterator[list[EagerRecorder]]:
    """Functions are recorded, by the recorders that are listed."""
    made: list[EagerRecorder] = []

    def make(device: torch.device) -> EagerRecorder:
        made.append(EagerRecorder(device))
        return made[-1]

    with recorded_by(make):
        yield made


def weights(model: DiffTORI) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_same(one: DiffTORI, other: DiffTORI) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


def both(train: Trained) -> tuple[DiffTORI, DiffTORI, list[EagerRecorder]]:
    reference = train()
    with recording() as recorders:
        recorded = train()
    return reference, recorded, recorders


SETTINGS: dict[str, dict[str, Any]] = {
    "preset": {},
    "horizon": dict(schedule_steps=40, planner_kwargs=dict(horizon_initial=1)),
    "warm": dict(planner_kwargs=dict(init="warm")),
    "adam": dict(planner_kwargs=dict(solver="adam", num_starts=2, max_iterations=3)),
    "norm_obs": dict(policy_kwargs=dict(norm_obs=True)),
    "rates": dict(learning_rate=lambda left: 1e-3 * left),
    "no gradient": dict(pg_coef=0.0),
    "prior": dict(policy_delay=3),
    "newton": dict(planner_kwargs=dict(solver="newton", max_iterations=1), pg_batch_size=2),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_the_same_to_the_bit(name, difftori, point_env):
    settings = SETTINGS[name]
    reference, recorded, recorders = both(lambda: difftori.make(point_env(fall=1.6), **settings).learn(50))
    assert reference.policy.model.episodic  # an ended episode is a change in between, too
    assert_same(reference, recorded)
    assert sum(each.replays for each in recorders) > 10
    expected = reference._updater.means.pop()
    assert recorded._updater.means.pop() == pytest.approx(expected, rel=1e-6)


def test_tdmpc_is_the_same_to_the_bit(point_env):
    settings: dict[str, Any] = dict(learning_starts=8, batch_size=8, policy_kwargs=dict(net_arch=[16], latent_dim=6))
    settings["planner_kwargs"] = dict(num_samples=16, num_elites=4, max_iterations=2)
    reference, recorded, recorders = both(
        lambda: TDMPC("MlpPolicy", point_env(), seed=0, device="cpu", **settings).learn(40)
    )
    assert_same(reference, recorded)
    assert sum(each.replays for each in recorders) > 10


def test_training_from_images_is_the_same_to_the_bit(difftori, point_env):
    train = lambda: difftori.make(point_env("image"), "CnnPolicy", buffer_size=100).learn(24)  # noqa: E731
    reference, recorded, recorders = both(train)
    assert_same(reference, recorded)
    assert sum(each.replays for each in recorders) > 5


def test_weights_and_states_of_optimizers_may_be_replaced(difftori, point_env):
    def train() -> DiffTORI:
        model = difftori.make(point_env()).learn(30)
        earlier = copy.deepcopy(model.get_parameters())
        model.learn(20, reset_num_timesteps=False)
        model.set_parameters(earlier)  # the optimizers' states lie elsewhere from now on
        model.learn(20, reset_num_timesteps=False)
        model.tau = 0.5  # another record of settings
        return model.learn(20, reset_num_timesteps=False)

    assert_same(*both(train)[:2])


def test_a_plan_is_that_of_the_weights_of_the_moment(difftori, point_env):
    model = difftori.make(point_env()).learn(40)
    observations = [model.observation_space.sample() for _ in range(8)]
    with recording() as recorders:
        for observation in observations:
            model.predict(observation, deterministic=True)
        assert sum(each.replays for each in recorders) > 0
        with torch.no_grad():
            for parameter in model.policy.parameters():
                parameter.add_(0.1 * torch.ones_like(parameter))
        recorded = [model.predict(observation, deterministic=True)[0] for observation in observations]
    expected = [model.predict(observation, deterministic=True)[0] for observation in observations]
    np.testing.assert_array_equal(recorded, expected)


def test_plans_that_were_handed_out_stay(difftori, point_env):
    model = difftori.make(point_env()).learn(40)
    observations = [model.observation_space.sample() for _ in range(6)]
    with recording():
        plans = [model.policy.predict_with_plan(each, deterministic=True)[2] for each in observations]
    for observation, plan in zip(observations, plans, strict=True):
        expected = model.policy.predict_with_plan(observation, deterministic=True)[2]
        assert torch.equal(plan.best_actions, expected.best_actions)
        assert torch.equal(plan.history, expected.history)


def test_a_model_with_recordings_is_saved_loaded_and_copied(difftori, point_env, tmp_path):
    with recording():
        model = difftori.make(point_env()).learn(60)
        observation = model.observation_space.sample()
        action, _ = model.predict(observation, deterministic=True)
        model.save(tmp_path / "model")
        loaded = DiffTORI.load(tmp_path / "model", device="cpu")
        copied = copy.deepcopy(model.policy)
        for each in (loaded, copied):
            np.testing.assert_array_equal(each.predict(observation, deterministic=True)[0], action)


def test_what_is_not_the_same_operations_every_time_is_not_recorded():
    def own(objective, actions, settings):
        raise NotImplementedError

    class OwnPlanner(Planner):
        pass

    assert is_recordable(Planner())
    for solver in ("newton", "mppi", own):
        assert not is_recordable(Planner(TrajectoryOptimizer(solver=solver)))
    assert not is_recordable(Planner(compile=True))
    assert not is_recordable(OwnPlanner())


def test_a_batch_is_its_tensors(difftori, point_env):
    model = difftori.make(point_env()).learn(30)
    batch = model.replay_buffer.sample_sequences(4, 3)
    tensors = [torch.zeros_like(tensor) for tensor in tensors_of(batch)]
    zeros = with_tensors(batch, tensors)
    assert all(one is other for one, other in zip(tensors_of(zeros), tensors, strict=True))
    np.testing.assert_array_equal(zeros.indices, batch.indices)
